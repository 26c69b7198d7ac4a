// Convolutions of floats in channels-last order, by a matrix product over unrolled windows: quick
// enough for whole networks on one core, and in nothing like the kernels of the CPU backend.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace cudnn_emulator {

using Values = std::vector<float>;
// Height and width.
using Pair = std::array<int64_t, 2>;

// x (n, h, w, c) with w (k, r, s, c / groups) to y (n, oh, ow, k).
struct Geometry {
  int64_t n, c, k, groups;
  Pair in, out, kernel, stride, dilation, pad;

  int64_t pixels() const { return n * out[0] * out[1]; }
  int64_t window() const { return kernel[0] * kernel[1]; }
};

Values forward(const Geometry& g, const Values& x, const Values& w);
Values backward_data(const Geometry& g, const Values& w, const Values& dy);
Values backward_filter(const Geometry& g, const Values& x, const Values& dy);

}  // namespace cudnn_emulator
