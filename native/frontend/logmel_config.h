// The settings of the log-mel front-end, and the sizes that follow from them.
#pragma once

#include <cstdint>

namespace panns::frontend {

// A waveform (N, S) becomes a log-mel spectrogram (N, T, F):
//   frames of window_size samples, hop_size apart, centred (reflect padding, window_size / 2)
//   periodic Hann window, DFT of the same size, power
//   mel_bins triangles on Slaney's mel scale, each of area one
//   10 * log10(max(power, amin)), in dB
struct LogmelConfig {
  int64_t sample_rate = 32000;  // Hz
  int64_t window_size = 1024;   // samples; also the size of the DFT
  int64_t hop_size = 320;       // samples
  int64_t mel_bins = 64;
  double fmin = 50, fmax = 14000;  // Hz
  double amin = 1e-10;             // the power that counts as silence: -100 dB

  int64_t bins() const { return window_size / 2 + 1; }
  int64_t frames(int64_t samples) const { return samples / hop_size + 1; }

  // Reflection leaves the edge sample out, so a clip needs one sample more than half a window.
  int64_t min_samples() const { return window_size / 2 + 1; }

  // Both throw, naming the value: ERR_PANNS_OPTION for a setting out of range, ERR_PANNS_SHAPE for
  // clips shorter than min_samples() (callers pad first).
  void validate() const;
  void check_samples(int64_t samples) const;
};

}  // namespace panns::frontend
