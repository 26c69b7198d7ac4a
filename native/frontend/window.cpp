#include "frontend/window.h"

#include <algorithm>
#include <cmath>
#include <complex>

namespace panns::frontend {
namespace {

constexpr double kTau = 6.283185307179586476925286766559;

using Complex = std::complex<double>;

// Below this exponent numpy multiplies, from it on it calls the C library's cpow.
constexpr int64_t kFirstCpow = 100;

Complex times(Complex a, Complex b) {  // without operator*'s repair of NaN
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

Complex power_by_squaring(Complex base, int64_t exponent) {
  Complex result(1, 0);
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result = times(result, base);
    base = times(base, base);
  }
  return result;
}

// log|z| for z next to the unit circle, where |z|^2 - 1 must not be rounded before the logarithm:
// fma gives the exact error of each square.
double log_modulus(Complex z) {
  const double x = z.real(), y = z.imag();
  const double xx = x * x, yy = y * y;
  const double errors = std::fma(x, x, -xx) + std::fma(y, y, -yy);
  const double rest = xx > yy ? (xx - 1) + yy : (yy - 1) + xx;
  return 0.5 * std::log1p(rest + errors);
}

}  // namespace

std::vector<double> hann(int64_t n, bool periodic) {
  const auto period = static_cast<double>(periodic ? n : n - 1);
  std::vector<double> window(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    window[static_cast<size_t>(i)] = 0.5 - 0.5 * std::cos(kTau * static_cast<double>(i) / period);
  }
  return window;
}

std::vector<double> frame_window(const LogmelConfig& config) {
  config.validate();
  const int64_t length = config.window_length > 0 ? config.window_length : config.window_size;
  std::vector<double> frame(static_cast<size_t>(config.window_size), 0.0);
  const std::vector<double> window = hann(length, config.periodic);
  std::copy(window.begin(), window.end(), frame.begin() + (config.window_size - length) / 2);
  return frame;
}

StftKernels stft_kernels(const LogmelConfig& config) {
  const std::vector<double> window = frame_window(config);
  const int64_t n = config.window_size;
  const double angle = -kTau / static_cast<double>(n);
  const Complex root(std::cos(angle), std::sin(angle));
  const double log_root = log_modulus(root), arg_root = std::arg(root);

  StftKernels kernels;
  const int64_t bins = n / 2 + 1;
  kernels.real.resize(static_cast<size_t>(bins * n));
  kernels.imag.resize(static_cast<size_t>(bins * n));
  for (int64_t k = 0; k < bins; ++k) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t e = k * i;
      const double exponent = static_cast<double>(e);
      const Complex w = e < kFirstCpow
                            ? power_by_squaring(root, e)
                            : std::polar(std::exp(exponent * log_root), exponent * arg_root);
      const auto at = static_cast<size_t>(k * n + i);
      kernels.real[at] = static_cast<float>(w.real() * window[static_cast<size_t>(i)]);
      kernels.imag[at] = static_cast<float>(w.imag() * window[static_cast<size_t>(i)]);
    }
  }
  return kernels;
}

}  // namespace panns::frontend
