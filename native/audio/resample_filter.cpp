#include "audio/resample_filter.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <mutex>

#include "audio/resample_kernel.h"
#include "core/error.h"

namespace panns::audio {
namespace {

constexpr double kPi = 3.14159265358979323846;

// 5 dB more than promised, for the rounding of the taps to float32 and of the sums.
constexpr double kStopbandDb = 125;
const double kBeta = 0.1102 * (kStopbandDb - 8.7);  // Kaiser's formula for more than 50 dB

// Kaiser's other formula: taps * transition width, in units of the sample rate.
constexpr double kTapsTimesWidth = (kStopbandDb - 7.95) / 14.36;

// A table with one row a phase may have so many coefficients (4 MB): all usual pairs of rates fit
// (44.1 to 32 kHz: 320 * 192). Others, such as 44100 to 31999, interpolate between two rows.
constexpr int64_t kMaxExact = 1 << 20;

// Rows per period of the highest frequency that the filter passes, times two. Linear interpolation
// errs by (pi / 4096)^2 / 8 of a tone's amplitude there: -142 dB.
constexpr double kRowsPerSample = 4096;

constexpr int64_t kMaxTaps = 1 << 22;

// Filters kept for later: a program meets few pairs of rates, and one filter is 0.2 to 5 MB.
constexpr size_t kKept = 8;

double kept_part(ResampleQuality quality) {
  switch (quality) {
    case ResampleQuality::fast:
      return 0.75;
    case ResampleQuality::standard:
      return 0.875;
    case ResampleQuality::high:
      return 0.95;
  }
  return 0.875;
}

// The modified Bessel function of the first kind, order zero.
double bessel_i0(double x) {
  const double q = x * x / 4;
  double sum = 1, term = 1;
  for (double k = 1; term > sum * 1e-17; ++k) {
    term *= q / (k * k);
    sum += term;
  }
  return sum;
}

void pair_outputs(ResampleFilter& f) {
  f.lead.assign(static_cast<size_t>(f.up), 0);
  for (int64_t r = 1; r < f.up; r += 2) {
    const int64_t step = r * f.down / f.up - (r - 1) * f.down / f.up;
    f.lead[static_cast<size_t>(r)] = static_cast<int32_t>(step);
    f.max_lead = std::max(f.max_lead, step);
  }
}

void fill_rows(ResampleFilter& f, double cutoff) {
  const int64_t rows = f.interpolated ? f.phases + 1 : f.up;
  constexpr size_t kAlign = 16;  // floats
  f.storage.assign(static_cast<size_t>(rows * f.width) + kAlign, 0.0f);
  const auto address = reinterpret_cast<uintptr_t>(f.storage.data());
  float* const table = f.storage.data() + (kAlign - address / sizeof(float) % kAlign) % kAlign;
  f.rows = table;

  const double half = static_cast<double>(f.taps) / 2;
  const double peak = bessel_i0(kBeta);
  for (int64_t r = 0; r < rows; ++r) {
    float* out = table + r * f.width + (f.interpolated ? 0 : f.lead[static_cast<size_t>(r)]);
    const double shift = f.interpolated
                             ? static_cast<double>(r) / static_cast<double>(f.phases)
                             : static_cast<double>(r * f.down % f.up) / static_cast<double>(f.up);
    for (int64_t k = 0; k < f.taps; ++k) {
      const double t = static_cast<double>(k - (f.taps / 2 - 1)) - shift;
      const double rest = 1 - (t / half) * (t / half);
      const double window = rest > 0 ? bessel_i0(kBeta * std::sqrt(rest)) / peak : 0;
      const double angle = 2 * kPi * cutoff * t;
      const double sinc = angle == 0 ? 1 : std::sin(angle) / angle;
      out[k] = static_cast<float>(2 * cutoff * sinc * window);
    }
  }
}

std::shared_ptr<const ResampleFilter> design(int64_t up, int64_t down, ResampleQuality quality) {
  auto filter = std::make_shared<ResampleFilter>();
  ResampleFilter& f = *filter;
  f.up = up;
  f.down = down;
  f.step = down / up;
  f.rest = down % up;
  // Frequencies in units of the input rate.
  const double ratio = static_cast<double>(up) / static_cast<double>(down);
  const double nyquist = 0.5 * std::min(1.0, ratio);
  const double wanted = kTapsTimesWidth / (nyquist * (1 - kept_part(quality)));
  PANNS_CHECK(wanted <= static_cast<double>(kMaxTaps), "ERR_PANNS_UNSUPPORTED", "resample",
              "a ratio of ", down, " to ", up, " needs a filter of ", wanted,
              " taps, more than the limit of ", kMaxTaps, "; resample in two steps");
  const auto least = static_cast<int64_t>(std::ceil(wanted));
  f.interpolated = up > kMaxExact / least;
  if (!f.interpolated) pair_outputs(f);
  const int64_t multiple = cpu::kResampleTapsMultiple;
  f.width = (least + f.max_lead + multiple - 1) / multiple * multiple;
  f.taps = (f.width - f.max_lead) / 2 * 2;
  if (f.interpolated) {
    f.phases = static_cast<int64_t>(std::ceil(kRowsPerSample * std::min(1.0, ratio)));
  }
  const double transition = kTapsTimesWidth / static_cast<double>(f.taps);
  f.passband = nyquist - transition;
  fill_rows(f, nyquist - transition / 2);
  return filter;
}

}  // namespace

std::shared_ptr<const ResampleFilter> resample_filter(int64_t up, int64_t down,
                                                      ResampleQuality quality) {
  struct Entry {
    int64_t up, down;
    ResampleQuality quality;
    std::shared_ptr<const ResampleFilter> filter;
  };
  static std::mutex mutex;
  static std::list<Entry> kept;  // last used first

  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = std::find_if(kept.begin(), kept.end(), [&](const Entry& e) {
    return e.up == up && e.down == down && e.quality == quality;
  });
  if (found != kept.end()) {
    kept.splice(kept.begin(), kept, found);
  } else {
    kept.push_front({up, down, quality, design(up, down, quality)});
    if (kept.size() > kKept) kept.pop_back();
  }
  return kept.front().filter;
}

}  // namespace panns::audio
