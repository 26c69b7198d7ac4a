// Sample-rate conversion by any rational ratio: a windowed sinc (Kaiser) as a polyphase filter.
// The result is aligned with the input (no delay) and has ceil(samples * to / from) samples.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace panns::audio {

// How much of the band below the lower of the two Nyquist frequencies is kept. What lies above
// that Nyquist frequency falls by 120 dB or more at every quality.
enum class ResampleQuality {
  fast,      // 75 %
  standard,  // 87.5 %: 14 kHz from 44.1 to 32 kHz, where the mel bands of PANNs end
  high       // 95 %
};

struct ResampleFilter;

// One channel. An object belongs to one thread at a time; different objects share their (constant)
// coefficients. The same input gives the same output, bit for bit, however it is cut into chunks.
class Resampler {
 public:
  // Rates in Hz, 1..768000. Throws ERR_PANNS_OPTION, and ERR_PANNS_UNSUPPORTED where the filter
  // would need more than 4 million taps (from / to above about 30,000).
  Resampler(int64_t from_rate, int64_t to_rate,
            ResampleQuality quality = ResampleQuality::standard);
  ~Resampler();
  Resampler(Resampler&&) noexcept;
  Resampler& operator=(Resampler&&) noexcept;

  int64_t from_rate() const { return from_; }
  int64_t to_rate() const { return to_; }

  // Up to here tones keep their level to 1e-5 dB.
  double passband_hz() const;
  // Input samples that one output sees; half of them lie ahead of it. 0 where the rates are equal.
  int64_t taps() const;
  // ceil(samples * to / from)
  int64_t output_size(int64_t samples) const;

  // How many samples the next process(in, samples, out) and flush(out) will write.
  int64_t process_size(int64_t samples) const;
  int64_t flush_size() const;

  // Takes a chunk and writes what can be computed from the input so far.
  void process(const float* in, int64_t samples, float* out);
  // Ends the stream: writes the rest, as if silence followed, and starts a new stream.
  void flush(float* out);
  // Starts a new stream and drops what is left of this one.
  void reset();

 private:
  int64_t ready(int64_t fed) const;
  void feed(const float* in, int64_t samples, int64_t end, float*& out);
  void emit(int64_t end, float*& out);
  void emit_round(float* out);
  void emit_singly(int64_t count, float* out);
  const float* window() const;
  void advance();

  int64_t from_, to_;
  std::shared_ptr<const ResampleFilter> filter_;  // null where the rates are equal
  std::vector<float> buffer_;
  int64_t filled_ = 0;    // floats in buffer_
  int64_t received_ = 0;  // input samples of this stream
  int64_t fed_ = 0;       // the same with the silence that flush appends
  int64_t produced_ = 0;  // output samples of this stream
  // buffer_[start_] is the first input that the next output may need; that output lies
  // phase_ / up input samples after the one at start_ + behind, and is number_ in its period.
  int64_t start_ = 0, phase_ = 0, number_ = 0;
};

// A whole clip at once; out holds ceil(samples * to / from) floats.
void resample(const float* in, int64_t samples, int64_t from_rate, int64_t to_rate, float* out,
              ResampleQuality quality = ResampleQuality::standard);

}  // namespace panns::audio
