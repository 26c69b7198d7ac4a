// A complex transform of any length, forward, in natural order: Stockham's autosort form
// (decimation in frequency). A pass of radix R takes, for each p and q, the R points
// x[q + s (p + m k)] to their DFT, multiplies by exp(-2 pi i p k / (m R)) and writes it to
// y[q + s (R p + k)], where s is the product of the radices before and m what is left after it.
#pragma once

#include "backends/cuda/device/runtime.cuh"

namespace panns::cuda {

// Where point i lies: one place of every 17 stays free, so that the first pass, whose threads write
// R points apart, does not meet in a few banks.
PANNS_HOST_DEVICE constexpr int fft_place(int i) { return i + i / 16; }

PANNS_DEVICE float2 plus(float2 a, float2 b) { return {a.x + b.x, a.y + b.y}; }
PANNS_DEVICE float2 minus(float2 a, float2 b) { return {a.x - b.x, a.y - b.y}; }
PANNS_DEVICE float2 times(float2 a, float2 b) {
  return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x};
}
// a / i
PANNS_DEVICE float2 turned(float2 a) { return {a.y, -a.x}; }

PANNS_DEVICE void dft2(float2& a, float2& b) {
  const float2 sum = plus(a, b);
  b = minus(a, b);
  a = sum;
}
PANNS_DEVICE void dft4(float2& a, float2& b, float2& c, float2& d) {
  dft2(a, c);
  dft2(b, d);
  d = turned(d);
  dft2(a, b);
  dft2(c, d);
  const float2 second = c;
  c = b;
  b = second;
}

template <int R>
PANNS_DEVICE void dft(float2* v) {
  static_assert(R == 2 || R == 4 || R == 8);
  if constexpr (R == 2) {
    dft2(v[0], v[1]);
  } else if constexpr (R == 4) {
    dft4(v[0], v[1], v[2], v[3]);
  } else {
    constexpr float kHalfRoot = 0.70710678118654752f;
    dft4(v[0], v[2], v[4], v[6]);
    dft4(v[1], v[3], v[5], v[7]);
    // v[2k] holds the even half's output k, v[2k + 1] the odd half's, which turns by k / 8.
    v[3] = {kHalfRoot * (v[3].x + v[3].y), kHalfRoot * (v[3].y - v[3].x)};
    v[5] = turned(v[5]);
    v[7] = {kHalfRoot * (v[7].y - v[7].x), -kHalfRoot * (v[7].x + v[7].y)};
    float2 out[8];
    PANNS_UNROLL
    for (int k = 0; k < 4; ++k) {
      out[k] = plus(v[2 * k], v[2 * k + 1]);
      out[k + 4] = minus(v[2 * k], v[2 * k + 1]);
    }
    PANNS_UNROLL
    for (int k = 0; k < 8; ++k) v[k] = out[k];
  }
}

// One pass by `lanes` threads, of which this is number `lane`. load(i) is point i of the input;
// twiddles are exp(-2 pi i j / size). The stride is a power of two: odd radices come last.
template <int R, typename Load>
PANNS_DEVICE void fft_pass(int size, int stride, int lane, int lanes, const float2* twiddles,
                           const Load& load, float2* out) {
  const int part = size / R;
  for (int b = lane; b < part; b += lanes) {
    float2 v[R];
    PANNS_UNROLL
    for (int k = 0; k < R; ++k) v[k] = load(b + part * k);
    dft<R>(v);
    const int q = b & (stride - 1), sp = b - q;
    out[fft_place(q + R * sp)] = v[0];
    PANNS_UNROLL
    for (int k = 1; k < R; ++k) {
      out[fft_place(q + R * sp + stride * k)] = times(v[k], twiddles[sp * k]);
    }
  }
}

// The same for any odd radix, by its definition: a thread an output.
template <typename Load>
PANNS_DEVICE void fft_pass_odd(int radix, int size, int stride, int lane, int lanes,
                               const float2* twiddles, const Load& load, float2* out) {
  const int part = size / radix;
  for (int i = lane; i < size; i += lanes) {
    const int b = i % part, k = i / part, q = b % stride, sp = b - q;
    float2 sum = load(b);
    int turn = 0;
    for (int j = 1; j < radix; ++j) {
      turn += k;
      turn -= turn >= radix ? radix : 0;
      sum = plus(sum, times(load(b + part * j), twiddles[part * turn]));
    }
    out[fft_place(q + radix * sp + stride * k)] = times(sum, twiddles[sp * k]);
  }
}

template <typename Load>
PANNS_DEVICE void fft_pass_any(int radix, int size, int stride, int lane, int lanes,
                               const float2* twiddles, const Load& load, float2* out) {
  switch (radix) {
    case 8:
      return fft_pass<8>(size, stride, lane, lanes, twiddles, load, out);
    case 4:
      return fft_pass<4>(size, stride, lane, lanes, twiddles, load, out);
    case 2:
      return fft_pass<2>(size, stride, lane, lanes, twiddles, load, out);
    default:
      return fft_pass_odd(radix, size, stride, lane, lanes, twiddles, load, out);
  }
}

}  // namespace panns::cuda
