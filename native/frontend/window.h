// The window of the short-time Fourier transform, and the transform as the two convolution kernels
// that PANNs checkpoints store.
#pragma once

#include <cstdint>
#include <vector>

namespace panns::frontend {

// Periodic Hann window: 0.5 - 0.5 * cos(2 * pi * i / n).
std::vector<double> hann(int64_t n);

// The windowed DFT as convolution weights, each (n / 2 + 1, 1, n) row-major: the tensors
// spectrogram_extractor.stft.conv_real.weight and conv_imag.weight. For export only: nothing here
// computes with them.
struct StftKernels {
  std::vector<float> real, imag;
};

// The stored tensors came from numpy as powers of the first root of unity, whose rounding errors
// grow with the exponent (to 1e-10); this repeats them, and is equal bit for bit for n = 1024.
StftKernels stft_kernels(int64_t n);

}  // namespace panns::frontend
