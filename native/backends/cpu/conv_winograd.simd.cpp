// Winograd's transforms (Lavin and Gray, 2016, "Fast Algorithms for Convolutional Neural
// Networks"). Two outputs: interpolation points 0, 1, -1, infinity. Four outputs: 0, a, -a, b, -b,
// infinity; a = 11/16, b = 11/8 in place of the usual 1 and 2, since in fp32 F(4,3) x F(4,3) then
// errs by 2e-6 of the largest result instead of 9e-6 (128 channels), as little as F(2,3) x F(4,3).
#include "backends/cpu/conv_winograd_kernels.h"
#include "backends/cpu/vec.h"

namespace panns::cpu::PANNS_TIER {
namespace {

constexpr int kTimePoints = 6;

constexpr float kA = 0.6875f, kB = 1.375f;
constexpr float kA2 = kA * kA, kB2 = kB * kB;
constexpr float kScale0 = 1 / (kA2 * kB2);
constexpr float kScaleA = 1 / (2 * kA2 * (kA2 - kB2)), kScaleB = 1 / (2 * kB2 * (kB2 - kA2));

PANNS_INLINE V times(float s, V v) { return set1(s) * v; }

// ---- one dimension each; the suffix is the number of outputs of a tile

PANNS_INLINE void input4(const V* x, V* d) {
  const V even_a = x[4] - times(kB2, x[2]), odd_a = x[3] - times(kB2, x[1]);
  const V even_b = x[4] - times(kA2, x[2]), odd_b = x[3] - times(kA2, x[1]);
  d[0] = times(kA2 * kB2, x[0]) + (x[4] - times(kA2 + kB2, x[2]));
  d[1] = even_a + times(kA, odd_a);
  d[2] = even_a - times(kA, odd_a);
  d[3] = even_b + times(kB, odd_b);
  d[4] = even_b - times(kB, odd_b);
  d[5] = times(kA2 * kB2, x[1]) + (x[5] - times(kA2 + kB2, x[3]));
}
PANNS_INLINE void input2(const V* x, V* d) {
  d[0] = x[0] - x[2];
  d[1] = x[1] + x[2];
  d[2] = x[2] - x[1];
  d[3] = x[1] - x[3];
}

PANNS_INLINE void weight4(const V* w, V* u) {
  const V even_a = times(kScaleA, w[0]) + times(kScaleA * kA2, w[2]);
  const V even_b = times(kScaleB, w[0]) + times(kScaleB * kB2, w[2]);
  u[0] = times(kScale0, w[0]);
  u[1] = even_a + times(kScaleA * kA, w[1]);
  u[2] = even_a - times(kScaleA * kA, w[1]);
  u[3] = even_b + times(kScaleB * kB, w[1]);
  u[4] = even_b - times(kScaleB * kB, w[1]);
  u[5] = w[2];
}
// Along frequency the rows of points are made one at a time, from these factors.
constexpr float kFactors2[4][3] = {
    {1, 0, 0}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0, 0, 1}};
constexpr float kFactors4[6][3] = {{kScale0, 0, 0},
                                   {kScaleA, kScaleA * kA, kScaleA * kA2},
                                   {kScaleA, -kScaleA * kA, kScaleA * kA2},
                                   {kScaleB, kScaleB * kB, kScaleB * kB2},
                                   {kScaleB, -kScaleB * kB, kScaleB * kB2},
                                   {0, 0, 1}};

PANNS_INLINE void output4(const V* m, V* y) {
  const V s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
  y[0] = (m[0] + s1) + s2;
  y[1] = times(kA, d1) + times(kB, d2);
  y[2] = times(kA2, s1) + times(kB2, s2);
  y[3] = times(kA2 * kA, d1) + (times(kB2 * kB, d2) + m[5]);
}
// The transposes of output4, output2 and weight4, for the gradient of the weight.
PANNS_INLINE void gradient4(const V* y, V* d) {
  const V even_a = y[0] + times(kA2, y[2]), odd_a = times(kA, y[1]) + times(kA2 * kA, y[3]);
  const V even_b = y[0] + times(kB2, y[2]), odd_b = times(kB, y[1]) + times(kB2 * kB, y[3]);
  d[0] = y[0];
  d[1] = even_a + odd_a;
  d[2] = even_a - odd_a;
  d[3] = even_b + odd_b;
  d[4] = even_b - odd_b;
  d[5] = y[3];
}
PANNS_INLINE void gradient2(const V* y, V* d) {
  d[0] = y[0];
  d[1] = y[0] + y[1];
  d[2] = y[0] - y[1];
  d[3] = -y[1];
}
PANNS_INLINE void weight_back4(const V* u, V* w) {
  const V sum_a = times(kScaleA, u[1] + u[2]), dif_a = times(kScaleA * kA, u[1] - u[2]);
  const V sum_b = times(kScaleB, u[3] + u[4]), dif_b = times(kScaleB * kB, u[3] - u[4]);
  w[0] = times(kScale0, u[0]) + (sum_a + sum_b);
  w[1] = dif_a + dif_b;
  w[2] = times(kA2, sum_a) + (times(kB2, sum_b) + u[5]);
}

PANNS_INLINE void output2(const V* m, V* y) {
  y[0] = (m[0] + m[1]) + m[2];
  y[1] = (m[1] - m[2]) - m[3];
}

template <int MF>
PANNS_INLINE void input_f(const V* x, V* d) {
  if constexpr (MF == 4) input4(x, d);
  if constexpr (MF == 2) input2(x, d);
}
template <int MF>
PANNS_INLINE void gradient_f(const V* y, V* d) {
  if constexpr (MF == 4) gradient4(y, d);
  if constexpr (MF == 2) gradient2(y, d);
}
template <int MF>
PANNS_INLINE void output_f(const V* m, V* y) {
  if constexpr (MF == 4) output4(m, y);
  if constexpr (MF == 2) output2(m, y);
}

// ---- tiles

// What is read of a map for one tile, how far before its first output, and how each dimension goes
// to points.
template <int MF>
struct InputTile {
  static constexpr int kRows = MF + 2, kColumns = kTimePoints, kBefore = 1;
  PANNS_INLINE void time(const V* x, V* d) { input4(x, d); }
  PANNS_INLINE void frequency(const V* x, V* d) { input_f<MF>(x, d); }
};
template <int MF>
struct GradientTile {
  static constexpr int kRows = MF, kColumns = kWinogradTime, kBefore = 0;
  PANNS_INLINE void time(const V* x, V* d) { gradient4(x, d); }
  PANNS_INLINE void frequency(const V* x, V* d) { gradient_f<MF>(x, d); }
};

// x[row][pixel][16] to v[point][16].
template <int MF, typename Tile>
PANNS_INLINE void transform_tile(const float* x, int64_t row, float* v, int64_t point) {
  for (int k = 0; k < kBlock; k += kLanes) {
    V q[kTimePoints][Tile::kRows];
#pragma GCC unroll 8
    for (int f = 0; f < Tile::kRows; ++f) {
      V p[Tile::kColumns], d[kTimePoints];
#pragma GCC unroll 8
      for (int t = 0; t < Tile::kColumns; ++t) p[t] = load(x + f * row + t * kBlock + k);
      Tile::time(p, d);
#pragma GCC unroll 8
      for (int t = 0; t < kTimePoints; ++t) q[t][f] = d[t];
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTimePoints; ++t) {
      V d[MF + 2];
      Tile::frequency(q[t], d);
#pragma GCC unroll 8
      for (int f = 0; f < MF + 2; ++f) store(v + (f * kTimePoints + t) * point + k, d[f]);
    }
  }
}

template <int MF, typename Tile>
void transform(const WinogradInput& a) {
  alignas(64) float border[Tile::kRows * Tile::kColumns * kBlock];
  const bool rows_inside = a.first_row == 0 && a.last_row == Tile::kRows;
  for (int64_t i = 0; i < a.count; ++i) {
    const int64_t t0 = (a.tile + i) * kWinogradTime - Tile::kBefore;
    float* const v = a.v + i * kBlock;
    // The next tile's stores go to as many places as there are points, more than the machine
    // foresees.
#pragma GCC unroll 8
    for (int p = 0; p < (MF + 2) * kTimePoints; ++p) {
      __builtin_prefetch(v + kBlock + p * a.v_point, 1);
    }
    if (rows_inside && t0 >= 0 && t0 + Tile::kColumns <= a.t) {
      transform_tile<MF, Tile>(a.x + t0 * kBlock, a.x_row, v, a.v_point);
      continue;
    }
    for (int64_t f = 0; f < Tile::kRows; ++f) {
      const bool row_inside = f >= a.first_row && f < a.last_row;
      for (int64_t t = 0; t < Tile::kColumns; ++t) {
        float* const to = border + (f * Tile::kColumns + t) * kBlock;
        const bool inside = row_inside && t0 + t >= 0 && t0 + t < a.t;
        for (int k = 0; k < kBlock; k += kLanes) {
          store(to + k, inside ? load(a.x + f * a.x_row + (t0 + t) * kBlock + k) : zero());
        }
      }
    }
    transform_tile<MF, Tile>(border, Tile::kColumns * kBlock, v, a.v_point);
  }
}

template <int MF>
void weight_back(const float* u, float* dw) {
  constexpr int kCell = kBlock * kBlock;
  for (int k = 0; k < kCell; k += kLanes) {
    V w[3][3];
#pragma GCC unroll 4
    for (int f = 0; f < 3; ++f) {
#pragma GCC unroll 4
      for (int t = 0; t < 3; ++t) w[f][t] = zero();
    }
#pragma GCC unroll 8
    for (int p = 0; p < MF + 2; ++p) {
      V s[kTimePoints], q[3];
#pragma GCC unroll 8
      for (int t = 0; t < kTimePoints; ++t) s[t] = load(u + (p * kTimePoints + t) * kCell + k);
      weight_back4(s, q);
#pragma GCC unroll 4
      for (int f = 0; f < 3; ++f) {
        const float factor = MF == 2 ? kFactors2[p % 4][f] : kFactors4[p][f];
#pragma GCC unroll 4
        for (int t = 0; t < 3; ++t) w[f][t] += times(factor, q[t]);
      }
    }
#pragma GCC unroll 4
    for (int f = 0; f < 3; ++f) {
#pragma GCC unroll 4
      for (int t = 0; t < 3; ++t) store(dw + (f * 3 + t) * kCell + k, w[f][t]);
    }
  }
}

// Floats, eight cache lines: about the latency of the second-level cache at this rate of stores.
constexpr int kWeightAhead = 128;

template <int MF>
void weight(const WinogradWeight& a) {
  constexpr int kCell = kBlock * kBlock;
  const float* const first = a.flip ? a.w + (kWinogradTaps - 1) * kCell : a.w;
  const int64_t step = a.flip ? -kCell : kCell;
  for (int64_t f = a.first_row; f < a.last_row; ++f) {
    const float* const factor = MF == 2 ? kFactors2[f] : kFactors4[f];
    const V c0 = set1(factor[0]), c1 = set1(factor[1]), c2 = set1(factor[2]);
    float* const to = a.u + (f - a.first_row) * kTimePoints * a.u_point;
    for (int k = 0; k < kCell; k += kLanes) {
      V w[3], u[kTimePoints];
#pragma GCC unroll 4
      for (int t = 0; t < 3; ++t) {
        const float* const p = first + t * step + k;
        // The next block, most often: nine runs of 1 KB end before the machine foresees them.
#pragma GCC unroll 4
        for (int r = 0; r < 9; r += 3) {
          __builtin_prefetch(a.w + (kWinogradTaps + r + t) * kCell + k);
        }
        w[t] = c0 * load(p) + (c1 * load(p + 3 * step) + c2 * load(p + 6 * step));
      }
      weight4(w, u);
#pragma GCC unroll 8
      for (int t = 0; t < kTimePoints; ++t) {
        __builtin_prefetch(to + t * a.u_point + k + kWeightAhead, 1);
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTimePoints; ++t) store(to + t * a.u_point + k, u[t]);
    }
  }
}

// m[point][16] to y[MF][4] for the lanes from k on.
template <int MF>
PANNS_INLINE void output_tile(const float* m, int64_t point, V (*y)[kWinogradTime]) {
  constexpr int kRows = MF + 2;
  V q[MF][kTimePoints];
#pragma GCC unroll 8
  for (int t = 0; t < kTimePoints; ++t) {
    V p[kRows], s[MF];
#pragma GCC unroll 8
    for (int f = 0; f < kRows; ++f) p[f] = load(m + (f * kTimePoints + t) * point);
    output_f<MF>(p, s);
#pragma GCC unroll 4
    for (int f = 0; f < MF; ++f) q[f][t] = s[f];
  }
#pragma GCC unroll 4
  for (int f = 0; f < MF; ++f) output4(q[f], y[f]);
}

template <int MF>
void output(const WinogradOutput& a) {
  const V floor = set1(a.relu ? 0.0f : -__builtin_inff());
  for (int64_t i = 0; i < a.count; ++i) {
    const int64_t t0 = (a.tile + i) * kWinogradTime;
    const int64_t left = a.t - t0 < kWinogradTime ? a.t - t0 : kWinogradTime;
    for (int k = 0; k < kBlock; k += kLanes) {
      const V bias = load(a.bias + k);
      V y[MF][kWinogradTime];
      output_tile<MF>(a.m + i * kBlock + k, a.m_point, y);
#pragma GCC unroll 4
      for (int f = 0; f < MF; ++f) {
#pragma GCC unroll 4
        for (int t = 0; t < kWinogradTime; ++t) y[f][t] = vmax(floor, y[f][t] + bias);
      }
      if (a.pool) {
#pragma GCC unroll 2
        for (int f = 0; f < MF / 2; ++f) {
          if (2 * f + 1 >= a.rows) break;
#pragma GCC unroll 2
          for (int t = 0; t < kWinogradTime / 2; ++t) {
            if (2 * t + 1 >= left) break;
            const V sum = (y[2 * f][2 * t] + y[2 * f][2 * t + 1]) +
                          (y[2 * f + 1][2 * t] + y[2 * f + 1][2 * t + 1]);
            store(a.y + f * a.y_row + (t0 / 2 + t) * kBlock + k, times(0.25f, sum));
          }
        }
      } else {
#pragma GCC unroll 4
        for (int f = 0; f < MF; ++f) {
          if (f >= a.rows) break;
#pragma GCC unroll 4
          for (int t = 0; t < kWinogradTime; ++t) {
            if (t >= left) break;
            store(a.y + f * a.y_row + (t0 + t) * kBlock + k, y[f][t]);
          }
        }
      }
    }
  }
}

}  // namespace

extern const WinogradTable winograd_kernels = {
    {transform<2, InputTile<2>>, weight<2>, output<2>, transform<2, GradientTile<2>>,
     weight_back<2>},
    {transform<4, InputTile<4>>, weight<4>, output<4>, transform<4, GradientTile<4>>,
     weight_back<4>},
};

}  // namespace panns::cpu::PANNS_TIER
