// Depthwise convolution: a tile of outputs along time is held in registers, and each source vector
// is loaded once for all taps that read it.
#include "backends/cpu/conv_depthwise.h"

#include "backends/cpu/vec.h"

namespace panns::cpu::PANNS_TIER {
namespace {

// Outputs of a tile: eight sums hide the latency of two FMA units, and with five taps and the
// source vector they fill 14 of 16 registers.
constexpr int kPixels = 8;

// Outputs of a tile of the weight's gradient, beside nine or ten sums.
constexpr int kWeightPixels = 4;

// Whether tap k of output p reads column j of a tile.
constexpr bool meets(int p, int k, int j, int step) { return p * step + k == j; }

// Outputs [first, first + kPixels). Edge: some read beyond the row, or are not wanted.
template <int K, int S, bool Edge>
PANNS_INLINE void gather_tile(const DepthwiseGather& g, int64_t first) {
  constexpr int kColumns = (kPixels - 1) * S + K;
  const int64_t at = g.at + first * S;
  const V floor = set1(g.relu ? 0.0f : -__builtin_inff());
  for (int v = 0; v < kBlock; v += kLanes) {
    V a[kPixels];
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) a[p] = load(g.start + v);
    for (int64_t r = 0; r < g.rows; ++r) {
      const float* const x = g.x[r] + at * kBlock + v;
      V w[K];
#pragma GCC unroll 5
      for (int k = 0; k < K; ++k) w[k] = load(g.w[r] + k * g.w_tap + v);
#pragma GCC unroll 32
      for (int j = 0; j < kColumns; ++j) {
        V s = zero();
        if (!Edge || (at + j >= 0 && at + j < g.length)) s = load(x + j * kBlock);
#pragma GCC unroll 5
        for (int k = 0; k < K; ++k) {
#pragma GCC unroll 8
          for (int p = 0; p < kPixels; ++p) {
            if (meets(p, k, j, S)) a[p] += s * w[k];
          }
        }
      }
    }
    float* const y = g.y + first * g.y_pixel + v;
#pragma GCC unroll 8
    for (int p = 0; p < kPixels; ++p) {
      if (!Edge || first + p < g.pixels) store(y + p * g.y_pixel, vmax(floor, a[p]));
    }
  }
}

template <int K, int S>
void gather_of(const DepthwiseGather& g) {
  constexpr int kColumns = (kPixels - 1) * S + K;
  for (int64_t p = 0; p < g.pixels; p += kPixels) {
    const int64_t at = g.at + p * S;
    if (at >= 0 && at + kColumns <= g.length && p + kPixels <= g.pixels) {
      gather_tile<K, S, false>(g, p);
    } else {
      gather_tile<K, S, true>(g, p);
    }
  }
}

template <int S>
void gather_step(const DepthwiseGather& g) {
  switch (g.taps) {
    case 1:
      return gather_of<1, S>(g);
    case 2:
      return gather_of<2, S>(g);
    case 3:
      return gather_of<3, S>(g);
    case 4:
      return gather_of<4, S>(g);
    default:
      return gather_of<5, S>(g);
  }
}

void gather(const DepthwiseGather& g) { g.step == 1 ? gather_step<1>(g) : gather_step<2>(g); }

// ---- gradient of the weight

// Source rows summed together: they share the loads of dy.
template <int K>
constexpr int kRowsAtOnce = K <= 3 ? 3 : 2;

template <int R, int K, int S, bool Edge>
PANNS_INLINE void weight_tile(const DepthwiseWeight& g, int64_t row, int64_t first, int v,
                              V (*a)[K]) {
  constexpr int kColumns = (kWeightPixels - 1) * S + K;
  const int64_t at = g.at + first * S;
  V d[kWeightPixels];
#pragma GCC unroll 4
  for (int p = 0; p < kWeightPixels; ++p) {
    d[p] = zero();
    if (!Edge || first + p < g.pixels) d[p] = load(g.dy + (first + p) * kBlock + v);
  }
#pragma GCC unroll 16
  for (int j = 0; j < kColumns; ++j) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      V s = zero();
      if (!Edge || (at + j >= 0 && at + j < g.length)) {
        s = load(g.x[row + r] + (at + j) * kBlock + v);
      }
#pragma GCC unroll 5
      for (int k = 0; k < K; ++k) {
#pragma GCC unroll 4
        for (int p = 0; p < kWeightPixels; ++p) {
          if (meets(p, k, j, S)) a[r][k] += s * d[p];
        }
      }
    }
  }
}

template <int R, int K, int S>
void weight_of(const DepthwiseWeight& g, int64_t row) {
  constexpr int kColumns = (kWeightPixels - 1) * S + K;
  for (int v = 0; v < kBlock; v += kLanes) {
    V a[R][K];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 5
      for (int k = 0; k < K; ++k) a[r][k] = load(g.dw[row + r] + k * kBlock + v);
    }
    for (int64_t p = 0; p < g.pixels; p += kWeightPixels) {
      const int64_t at = g.at + p * S;
      if (at >= 0 && at + kColumns <= g.length && p + kWeightPixels <= g.pixels) {
        weight_tile<R, K, S, false>(g, row, p, v, a);
      } else {
        weight_tile<R, K, S, true>(g, row, p, v, a);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 5
      for (int k = 0; k < K; ++k) store(g.dw[row + r] + k * kBlock + v, a[r][k]);
    }
  }
}

template <int K, int S>
void weight_rows(const DepthwiseWeight& g) {
  constexpr int kAtOnce = kRowsAtOnce<K>;
  int64_t row = 0;
  for (; row + kAtOnce <= g.rows; row += kAtOnce) weight_of<kAtOnce, K, S>(g, row);
  for (; row < g.rows; ++row) weight_of<1, K, S>(g, row);
}

template <int S>
void weight_step(const DepthwiseWeight& g) {
  switch (g.taps) {
    case 1:
      return weight_rows<1, S>(g);
    case 2:
      return weight_rows<2, S>(g);
    case 3:
      return weight_rows<3, S>(g);
    case 4:
      return weight_rows<4, S>(g);
    default:
      return weight_rows<5, S>(g);
  }
}

void weight(const DepthwiseWeight& g) { g.step == 1 ? weight_step<1>(g) : weight_step<2>(g); }

}  // namespace

extern const DepthwiseKernels depthwise_kernels = {gather, weight};

}  // namespace panns::cpu::PANNS_TIER
