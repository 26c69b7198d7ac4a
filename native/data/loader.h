// Audio files to one batch of clips of equal length, decoded by several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "audio/decode.h"
#include "core/threads.h"

namespace panns::data {

struct ClipRequest {
  audio::Source source;
  double start_seconds = 0;
  double duration_seconds = -1;  // negative: as long as the clip
};

struct ClipOptions {
  int target_rate = 0;  // Hz; 0: each file's own, for files known to agree
  int64_t samples = 0;  // S: of one clip; longer audio is cut after it, shorter padded with 0
  audio::NanPolicy nan = audio::NanPolicy::kError;
  const std::atomic<bool>* cancel = nullptr;
  std::atomic<int64_t>* finished = nullptr;  // counts clips as they are done, failed ones too
};

struct ClipResult {
  int64_t frames = 0;  // of the clip that are audio; the rest is padding
  bool truncated = false;
  std::string code, message;  // empty when the clip was read
};

// Reads clip n into row n of out, (N, S), mono, on the pool's threads and the caller's. A clip that
// cannot be read leaves a row of zeros and its reason at its index; the others go on. After cancel
// the rows not yet read have the code ABORT_ERR. What a row holds does not depend on the threads.
// int16 rows are rounded as audio::to_int16 does.
// Errors: ERR_PANNS_OPTION (samples < 1 or a negative rate), ERR_PANNS_AUDIO_LIBRARY.
std::vector<ClipResult> load_clips(std::span<const ClipRequest> clips, const ClipOptions& options,
                                   ThreadPool& pool, float* out);
std::vector<ClipResult> load_clips(std::span<const ClipRequest> clips, const ClipOptions& options,
                                   ThreadPool& pool, int16_t* out);

}  // namespace panns::data
