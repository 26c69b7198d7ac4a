// Winograd's transforms (Lavin and Gray, 2016, "Fast Algorithms for Convolutional Neural
// Networks"): interpolation points 0, 1, -1, infinity for two outputs, and 2, -2 more for four.
#include "backends/cpu/conv_winograd_kernels.h"
#include "backends/cpu/vec.h"

namespace panns::cpu::PANNS_TIER {
namespace {

constexpr int kTimePoints = 6;

PANNS_INLINE V times(float s, V v) { return set1(s) * v; }

// ---- one dimension each; the suffix is the number of outputs of a tile

PANNS_INLINE void input4(const V* x, V* d) {
  const V a = x[4] - times(4, x[2]), b = x[3] - times(4, x[1]);
  const V c = x[4] - x[2], e = times(2, x[3] - x[1]);
  d[0] = times(4, x[0] - x[2]) + c;
  d[1] = a + b;
  d[2] = a - b;
  d[3] = c + e;
  d[4] = c - e;
  d[5] = times(4, x[1] - x[3]) + (x[5] - x[3]);
}
PANNS_INLINE void input2(const V* x, V* d) {
  d[0] = x[0] - x[2];
  d[1] = x[1] + x[2];
  d[2] = x[2] - x[1];
  d[3] = x[1] - x[3];
}

PANNS_INLINE void weight4(const V* w, V* u) {
  const V ends = times(1.0f / 6, w[0] + w[2]), middle = times(1.0f / 6, w[1]);
  const V far = times(1.0f / 24, w[0]) + times(1.0f / 6, w[2]), half = times(1.0f / 12, w[1]);
  u[0] = times(0.25f, w[0]);
  u[1] = -ends - middle;
  u[2] = middle - ends;
  u[3] = far + half;
  u[4] = far - half;
  u[5] = w[2];
}
// Along frequency the rows of points are made one at a time, from these factors.
constexpr float kFactors2[4][3] = {
    {1, 0, 0}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0, 0, 1}};
constexpr float kFactors4[6][3] = {
    {0.25f, 0, 0},
    {-1.0f / 6, -1.0f / 6, -1.0f / 6},
    {-1.0f / 6, 1.0f / 6, -1.0f / 6},
    {1.0f / 24, 1.0f / 12, 1.0f / 6},
    {1.0f / 24, -1.0f / 12, 1.0f / 6},
    {0, 0, 1}};

PANNS_INLINE void output4(const V* m, V* y) {
  const V s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
  y[0] = (m[0] + s1) + s2;
  y[1] = d1 + times(2, d2);
  y[2] = s1 + times(4, s2);
  y[3] = (d1 + m[5]) + times(8, d2);
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
PANNS_INLINE void output_f(const V* m, V* y) {
  if constexpr (MF == 4) output4(m, y);
  if constexpr (MF == 2) output2(m, y);
}

// ---- tiles

// x[row][6 pixels][16] to v[point][16].
template <int MF>
PANNS_INLINE void input_tile(const float* x, int64_t row, float* v, int64_t point) {
  constexpr int kRows = MF + 2;
  for (int k = 0; k < kBlock; k += kLanes) {
    V q[kTimePoints][kRows];
#pragma GCC unroll 8
    for (int f = 0; f < kRows; ++f) {
      V p[kTimePoints], d[kTimePoints];
#pragma GCC unroll 8
      for (int t = 0; t < kTimePoints; ++t) p[t] = load(x + f * row + t * kBlock + k);
      input4(p, d);
#pragma GCC unroll 8
      for (int t = 0; t < kTimePoints; ++t) q[t][f] = d[t];
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTimePoints; ++t) {
      V d[kRows];
      input_f<MF>(q[t], d);
#pragma GCC unroll 8
      for (int f = 0; f < kRows; ++f) store(v + (f * kTimePoints + t) * point + k, d[f]);
    }
  }
}

template <int MF>
void input(const WinogradInput& a) {
  constexpr int kRows = MF + 2;
  constexpr int kAhead = 1;
  alignas(64) float border[kRows * kTimePoints * kBlock];
  const bool rows_inside = a.first_row == 0 && a.last_row == kRows;
  for (int64_t i = 0; i < a.count; ++i) {
    const int64_t t0 = (a.tile + i) * kWinogradTime - 1;
    float* const v = a.v + i * kBlock;
    // The stores go to as many places as there are points, more than the machine foresees.
#pragma GCC unroll 8
    for (int p = 0; p < kRows * kTimePoints; ++p) {
      __builtin_prefetch(v + kBlock * kAhead + p * a.v_point, 1);
    }
    if (rows_inside && t0 >= 0 && t0 + kTimePoints <= a.t) {
      input_tile<MF>(a.x + t0 * kBlock, a.x_row, v, a.v_point);
      continue;
    }
    for (int64_t f = 0; f < kRows; ++f) {
      const bool row_inside = f >= a.first_row && f < a.last_row;
      for (int64_t t = 0; t < kTimePoints; ++t) {
        float* const to = border + (f * kTimePoints + t) * kBlock;
        const bool inside = row_inside && t0 + t >= 0 && t0 + t < a.t;
        for (int k = 0; k < kBlock; k += kLanes) {
          store(to + k, inside ? load(a.x + f * a.x_row + (t0 + t) * kBlock + k) : zero());
        }
      }
    }
    input_tile<MF>(border, kTimePoints * kBlock, v, a.v_point);
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
    {input<2>, weight<2>, output<2>},
    {input<4>, weight<4>, output<4>},
};

}  // namespace panns::cpu::PANNS_TIER
