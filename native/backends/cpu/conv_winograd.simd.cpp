// Winograd's transforms (Lavin and Gray, 2016, "Fast Algorithms for Convolutional Neural
// Networks"). Four points: 0, 1, -1, infinity. Six: 0, a, -a, b, -b, infinity; a = 11/16, b = 11/8
// in place of the usual 1 and 2, since in fp32 F(4,3) x F(4,3) then errs by 2e-6 of the largest
// result instead of 9e-6 (128 channels), as little as F(2,3) x F(4,3).
//
// P points give P - K + 1 outputs of K taps; the input's transform depends on P alone. A single
// point along frequency stands for a kernel of one tap there: nothing to transform.
#include "backends/cpu/conv_winograd_kernels.h"
#include "backends/cpu/vec.h"

namespace panns::cpu::PANNS_TIER {
namespace {

constexpr int kTimePoints = 6;

// Taps along frequency.
constexpr int frequency_taps(int points, int taps) { return points == 1 ? 1 : taps; }

constexpr float kA = 0.6875f, kB = 1.375f;
constexpr float kA2 = kA * kA, kA3 = kA2 * kA, kA4 = kA2 * kA2;
constexpr float kB2 = kB * kB, kB3 = kB2 * kB, kB4 = kB2 * kB2;
// What a point's polynomial is divided by: the product of its distances to the other points.
constexpr float kScale0 = 1 / (kA2 * kB2);
constexpr float kScaleA = 1 / (2 * kA2 * (kA2 - kB2)), kScaleB = 1 / (2 * kB2 * (kB2 - kA2));

PANNS_INLINE V times(float s, V v) { return set1(s) * v; }

// ---- one dimension each

template <int P>
PANNS_INLINE void input(const V* x, V* d) {
  if constexpr (P == 1) {
    d[0] = x[0];
  } else if constexpr (P == 4) {
    d[0] = x[0] - x[2];
    d[1] = x[1] + x[2];
    d[2] = x[2] - x[1];
    d[3] = x[1] - x[3];
  } else {
    const V even_a = x[4] - times(kB2, x[2]), odd_a = x[3] - times(kB2, x[1]);
    const V even_b = x[4] - times(kA2, x[2]), odd_b = x[3] - times(kA2, x[1]);
    d[0] = times(kA2 * kB2, x[0]) + (x[4] - times(kA2 + kB2, x[2]));
    d[1] = even_a + times(kA, odd_a);
    d[2] = even_a - times(kA, odd_a);
    d[3] = even_b + times(kB, odd_b);
    d[4] = even_b - times(kB, odd_b);
    d[5] = times(kA2 * kB2, x[1]) + (x[5] - times(kA2 + kB2, x[3]));
  }
}

// Along time, to six points.
template <int K>
PANNS_INLINE void weight_time(const V* w, V* u) {
  V even_a = w[0] + times(kA2, w[2]), odd_a = times(kA, w[1]);
  V even_b = w[0] + times(kB2, w[2]), odd_b = times(kB, w[1]);
  if constexpr (K == 5) {
    even_a += times(kA4, w[4]);
    odd_a += times(kA3, w[3]);
    even_b += times(kB4, w[4]);
    odd_b += times(kB3, w[3]);
  }
  u[0] = times(kScale0, w[0]);
  u[1] = times(kScaleA, even_a + odd_a);
  u[2] = times(kScaleA, even_a - odd_a);
  u[3] = times(kScaleB, even_b + odd_b);
  u[4] = times(kScaleB, even_b - odd_b);
  u[5] = w[K - 1];
}
// Along frequency the rows of points are made one at a time, from these factors.
template <int P, int K>
struct Factors {
  float of[P][K];
  constexpr Factors() : of() {
    if constexpr (P == 1) {
      of[0][0] = 1;
    } else if constexpr (P == 4) {
      constexpr float points[4][3] = {
          {1, 0, 0}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0, 0, 1}};
      for (int p = 0; p < 4; ++p) {
        for (int k = 0; k < 3; ++k) of[p][k] = points[p][k];
      }
    } else {
      constexpr float points[4] = {kA, -kA, kB, -kB};
      of[0][0] = kScale0;
      for (int p = 0; p < 4; ++p) {
        float power = p < 2 ? kScaleA : kScaleB;
        for (int k = 0; k < K; ++k, power *= points[p]) of[p + 1][k] = power;
      }
      of[5][K - 1] = 1;
    }
  }
};
template <int P, int K>
constexpr Factors<P, K> kFactors;

template <int P, int K>
PANNS_INLINE void output(const V* m, V* y) {
  if constexpr (P == 1) {
    y[0] = m[0];
  } else if constexpr (P == 4) {
    y[0] = (m[0] + m[1]) + m[2];
    y[1] = (m[1] - m[2]) - m[3];
  } else {
    const V s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    y[0] = (m[0] + s1) + s2;
    if constexpr (K == 5) {
      y[1] = times(kA, d1) + (times(kB, d2) + m[5]);
    } else {
      y[1] = times(kA, d1) + times(kB, d2);
      y[2] = times(kA2, s1) + times(kB2, s2);
      y[3] = times(kA3, d1) + (times(kB3, d2) + m[5]);
    }
  }
}

// The transposes of output and of the weight's, for the gradient of the weight.
template <int P, int K>
PANNS_INLINE void gradient(const V* y, V* d) {
  if constexpr (P == 1) {
    d[0] = y[0];
  } else if constexpr (P == 4) {
    d[0] = y[0];
    d[1] = y[0] + y[1];
    d[2] = y[0] - y[1];
    d[3] = -y[1];
  } else {
    V even_a = y[0], odd_a = times(kA, y[1]), even_b = y[0], odd_b = times(kB, y[1]);
    if constexpr (K == 3) {
      even_a += times(kA2, y[2]);
      odd_a += times(kA3, y[3]);
      even_b += times(kB2, y[2]);
      odd_b += times(kB3, y[3]);
    }
    d[0] = y[0];
    d[1] = even_a + odd_a;
    d[2] = even_a - odd_a;
    d[3] = even_b + odd_b;
    d[4] = even_b - odd_b;
    d[5] = y[P - K];
  }
}
template <int K>
PANNS_INLINE void weight_back_time(const V* u, V* w) {
  const V sum_a = times(kScaleA, u[1] + u[2]), dif_a = times(kScaleA, u[1] - u[2]);
  const V sum_b = times(kScaleB, u[3] + u[4]), dif_b = times(kScaleB, u[3] - u[4]);
  w[0] = times(kScale0, u[0]) + (sum_a + sum_b);
  w[1] = times(kA, dif_a) + times(kB, dif_b);
  w[2] = times(kA2, sum_a) + times(kB2, sum_b);
  if constexpr (K == 5) {
    w[3] = times(kA3, dif_a) + times(kB3, dif_b);
    w[4] = times(kA4, sum_a) + times(kB4, sum_b);
  }
  w[K - 1] += u[5];
}

// ---- tiles

// What is read of a map for one tile, how far before its first output, and how each dimension goes
// to points.
template <int P, int K>
struct InputTile {
  static constexpr int kRows = P, kColumns = kTimePoints, kBefore = K / 2;
  static constexpr int kStep = kTimePoints - K + 1;
  PANNS_INLINE void time(const V* x, V* d) { input<kTimePoints>(x, d); }
  PANNS_INLINE void frequency(const V* x, V* d) { input<P>(x, d); }
};
template <int P, int K>
struct GradientTile {
  static constexpr int kRows = P - frequency_taps(P, K) + 1, kColumns = kTimePoints - K + 1;
  static constexpr int kBefore = 0;
  static constexpr int kStep = kColumns;
  PANNS_INLINE void time(const V* x, V* d) { gradient<kTimePoints, K>(x, d); }
  PANNS_INLINE void frequency(const V* x, V* d) { gradient<P, K>(x, d); }
};

// The first output of a tile of `step` outputs.
PANNS_INLINE int64_t first_output(int64_t tile, int64_t step, int64_t dilation) {
  if (dilation == 1) return tile * step;
  return tile / dilation * step * dilation + tile % dilation;
}

// x[row][column][16] to v[point][16].
template <int P, typename Tile>
PANNS_INLINE void transform_tile(const float* x, int64_t row, int64_t column, float* v,
                                 int64_t point) {
  for (int k = 0; k < kBlock; k += kLanes) {
    V q[kTimePoints][Tile::kRows];
#pragma GCC unroll 8
    for (int f = 0; f < Tile::kRows; ++f) {
      V p[Tile::kColumns], d[kTimePoints];
#pragma GCC unroll 8
      for (int t = 0; t < Tile::kColumns; ++t) p[t] = load(x + f * row + t * column + k);
      Tile::time(p, d);
#pragma GCC unroll 8
      for (int t = 0; t < kTimePoints; ++t) q[t][f] = d[t];
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTimePoints; ++t) {
      V d[P];
      Tile::frequency(q[t], d);
#pragma GCC unroll 8
      for (int f = 0; f < P; ++f) store(v + (f * kTimePoints + t) * point + k, d[f]);
    }
  }
}

template <int P, typename Tile>
void transform(const WinogradInput& a) {
  alignas(64) float border[Tile::kRows * Tile::kColumns * kBlock];
  const bool rows_inside = a.first_row == 0 && a.last_row == Tile::kRows;
  for (int64_t i = 0; i < a.count; ++i) {
    const int64_t d = a.dilation;
    const int64_t t0 = first_output(a.tile + i, Tile::kStep, d) - Tile::kBefore * d;
    float* const v = a.v + i * kBlock;
    // The next tile's stores go to as many places as there are points, more than the machine
    // foresees.
#pragma GCC unroll 8
    for (int p = 0; p < P * kTimePoints; ++p) {
      __builtin_prefetch(v + kBlock + p * a.v_point, 1);
    }
    if (rows_inside && t0 >= 0 && t0 + (Tile::kColumns - 1) * d < a.t) {
      transform_tile<P, Tile>(a.x + t0 * kBlock, a.x_row, d * kBlock, v, a.v_point);
      continue;
    }
    for (int64_t f = 0; f < Tile::kRows; ++f) {
      const bool row_inside = f >= a.first_row && f < a.last_row;
      for (int64_t t = 0; t < Tile::kColumns; ++t) {
        float* const to = border + (f * Tile::kColumns + t) * kBlock;
        const int64_t at = t0 + t * d;
        const bool inside = row_inside && at >= 0 && at < a.t;
        for (int k = 0; k < kBlock; k += kLanes) {
          store(to + k, inside ? load(a.x + f * a.x_row + at * kBlock + k) : zero());
        }
      }
    }
    transform_tile<P, Tile>(border, Tile::kColumns * kBlock, kBlock, v, a.v_point);
  }
}

template <int P, int K>
void weight_back(const float* u, float* dw) {
  constexpr int kCell = kBlock * kBlock, KF = frequency_taps(P, K);
  for (int k = 0; k < kCell; k += kLanes) {
    V w[KF][K];
#pragma GCC unroll 8
    for (int f = 0; f < KF; ++f) {
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) w[f][t] = zero();
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      V s[kTimePoints], q[K];
#pragma GCC unroll 8
      for (int t = 0; t < kTimePoints; ++t) s[t] = load(u + (p * kTimePoints + t) * kCell + k);
      weight_back_time<K>(s, q);
#pragma GCC unroll 8
      for (int f = 0; f < KF; ++f) {
#pragma GCC unroll 8
        for (int t = 0; t < K; ++t) w[f][t] += times(kFactors<P, K>.of[p][f], q[t]);
      }
    }
#pragma GCC unroll 8
    for (int f = 0; f < KF; ++f) {
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) store(dw + (f * K + t) * kCell + k, w[f][t]);
    }
  }
}

