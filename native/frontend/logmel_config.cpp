#include "frontend/logmel_config.h"

#include <cfloat>
#include <cmath>

#include "core/error.h"

namespace panns::frontend {
namespace {

constexpr const char* kWhere = "logmel";
constexpr const char* kCode = "ERR_PANNS_OPTION";

// Two seconds at 32 kHz, and 8 MB of scratch memory a thread with 16 frames in flight.
constexpr int64_t kMaxWindow = 65536;
constexpr int64_t kMaxRate = 768000;

}  // namespace

void LogmelConfig::validate() const {
  PANNS_CHECK(sample_rate >= 1 && sample_rate <= kMaxRate, kCode, kWhere,
              "sample_rate must lie in 1..", kMaxRate, " Hz, got ", sample_rate);
  PANNS_CHECK(window_size >= 4 && window_size <= kMaxWindow && window_size % 2 == 0, kCode, kWhere,
              "window_size must be an even number in 4..", kMaxWindow, " samples, got ",
              window_size);
  PANNS_CHECK(hop_size >= 1 && hop_size <= kMaxWindow, kCode, kWhere, "hop_size must lie in 1..",
              kMaxWindow, " samples, got ", hop_size);
  PANNS_CHECK(mel_bins >= 1 && mel_bins <= bins(), kCode, kWhere,
              "mel_bins must lie in 1..window_size / 2 + 1 = ", bins(), ", got ", mel_bins);
  PANNS_CHECK(std::isfinite(fmin) && fmin >= 0, kCode, kWhere, "fmin must be 0 Hz or more, got ",
              fmin);
  PANNS_CHECK(std::isfinite(fmax) && fmax > fmin && fmax <= sample_rate / 2.0, kCode, kWhere,
              "fmax must lie above fmin = ", fmin,
              " Hz and not above sample_rate / 2 = ", sample_rate / 2.0, " Hz, got ", fmax);
  // The logarithm of the kernels does not know subnormal numbers.
  PANNS_CHECK(amin >= FLT_MIN && amin <= 1, kCode, kWhere, "amin must lie in ", FLT_MIN,
              "..1, got ", amin);
  // A symmetric Hann window of two samples is zero.
  PANNS_CHECK(window_length == 0 || (window_length >= 3 && window_length <= window_size), kCode,
              kWhere, "window_length must lie in 3..window_size = ", window_size, " samples, got ",
              window_length);
  PANNS_CHECK(preemphasis >= -1 && preemphasis <= 1, kCode, kWhere,
              "preemphasis must lie in -1..1, got ", preemphasis);
  PANNS_CHECK(std::isfinite(shift), kCode, kWhere, "shift must be finite, got ", shift);
  PANNS_CHECK(std::isfinite(scale) && scale != 0, kCode, kWhere,
              "scale must be finite and not 0, got ", scale);
}

void LogmelConfig::check_samples(int64_t samples) const {
  PANNS_CHECK(samples >= min_samples(), "ERR_PANNS_SHAPE", kWhere, "expected clips of at least ",
              min_samples(), " samples (reflect padding needs more than window_size / 2",
              lost() > 0 ? ", pre-emphasis one more" : "", "), got ", samples,
              "; pad the clips first");
}

LogmelConfig config_of(const ops::LogmelAttrs& attrs) {
  LogmelConfig config;
  config.sample_rate = attrs.sample_rate;
  config.window_size = attrs.window_size;
  config.hop_size = attrs.hop_size;
  config.mel_bins = attrs.mel_bins;
  config.fmin = attrs.fmin;
  config.fmax = attrs.fmax;
  config.window_length = attrs.window_length;
  config.periodic = attrs.periodic;
  config.preemphasis = attrs.preemphasis;
  config.mel_scale = attrs.mel_scale;
  config.log = attrs.log;
  config.shift = attrs.shift;
  config.scale = attrs.scale;
  config.validate();
  return config;
}

}  // namespace panns::frontend
