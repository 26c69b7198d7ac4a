// Bytes of an audio file, on disk or in memory, as libsndfile reads them: through callbacks, so
// that only regular files are opened, a cancelled job stops inside a long header scan too, and a
// name's extension never decides how its bytes are read.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audio/sndfile.h"

namespace panns::audio {

// Either a path, or bytes that outlive every call that is given them.
struct Source {
  std::string path;
  std::optional<std::span<const uint8_t>> bytes;

  std::string name() const { return bytes ? "audio in memory" : path; }
};

class ByteReader {
 public:
  // Errors: ERR_PANNS_AUDIO_NOT_FOUND (no such file), ERR_PANNS_IO (not a regular file, or one that
  // may not be read). cancel may be null.
  ByteReader(const Source& source, const std::atomic<bool>* cancel);
  ~ByteReader();
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;

  int64_t size() const { return size_; }
  // As many of the count bytes at offset as there are; fewer than that after an I/O error.
  int64_t read_at(int64_t offset, void* out, int64_t count);
  // Presents `head` followed by the bytes [from, to) instead of the whole file.
  void replace_head(std::vector<uint8_t> head, int64_t from, int64_t to);
  bool cancelled() const { return cancel_ && cancel_->load(std::memory_order_relaxed); }
  // The errno of the first failed read, or 0.
  int io_error() const { return io_error_; }

  static SndfileVirtualIo callbacks();

 private:
  int64_t read_raw(int64_t offset, void* out, int64_t count);
  int64_t read_disk(int64_t offset, void* out, int64_t count);

  const std::atomic<bool>* cancel_;
  std::span<const uint8_t> bytes_;
  int fd_ = -1;
  int64_t size_ = 0;  // as presented
  int64_t end_ = 0;   // offset in the file of the last byte presented, plus one
  std::vector<uint8_t> head_;
  int64_t body_ = 0;      // where in the file the bytes after head_ come from
  int64_t position_ = 0;  // of the callbacks
  int io_error_ = 0;
  std::vector<uint8_t> cache_;  // the bytes at cache_start_, for the decoders' small reads
  int64_t cache_start_ = 0;
};

// What the first bytes say the file is.
struct Container {
  const char* name = nullptr;  // null: nothing that is known here
  bool sndfile = false;        // whether libsndfile reads such files
};
Container identify(ByteReader& reader);

// Whether the file stops before the end that its own structure announces: a WAV or AIFF sample
// chunk longer than the file, an Ogg file without a whole last page. False where a format says
// nothing of the kind (its decoded length is then held against the announced one).
bool stops_early(ByteReader& reader);

// The frame at which the last page of an Ogg file begins, 0 where it cannot be told.
int64_t ogg_last_page_start(ByteReader& reader);

}  // namespace panns::audio
