// One audio file opened by libsndfile: what it is, its frames in order, and seeking.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "audio/decode.h"
#include "audio/decode_source.h"
#include "audio/sndfile.h"

namespace panns::audio {

class AudioFile {
 public:
  // Errors: those of probe. The source must outlive this.
  AudioFile(const Source& source, const std::atomic<bool>* cancel);
  ~AudioFile();
  AudioFile(const AudioFile&) = delete;
  AudioFile& operator=(const AudioFile&) = delete;

  const AudioInfo& info() const { return info_; }
  std::string name() const { return source_.name(); }

  // The next frames, interleaved; 0 at the end or where the data cannot be decoded further.
  int64_t read(float* out, int64_t frames);
  // Makes frame the next to be read. Where the format or a damaged file does not let libsndfile
  // seek, decodes up to it; false when the file ends before (position() then says where; a first
  // read that gives nothing may find that out too).
  bool seek(int64_t frame);
  int64_t position() const { return position_; }
  // Whether reading ended before what the file announces.
  bool ended_early();
  // libsndfile's or the system's reason for a read that failed; empty when it gave none.
  std::string failure() const;

 private:
  void open();
  void close();
  [[noreturn]] void throw_open_failure(int code, const std::string& text);
  void throw_if_cancelled() const;
  int64_t read_here(float* out, int64_t frames);
  bool skip_to(int64_t frame);
  int64_t last_exact_seek();

  const SndfileApi& api_;
  const Source& source_;
  ByteReader bytes_;
  SndfileVirtualIo io_;
  SndfileHandle* handle_ = nullptr;
  AudioInfo info_;
  int64_t position_ = 0;
  bool repaired_ = false;  // an MP3 has been inspected: its head is as it is to be
  bool cut_ = false;       // ... and announced more than the file holds
  bool sought_ = false;    // the last thing done was a seek, and no frame has proved it yet
};

}  // namespace panns::audio
