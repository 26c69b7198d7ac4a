// Audio files in: any format libsndfile reads, whole or a range of it, at any rate.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "audio/decode_source.h"
#include "audio/resample.h"

namespace panns::audio {

// Hz, of files and of results: the highest that audio interfaces offer, and what Resampler takes.
inline constexpr int kHighestRate = 768'000;

struct AudioInfo {
  int64_t frames = 0;   // as the file announces it; -1 where it does not (a FLAC made by a pipe)
  int sample_rate = 0;  // Hz
  int channels = 0;
  std::string format;   // "WAV", "FLAC", "OGG", "MP3", "AIFF", ...
  std::string subtype;  // "PCM_16", "FLOAT", "VORBIS", "OPUS", "MPEG_LAYER_III", ...
};

// A growing array of floats that never holds its content twice: large blocks grow by moving pages.
class Samples {
 public:
  Samples() = default;
  ~Samples();
  Samples(Samples&& other) noexcept;
  Samples& operator=(Samples&& other) noexcept;

  float* data() { return data_; }
  const float* data() const { return data_; }
  int64_t size() const { return size_; }
  void append(const float* values, int64_t count);
  void shrink();     // gives back what growing took in advance
  float* release();  // the block, to be given to free(); this is empty afterwards

 private:
  void reallocate(int64_t capacity);

  float* data_ = nullptr;
  int64_t size_ = 0, capacity_ = 0;
};

enum class NanPolicy { kError, kZero };

struct DecodeRequest {
  Source source;
  double start_seconds = 0;
  double duration_seconds = -1;  // negative: to the end
  int64_t max_frames = -1;       // at most so many output frames; negative: no such limit
  int target_rate = 0;           // Hz; 0: the file's own
  ResampleQuality quality = ResampleQuality::standard;
  bool mono = true;  // the mean of the channels, otherwise every channel
  NanPolicy nan = NanPolicy::kError;
  // A few megabytes of FLAC can hold days of silence: an end is set to what a file may unfold to.
  // Six hours at 32 kHz are 2.8 GB a channel.
  double max_seconds = 6 * 3600;
  const std::atomic<bool>* cancel = nullptr;
  // Unless empty: the samples go here, rounded as to_int16 does, and what follows them stays as it
  // is. Of a mono request, for at most as many frames as there is room.
  std::span<int16_t> codes;
};

struct Decoded {
  std::vector<Samples>
      channels;  // one when mono, all of equal length; empty where codes were asked
  int64_t frames = 0;
  int sample_rate = 0;
  AudioInfo info;
  // The file ended before the requested range did although it announced more, or its own structure
  // shows that its end is missing; what could be decoded was.
  bool truncated = false;
  // Samples that were NaN or infinite and are 0 here (NanPolicy::kZero).
  int64_t replaced = 0;
};

// What a file says it holds; decodes nothing.
// Errors: ERR_PANNS_AUDIO_NOT_FOUND, ERR_PANNS_IO, ERR_PANNS_AUDIO_EMPTY (no bytes),
// ERR_PANNS_AUDIO_FORMAT (not audio, or nothing libsndfile reads), ERR_PANNS_AUDIO_CORRUPT,
// ERR_PANNS_AUDIO_LIBRARY (no libsndfile).
AudioInfo probe(const Source& source, const std::atomic<bool>* cancel = nullptr);

// Decodes the output frames round(start * rate) to round((start + duration) * rate) of the file,
// less where it ends before; consecutive ranges therefore tile. Samples lie in [-1, 1], but for
// float files and lossy codecs, whose own values beyond it are kept. With a change of rate a range
// equals the slice of the whole: the filter is fed its true neighbours and starts in phase. (MP3
// and Opus decoders carry a state from the past; there a range agrees to docs/audio.md's figures.)
// Memory follows what is decoded, never what a header announces.
// Errors: those of probe, and ERR_PANNS_AUDIO_EMPTY (no frames), ERR_PANNS_AUDIO_RANGE (a range
// that is not one, or starts at or after the end), ERR_PANNS_AUDIO_TOO_LONG (max_seconds),
// ERR_PANNS_AUDIO_NAN, ABORT_ERR (cancel was set).
Decoded decode(const DecodeRequest& request);

// (float in [-1, 1]) to int16 and back as PANNs packs its data: clip, times 32767, toward zero.
// NaN becomes 0.
void to_int16(const float* in, int64_t count, int16_t* out);
void to_float(const int16_t* in, int64_t count, float* out);

}  // namespace panns::audio
