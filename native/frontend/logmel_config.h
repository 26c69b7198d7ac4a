// The settings of the log-mel front-end, and the sizes that follow from them.
#pragma once

#include <cstdint>

#include "ops/attrs.h"

namespace panns::frontend {

// A waveform (N, S) becomes a log-mel spectrogram (N, T, F). PANNs' front-end, the default:
//   frames of window_size samples, hop_size apart, centred (reflect padding, window_size / 2)
//   periodic Hann window, DFT of the same size, power
//   mel_bins triangles on Slaney's mel scale, each of area one
//   10 * log10(max(power, amin)), in dB
// EfficientAT's MobileNetV3 departs from it:
//   pre-emphasis first, y[i] = x[i + 1] - preemphasis * x[i], one sample shorter than x
//   symmetric Hann window of window_length samples in the middle of the frame
//   triangles on Kaldi's mel scale, each of height one
//   (ln(power + kNaturalOffset) + shift) * scale
struct LogmelConfig {
  int64_t sample_rate = 32000;  // Hz
  int64_t window_size = 1024;   // samples; also the size of the DFT
  int64_t hop_size = 320;       // samples
  int64_t mel_bins = 64;
  double fmin = 50, fmax = 14000;  // Hz
  double amin = 1e-10;             // the power that counts as silence: -100 dB
  int64_t window_length = 0;       // samples; 0: window_size
  bool periodic = true;
  double preemphasis = 0;
  ops::MelScale mel_scale = ops::MelScale::slaney;
  ops::LogKind log = ops::LogKind::decibel;
  double shift = 0, scale = 1;

  static constexpr double kNaturalOffset = 1e-5;

  int64_t bins() const { return window_size / 2 + 1; }
  int64_t frames(int64_t samples) const { return (samples - lost()) / hop_size + 1; }

  // Reflection leaves the edge sample out, so a clip needs one sample more than half a window.
  int64_t min_samples() const { return window_size / 2 + 1 + lost(); }

  // Both throw, naming the value: ERR_PANNS_OPTION for a setting out of range, ERR_PANNS_SHAPE for
  // clips shorter than min_samples() (callers pad first).
  void validate() const;
  void check_samples(int64_t samples) const;

  // Samples that pre-emphasis takes from a clip.
  int64_t lost() const { return preemphasis != 0 ? 1 : 0; }
};

// The op's settings, validated.
LogmelConfig config_of(const ops::LogmelAttrs& attrs);

}  // namespace panns::frontend
