#include "audio/resample.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "audio/resample_filter.h"
#include "audio/resample_kernel.h"
#include "core/error.h"

namespace panns::audio {
namespace {

constexpr int64_t kMaxRate = 768000;
constexpr int64_t kDots = cpu::kResampleDots;
constexpr int64_t kWindows = cpu::kResampleWindows;

// Input taken at a time from a long chunk: 64 KB stay in the second cache beside the coefficients.
constexpr int64_t kBlock = 16384;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void check_rate(const char* name, int64_t rate) {
  PANNS_CHECK(rate >= 1 && rate <= kMaxRate, "ERR_PANNS_OPTION", "resample", name,
              " must lie in 1..", kMaxRate, " Hz, got ", rate);
}

}  // namespace

Resampler::Resampler(int64_t from_rate, int64_t to_rate, ResampleQuality quality)
    : from_(from_rate), to_(to_rate) {
  check_rate("from_rate", from_);
  check_rate("to_rate", to_);
  if (from_ == to_) return;
  const int64_t common = std::gcd(from_, to_);
  filter_ = resample_filter(to_ / common, from_ / common, quality);
  // Room for the window of an output, and for whole rounds of the filter beside it.
  const int64_t round = filter_->pairs() ? kWindows * filter_->down : kBlock;
  buffer_.resize(static_cast<size_t>(filter_->behind() + filter_->ahead() + 1 + filter_->step +
                                     ceil_div(kBlock, round) * round));
  reset();
}

Resampler::~Resampler() = default;
Resampler::Resampler(Resampler&&) noexcept = default;
Resampler& Resampler::operator=(Resampler&&) noexcept = default;

double Resampler::passband_hz() const {
  return static_cast<double>(from_) * (filter_ ? filter_->passband : 0.5);
}

int64_t Resampler::taps() const { return filter_ ? filter_->taps : 0; }

int64_t Resampler::output_size(int64_t samples) const {
  return filter_ ? ceil_div(samples * filter_->up, filter_->down) : samples;
}

// Outputs whose whole window lies within the first `fed` inputs.
int64_t Resampler::ready(int64_t fed) const {
  return filter_ ? output_size(std::max<int64_t>(fed - filter_->ahead(), 0)) : fed;
}

int64_t Resampler::process_size(int64_t samples) const { return ready(fed_ + samples) - produced_; }

int64_t Resampler::flush_size() const { return output_size(received_) - produced_; }

void Resampler::reset() {
  received_ = fed_ = produced_ = 0;
  start_ = phase_ = number_ = 0;
  // The window of output 0 reaches back into silence.
  filled_ = filter_ ? filter_->behind() : 0;
  std::fill_n(buffer_.begin(), filled_, 0.0f);
}

void Resampler::process(const float* in, int64_t samples, float* out) {
  PANNS_CHECK(samples >= 0, "ERR_PANNS_SHAPE", "resample", "expected 0 or more samples, got ",
              samples);
  received_ += samples;
  feed(in, samples, ready(fed_ + samples), out);
}

void Resampler::flush(float* out) {
  if (filter_) feed(nullptr, filter_->ahead(), output_size(received_), out);
  reset();
}

// Appends samples (silence where in is null) and brings the output up to `end`.
void Resampler::feed(const float* in, int64_t samples, int64_t end, float*& out) {
  if (!filter_) {
    std::copy(in, in + samples, out);
    fed_ += samples;
    produced_ += samples;
    return;
  }
  const int64_t round = kWindows * filter_->up;
  while (samples > 0) {
    const int64_t take = std::min(samples, static_cast<int64_t>(buffer_.size()) - filled_);
    if (in) {
      std::copy(in, in + take, buffer_.data() + filled_);
      in += take;
    } else {
      std::fill_n(buffer_.data() + filled_, take, 0.0f);
    }
    filled_ += take;
    fed_ += take;
    samples -= take;
    int64_t until = std::min(ready(fed_), end);
    // While more input waits, only whole rounds leave: those take the fast path.
    if (samples > 0 && filter_->pairs()) {
      until = produced_ + (until - produced_) / round * round;
    }
    emit(until, out);
    // Input before the next window is done with; the window may begin past what is here.
    const int64_t done = std::min(start_, filled_);
    std::memmove(buffer_.data(), buffer_.data() + done,
                 static_cast<size_t>(filled_ - done) * sizeof(float));
    filled_ -= done;
    start_ -= done;
  }
}

void Resampler::emit(int64_t end, float*& out) {
  int64_t count = end - produced_;
  const int64_t round = kWindows * filter_->up;
  while (filter_->pairs() && count >= round) {
    emit_round(out);
    out += round;
    count -= round;
  }
  emit_singly(count, out);
  out += count;
  produced_ = end;
}

// A round is kWindows periods of the filter. Outputs `up` apart have the same row, and windows
// `down` apart; two outputs that are partners share their windows.
void Resampler::emit_round(float* out) {
  const ResampleFilter& f = *filter_;
  const cpu::ResampleKernel& kernel = cpu::resample_kernel();
  for (int64_t i = 0; i < f.up;) {
    const bool paired = number_ % 2 == 0 && number_ + 1 < f.up && i + 1 < f.up;
    float y[kDots];
    const float* first = f.row(number_);
    const float* x = window();
    advance();
    const float* second = paired ? f.row(number_) : first;
    kernel.pair(first, second, x, f.down, f.width, y);
    for (int64_t j = 0; j < kWindows; ++j) out[i + j * f.up] = y[j];
    if (paired) {
      for (int64_t j = 0; j < kWindows; ++j) out[i + 1 + j * f.up] = y[kWindows + j];
      advance();
    }
    i += paired ? 2 : 1;
  }
  // The loop went over one period.
  start_ += (kWindows - 1) * f.down;
}

// The first input under the row of the next output.
const float* Resampler::window() const {
  const int64_t lead = filter_->interpolated ? 0 : filter_->lead[static_cast<size_t>(number_)];
  return buffer_.data() + start_ + filter_->max_lead - lead;
}

// On to the next output.
void Resampler::advance() {
  start_ += filter_->step;
  phase_ += filter_->rest;
  if (phase_ >= filter_->up) {
    phase_ -= filter_->up;
    ++start_;
  }
  if (++number_ == filter_->up) number_ = 0;
}

// Outputs one after another, each with its own row, or its own two rows to interpolate between.
void Resampler::emit_singly(int64_t count, float* out) {
  const ResampleFilter& f = *filter_;
  const cpu::ResampleKernel& kernel = cpu::resample_kernel();
  const int64_t rows_each = f.interpolated ? 2 : 1, group = kDots / rows_each;
  for (int64_t i = 0; i < count; i += group) {
    const int64_t outputs = std::min(group, count - i);
    const float *rows[kDots], *x[kDots];
    float fraction[kDots], y[kDots];
    for (int64_t j = 0; j < group; ++j) {
      if (j >= outputs) {  // idle sums repeat the first
        for (int64_t r = 0; r < rows_each; ++r) {
          rows[j * rows_each + r] = rows[0];
          x[j * rows_each + r] = x[0];
        }
        continue;
      }
      int64_t row = number_;
      if (f.interpolated) {
        row = phase_ * f.phases / f.up;
        fraction[j] = static_cast<float>(static_cast<double>(phase_ * f.phases % f.up) /
                                         static_cast<double>(f.up));
      }
      for (int64_t r = 0; r < rows_each; ++r) {
        rows[j * rows_each + r] = f.row(row + r);
        x[j * rows_each + r] = window();
      }
      advance();
    }
    kernel.separate(rows, x, f.width, y);
    for (int64_t j = 0; j < outputs; ++j) {
      out[i + j] = f.interpolated ? y[2 * j] + fraction[j] * (y[2 * j + 1] - y[2 * j]) : y[j];
    }
  }
}

void resample(const float* in, int64_t samples, int64_t from_rate, int64_t to_rate, float* out,
              ResampleQuality quality) {
  Resampler resampler(from_rate, to_rate, quality);
  const int64_t first = resampler.process_size(samples);
  resampler.process(in, samples, out);
  resampler.flush(out + first);
}

}  // namespace panns::audio
