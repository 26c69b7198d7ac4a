#include "frontend/mel.h"

#include <algorithm>
#include <cmath>

namespace panns::frontend {
namespace {

constexpr double kHzPerMel = 200.0 / 3;
constexpr double kKneeHz = 1000;
constexpr double kKneeMel = kKneeHz / kHzPerMel;
const double kLogStep = std::log(6.4) / 27;

// The corners of the triangles: mels + 2 points, evenly spaced in mel.
std::vector<double> corners(const LogmelConfig& config) {
  const double low = hz_to_mel(config.fmin), high = hz_to_mel(config.fmax);
  const double step = (high - low) / static_cast<double>(config.mel_bins + 1);
  std::vector<double> hz(static_cast<size_t>(config.mel_bins + 2));
  for (size_t i = 0; i < hz.size(); ++i) hz[i] = mel_to_hz(low + static_cast<double>(i) * step);
  hz.back() = mel_to_hz(high);
  return hz;
}

}  // namespace

double hz_to_mel(double hz) {
  return hz < kKneeHz ? hz / kHzPerMel : kKneeMel + std::log(hz / kKneeHz) / kLogStep;
}

double mel_to_hz(double mel) {
  return mel < kKneeMel ? mel * kHzPerMel : kKneeHz * std::exp(kLogStep * (mel - kKneeMel));
}

MelFilterBank mel_filter_bank(const LogmelConfig& config) {
  config.validate();
  const std::vector<double> hz = corners(config);
  // Written as numpy.fft.rfftfreq computes it: sample_rate / window_size rounds differently.
  const double spacing = 1.0 / (static_cast<double>(config.window_size) *
                                (1.0 / static_cast<double>(config.sample_rate)));

  MelFilterBank bank;
  bank.bins = config.bins();
  bank.mels = config.mel_bins;
  for (size_t m = 0; m + 2 < hz.size(); ++m) {
    const double rise = hz[m + 1] - hz[m], fall = hz[m + 2] - hz[m + 1];
    const double area = 2.0 / (hz[m + 2] - hz[m]);
    bank.first.push_back(0);
    bank.count.push_back(0);
    bank.offset.push_back(static_cast<int64_t>(bank.weights.size()));
    const auto begin = static_cast<int64_t>(hz[m] / spacing);
    const auto end = std::min(bank.bins, static_cast<int64_t>(hz[m + 2] / spacing) + 2);
    for (int64_t k = begin; k < end; ++k) {
      const double f = static_cast<double>(k) * spacing;
      const double weight = std::min((f - hz[m]) / rise, (hz[m + 2] - f) / fall);
      if (!(weight > 0)) continue;
      if (bank.count[m]++ == 0) bank.first[m] = k;
      bank.weights.push_back(weight * area);
    }
  }
  return bank;
}

std::vector<float> MelFilterBank::dense() const {
  std::vector<float> out(static_cast<size_t>(bins * mels), 0.0f);
  for (size_t m = 0; m < first.size(); ++m) {
    for (int64_t j = 0; j < count[m]; ++j) {
      out[static_cast<size_t>((first[m] + j) * mels) + m] =
          static_cast<float>(weights[static_cast<size_t>(offset[m] + j)]);
    }
  }
  return out;
}

}  // namespace panns::frontend
