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
}

void LogmelConfig::check_samples(int64_t samples) const {
  PANNS_CHECK(samples >= min_samples(), "ERR_PANNS_SHAPE", kWhere, "expected clips of at least ",
              min_samples(), " samples (reflect padding needs more than window_size / 2), got ",
              samples, "; pad the clips first");
}

}  // namespace panns::frontend
