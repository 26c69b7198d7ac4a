// The window of the short-time Fourier transform, and the transform as the two convolution kernels
// that PANNs checkpoints store.
#pragma once

#include <cstdint>
#include <vector>

#include "frontend/logmel_config.h"

namespace panns::frontend {

// Hann window: 0.5 - 0.5 * cos(2 * pi * i / period), the period being n, or n - 1 of a symmetric
// one.
std::vector<double> hann(int64_t n, bool periodic = true);

// What a frame of window_size samples is multiplied by: zeros around a window that is shorter.
std::vector<double> frame_window(const LogmelConfig& config);

// The windowed DFT as convolution weights, each (n / 2 + 1, 1, n) row-major, n = window_size: the
// tensors spectrogram_extractor.stft.conv_real.weight and conv_imag.weight. For export only:
// nothing here computes with them. They do not hold the pre-emphasis, whose result is what the
// edges reflect: no convolution of the padded samples is equal to it there.
struct StftKernels {
  std::vector<float> real, imag;
};

// The stored tensors came from numpy as powers of the first root of unity, whose rounding errors
// grow with the exponent (to 1e-10); this repeats them, and is equal bit for bit for n = 1024.
StftKernels stft_kernels(const LogmelConfig& config);

}  // namespace panns::frontend
