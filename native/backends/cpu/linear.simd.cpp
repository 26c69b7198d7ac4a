#include "backends/cpu/linear.h"

#include "backends/cpu/lanes.h"

namespace panns::cpu::PANNS_TIER {
namespace {

// Register tiles. AVX2 has 16 registers: 12 sums, and what feeds them.
constexpr int kRows = 3;     // batch rows
constexpr int kOutputs = 4;  // outputs (forward, dW)
constexpr int kWide = 4;     // vectors along the inputs (dx)

// y[r][o] = act(x[r] . w[o] + b[o]) for R rows and O outputs.
template <int R, int O>
PANNS_INLINE void forward_tile(const Linear& s, const float* x, const float* w, const float* b,
                               float* y) {
  V sum[R][O] = {};
  int64_t i = 0;
  for (; i + kLanes <= s.in; i += kLanes) {
    V xv[R];
    for (int r = 0; r < R; ++r) xv[r] = load(x + r * s.in + i);
    for (int o = 0; o < O; ++o) {
      const V wv = load(w + o * s.in + i);
      for (int r = 0; r < R; ++r) sum[r][o] += xv[r] * wv;
    }
  }
  const int64_t rest = s.in - i;
  for (int r = 0; r < R; ++r) {
    for (int o = 0; o < O; ++o) {
      if (rest > 0) {
        sum[r][o] += load_part(x + r * s.in + i, rest) * load_part(w + o * s.in + i, rest);
      }
      float v = sum_lanes(sum[r][o]);
      if (b != nullptr) v += b[o];
      if (s.relu) v = v <= 0.0f ? 0.0f : v;  // NaN passes
      y[r * s.out + o] = v;
    }
  }
}

template <int O>
PANNS_INLINE void forward_rows(const Linear& s, const float* x, const float* w, const float* b,
                               float* y) {
  int64_t n = 0;
  for (; n + kRows <= s.n; n += kRows) {
    forward_tile<kRows, O>(s, x + n * s.in, w, b, y + n * s.out);
  }
  for (; n < s.n; ++n) forward_tile<1, O>(s, x + n * s.in, w, b, y + n * s.out);
}

void forward(const Linear& s, const float* x, const float* w, const float* b, float* y,
             int64_t first, int64_t count) {
  int64_t o = first;
  const int64_t end = first + count;
  for (; o + kOutputs <= end; o += kOutputs) {
    forward_rows<kOutputs>(s, x, w + o * s.in, b == nullptr ? b : b + o, y + o);
  }
  for (; o < end; ++o) forward_rows<1>(s, x, w + o * s.in, b == nullptr ? b : b + o, y + o);
}

// Adds outputs [begin, end) into dx of R rows and W vectors (or `part` floats of one vector).
template <int R, int W, bool kPart>
PANNS_INLINE void data_tile(const Linear& s, const float* dy, const float* w, float* dx,
                            int64_t begin, int64_t end, int64_t part) {
  V sum[R][W];
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < W; ++j) {
      const float* at = dx + r * s.in + j * kLanes;
      sum[r][j] = begin == 0 ? zero() : kPart ? load_part(at, part) : load(at);
    }
  }
  for (int64_t o = begin; o < end; ++o) {
    V wv[W];
    for (int j = 0; j < W; ++j) {
      const float* at = w + o * s.in + j * kLanes;
      wv[j] = kPart ? load_part(at, part) : load(at);
    }
    for (int r = 0; r < R; ++r) {
      for (int j = 0; j < W; ++j) sum[r][j] += wv[j] * dy[r * s.out + o];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < W; ++j) {
      float* at = dx + r * s.in + j * kLanes;
      if (kPart) {
        store_part(at, sum[r][j], part);
      } else {
        store(at, sum[r][j]);
      }
    }
  }
}

template <int R>
PANNS_INLINE void data_rows(const Linear& s, const float* dy, const float* w, float* dx,
                            int64_t begin, int64_t end, int64_t columns) {
  int64_t i = 0;
  for (; i + kWide * kLanes <= columns; i += kWide * kLanes) {
    data_tile<R, kWide, false>(s, dy, w + i, dx + i, begin, end, 0);
  }
  for (; i + kLanes <= columns; i += kLanes) {
    data_tile<R, 1, false>(s, dy, w + i, dx + i, begin, end, 0);
  }
  if (i < columns) data_tile<R, 1, true>(s, dy, w + i, dx + i, begin, end, columns - i);
}

void backward_data(const Linear& s, const float* dy, const float* w, float* dx, int64_t first,
                   int64_t count) {
  // This many weight rows stay in cache while the batch passes over them.
  constexpr int64_t kOutputBlock = 16;
  for (int64_t begin = 0; begin < s.out; begin += kOutputBlock) {
    const int64_t end = begin + kOutputBlock < s.out ? begin + kOutputBlock : s.out;
    int64_t n = 0;
    for (; n + kRows <= s.n; n += kRows) {
      data_rows<kRows>(s, dy + n * s.out, w + first, dx + n * s.in + first, begin, end, count);
    }
    for (; n < s.n; ++n) {
      data_rows<1>(s, dy + n * s.out, w + first, dx + n * s.in + first, begin, end, count);
    }
  }
}

// dw[o][i ...] = sum over n of dy[n][o] x[n][i ...] for O outputs and W vectors.
template <int O, int W, bool kPart>
PANNS_INLINE void weight_tile(const Linear& s, const float* dy, const float* x, float* dw,
                              int64_t part) {
  V sum[O][W] = {};
  for (int64_t n = 0; n < s.n; ++n) {
    V xv[W];
    for (int j = 0; j < W; ++j) {
      const float* at = x + n * s.in + j * kLanes;
      xv[j] = kPart ? load_part(at, part) : load(at);
    }
    for (int o = 0; o < O; ++o) {
      for (int j = 0; j < W; ++j) sum[o][j] += xv[j] * dy[n * s.out + o];
    }
  }
  for (int o = 0; o < O; ++o) {
    for (int j = 0; j < W; ++j) {
      float* at = dw + o * s.in + j * kLanes;
      if (kPart) {
        store_part(at, sum[o][j], part);
      } else {
        store(at, sum[o][j]);
      }
    }
  }
}

template <int O>
PANNS_INLINE void weight_rows(const Linear& s, const float* dy, const float* x, float* dw) {
  int64_t i = 0;
  for (; i + 2 * kLanes <= s.in; i += 2 * kLanes) {
    weight_tile<O, 2, false>(s, dy, x + i, dw + i, 0);
  }
  for (; i + kLanes <= s.in; i += kLanes) weight_tile<O, 1, false>(s, dy, x + i, dw + i, 0);
  if (i < s.in) weight_tile<O, 1, true>(s, dy, x + i, dw + i, s.in - i);
}

void backward_weight(const Linear& s, const float* dy, const float* x, float* dw, int64_t first,
                     int64_t count) {
  int64_t o = first;
  const int64_t end = first + count;
  for (; o + kOutputs <= end; o += kOutputs) {
    weight_rows<kOutputs>(s, dy + o, x, dw + o * s.in);
  }
  for (; o < end; ++o) weight_rows<1>(s, dy + o, x, dw + o * s.in);
}

}  // namespace

const LinearKernels linear_kernels = {forward, backward_data, backward_weight};

}  // namespace panns::cpu::PANNS_TIER
