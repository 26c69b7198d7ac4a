// Rows of a batch: clips cut or padded to one length, in 16 bits, filled by several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "audio/decode.h"
#include "core/threads.h"

namespace panns::data {

// A range of an audio file, decoded and resampled.
struct AudioClip {
  audio::Source source;
  double start_seconds = 0;
  double duration_seconds = -1;  // negative: to the end
};

// Samples of 16 bits that lie in a file as they are, little-endian.
struct StoredClip {
  std::string path;
  int64_t offset = 0;  // of the first, in bytes
};

// The same in memory, beside the row.
struct HeldClip {
  const int16_t* samples = nullptr;
};

struct RowRequest {
  std::variant<AudioClip, StoredClip, HeldClip> clip;
  int64_t most = 0;  // samples wanted; of a stored or held clip all of them are there
  std::span<int16_t> row;
};

struct RowOptions {
  int target_rate = 0;  // of decoded clips, Hz; 0: each file's own, for files known to agree
  const std::atomic<bool>* cancel = nullptr;
  std::atomic<int64_t>* finished = nullptr;  // counts rows as they are done, failed ones too
};

struct RowResult {
  int64_t samples = 0;        // of the row that are the clip's; zeros are behind them
  std::string code, message;  // empty when the clip was read
};

// Fills each row with its clip, on the pool's threads and the caller's; a pool of one goes through
// them in order. A clip that cannot be read leaves a row of zeros and its reason at its index; the
// others go on. After cancel the rows not yet read have the code ABORT_ERR. What a row holds does
// not depend on the threads. Decoded samples are rounded as audio::to_int16 does; one that is not
// finite is ERR_PANNS_AUDIO_NAN, a file that ends before a stored clip does ERR_PANNS_DATA.
// Errors: ERR_PANNS_OPTION (a row that does not hold `most`, or a negative rate or offset),
// ERR_PANNS_AUDIO_LIBRARY (where there is something to decode).
std::vector<RowResult> fill_rows(std::span<const RowRequest> requests, const RowOptions& options,
                                 ThreadPool& pool);

}  // namespace panns::data
