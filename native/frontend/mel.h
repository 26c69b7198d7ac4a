// Two mel scales and the filter banks on them: Slaney's (Auditory Toolbox, 1998), librosa's default
// and so the one inside the published PANNs checkpoints; and Kaldi's, of EfficientAT's MobileNetV3.
#pragma once

#include <cstdint>
#include <vector>

#include "frontend/logmel_config.h"

namespace panns::frontend {

// Slaney: linear up to 1 kHz (3 mel per 200 Hz), logarithmic above (27 mel per factor of 6.4).
double hz_to_mel(double hz);
double mel_to_hz(double mel);

// Kaldi (HTK): 1127 * ln(1 + hz / 700).
double hz_to_kaldi_mel(double hz);

// Triangles over the bins of the DFT, stored without their zeros: filter m covers the bins
// first[m] .. first[m] + count[m] - 1 with weights[offset[m] ..]. A filter narrower than the
// spacing of the bins may hold none, and then its output is always silence.
struct MelFilterBank {
  int64_t bins = 0, mels = 0;
  std::vector<int64_t> first, count, offset;  // one per filter
  std::vector<double> weights;

  // (bins, mels) row-major. Everything is float64 until this one rounding, as in the published
  // tensor logmel_extractor.melW, which it equals bit for bit.
  std::vector<float> dense() const;
};

// Slaney: triangles over Hz, each of area one. Kaldi: triangles over mel, each of height one, and
// none reaches the last bin, half the sample rate.
MelFilterBank mel_filter_bank(const LogmelConfig& config);

}  // namespace panns::frontend