// Floats, eight cache lines: about the latency of the second-level cache at this rate of stores.
constexpr int kWeightAhead = 128;

template <int P, int K>
void weight(const WinogradWeight& a) {
  constexpr int kCell = kBlock * kBlock, KF = frequency_taps(P, K);
  const float* const first = a.flip ? a.w + (KF * K - 1) * kCell : a.w;
  const int64_t step = a.flip ? -kCell : kCell;
  for (int64_t f = a.first_row; f < a.last_row; ++f) {
    V factor[KF];
#pragma GCC unroll 8
    for (int r = 0; r < KF; ++r) factor[r] = set1(kFactors<P, K>.of[f][r]);
    float* const to = a.u + (f - a.first_row) * kTimePoints * a.u_point;
    for (int k = 0; k < kCell; k += kLanes) {
      V w[K], u[kTimePoints];
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) {
        w[t] = zero();
#pragma GCC unroll 8
        for (int r = 0; r < KF; ++r) {
          // The next block, most often: runs of 1 KB end before the machine foresees them.
          __builtin_prefetch(a.w + (KF * K + r * K + t) * kCell + k);
          w[t] += factor[r] * load(first + (r * K + t) * step + k);
        }
      }
      weight_time<K>(w, u);
#pragma GCC unroll 8
      for (int t = 0; t < kTimePoints; ++t) {
        __builtin_prefetch(to + t * a.u_point + k + kWeightAhead, 1);
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTimePoints; ++t) store(to + t * a.u_point + k, u[t]);
    }
  }
}

