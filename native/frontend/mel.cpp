#include "frontend/mel.h"

#include <algorithm>
#include <cmath>

namespace panns::frontend {
namespace {

constexpr double kHzPerMel = 200.0 / 3;
constexpr double kKneeHz = 1000;
constexpr double kKneeMel = kKneeHz / kHzPerMel;
const double kLogStep = std::log(6.4) / 27;

// Triangles along some axis, on which the bins of the DFT lie at rising points.
struct Triangles {
  std::vector<double> corners;  // mels + 2: filter m has its foot, top and foot at m, m + 1, m + 2
  std::vector<double> bins;
  std::vector<double> heights;  // mels
};

// n points from low to high, evenly spaced.
std::vector<double> spaced(double low, double high, int64_t n) {
  const double step = (high - low) / static_cast<double>(n - 1);
  std::vector<double> points(static_cast<size_t>(n));
  for (size_t i = 0; i < points.size(); ++i) points[i] = low + static_cast<double>(i) * step;
  points.back() = high;
  return points;
}

// The axis is Hz.
Triangles slaney(const LogmelConfig& config) {
  Triangles t;
  for (double mel : spaced(hz_to_mel(config.fmin), hz_to_mel(config.fmax), config.mel_bins + 2)) {
    t.corners.push_back(mel_to_hz(mel));
  }
  // Written as numpy.fft.rfftfreq computes it: sample_rate / window_size rounds differently.
  const double spacing = 1.0 / (static_cast<double>(config.window_size) *
                                (1.0 / static_cast<double>(config.sample_rate)));
  for (int64_t k = 0; k < config.bins(); ++k) t.bins.push_back(static_cast<double>(k) * spacing);
  for (size_t m = 0; m + 2 < t.corners.size(); ++m) {
    t.heights.push_back(2.0 / (t.corners[m + 2] - t.corners[m]));
  }
  return t;
}

// The axis is mel.
Triangles kaldi(const LogmelConfig& config) {
  Triangles t;
  t.corners =
      spaced(hz_to_kaldi_mel(config.fmin), hz_to_kaldi_mel(config.fmax), config.mel_bins + 2);
  const double spacing =
      static_cast<double>(config.sample_rate) / static_cast<double>(config.window_size);
  for (int64_t k = 0; k + 1 < config.bins(); ++k) {
    t.bins.push_back(hz_to_kaldi_mel(static_cast<double>(k) * spacing));
  }
  t.heights.assign(static_cast<size_t>(config.mel_bins), 1.0);
  return t;
}

}  // namespace

double hz_to_mel(double hz) {
  return hz < kKneeHz ? hz / kHzPerMel : kKneeMel + std::log(hz / kKneeHz) / kLogStep;
}

double mel_to_hz(double mel) {
  return mel < kKneeMel ? mel * kHzPerMel : kKneeHz * std::exp(kLogStep * (mel - kKneeMel));
}

double hz_to_kaldi_mel(double hz) { return 1127 * std::log1p(hz / 700); }

MelFilterBank mel_filter_bank(const LogmelConfig& config) {
  config.validate();
  const Triangles t = config.mel_scale == ops::MelScale::kaldi ? kaldi(config) : slaney(config);
  MelFilterBank bank;
  bank.bins = config.bins();
  bank.mels = config.mel_bins;
  for (size_t m = 0; m < t.heights.size(); ++m) {
    const double foot = t.corners[m], top = t.corners[m + 1], end = t.corners[m + 2];
    const auto first = std::upper_bound(t.bins.begin(), t.bins.end(), foot);
    const auto last = std::lower_bound(first, t.bins.end(), end);
    bank.first.push_back(first < last ? first - t.bins.begin() : 0);
    bank.count.push_back(last - first);
    bank.offset.push_back(static_cast<int64_t>(bank.weights.size()));
    for (auto at = first; at < last; ++at) {
      bank.weights.push_back(std::min((*at - foot) / (top - foot), (end - *at) / (end - top)) *
                             t.heights[m]);
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