// m[point][16] to the tile's outputs, for the lanes that m begins with.
template <int P, int K>
PANNS_INLINE void output_tile(const float* m, int64_t point, V (*y)[kTimePoints - K + 1]) {
  constexpr int kRows = P - frequency_taps(P, K) + 1;
  V q[kRows][kTimePoints];
#pragma GCC unroll 8
  for (int t = 0; t < kTimePoints; ++t) {
    V p[P], s[kRows];
#pragma GCC unroll 8
    for (int f = 0; f < P; ++f) p[f] = load(m + (f * kTimePoints + t) * point);
    output<P, K>(p, s);
#pragma GCC unroll 4
    for (int f = 0; f < kRows; ++f) q[f][t] = s[f];
  }
#pragma GCC unroll 4
  for (int f = 0; f < kRows; ++f) output<kTimePoints, K>(q[f], y[f]);
}

template <int P, int K>
void write_tiles(const WinogradOutput& a) {
  constexpr int kRows = P - frequency_taps(P, K) + 1, kColumns = kTimePoints - K + 1;
  const V floor = set1(a.relu ? 0.0f : -__builtin_inff());
  for (int64_t i = 0; i < a.count; ++i) {
    const int64_t d = a.dilation;
    const int64_t t0 = first_output(a.tile + i, kColumns, d);
    const bool whole = t0 + (kColumns - 1) * d < a.t;
    const int64_t left = whole ? kColumns : (a.t - t0 + d - 1) / d;
    for (int k = 0; k < kBlock; k += kLanes) {
      const V bias = load(a.bias + k);
      V y[kRows][kColumns];
      output_tile<P, K>(a.m + i * kBlock + k, a.m_point, y);
#pragma GCC unroll 4
      for (int f = 0; f < kRows; ++f) {
#pragma GCC unroll 4
        for (int t = 0; t < kColumns; ++t) y[f][t] = vmax(floor, y[f][t] + bias);
      }
      if (a.pool) {
#pragma GCC unroll 2
        for (int f = 0; f < kRows / 2; ++f) {
          if (2 * f + 1 >= a.rows) break;
#pragma GCC unroll 2
          for (int t = 0; t < kColumns / 2; ++t) {
            if (2 * t + 1 >= left) break;
            const V sum = (y[2 * f][2 * t] + y[2 * f][2 * t + 1]) +
                          (y[2 * f + 1][2 * t] + y[2 * f + 1][2 * t + 1]);
            store(a.y + f * a.y_row + (t0 / 2 + t) * kBlock + k, times(0.25f, sum));
          }
        }
      } else {
#pragma GCC unroll 4
        for (int f = 0; f < kRows; ++f) {
          if (f >= a.rows) break;
#pragma GCC unroll 4
          for (int t = 0; t < kColumns; ++t) {
            if (t >= left) break;
            store(a.y + f * a.y_row + (t0 + t * d) * kBlock + k, y[f][t]);
          }
        }
      }
    }
  }
}

template <int P, int K>
constexpr WinogradKernels kKernels = {transform<P, InputTile<P, K>>, weight<P, K>,
                                      write_tiles<P, K>, transform<P, GradientTile<P, K>>,
                                      weight_back<P, K>};

}  // namespace

extern const WinogradTable winograd_kernels = {kKernels<4, 3>, kKernels<6, 3>, kKernels<6, 5>,
                                               kKernels<1, 3>};

}  // namespace panns::cpu::PANNS_TIER
