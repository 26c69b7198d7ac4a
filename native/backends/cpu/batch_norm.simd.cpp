#include "backends/cpu/batch_norm.h"

#include "backends/cpu/dropout_lanes.h"
#include "backends/cpu/lanes.h"

namespace panns::cpu::PANNS_TIER {
namespace {

// Float sums run over this many rows before they go to double: their error stays near
// sqrt(128) * 2^-24 of the sum.
constexpr int64_t kRun = 128;
// Rows whose mean serves as the shift: enough that it lies within a standard deviation of the
// mean, so that the squares do not cancel.
constexpr int64_t kShiftRows = 16;

PANNS_INLINE void add_to(double* sums, const V* v) {
  for (int j = 0; j < kVecs; ++j) {
    for (int i = 0; i < kLanes; ++i) sums[j * kLanes + i] += (double)v[j][i];
  }
}

void statistics(const float* x, int64_t rows, int64_t panels, int64_t stride, BatchNormSums* sums) {
  V shift[kVecs] = {};
  const int64_t first = rows < kShiftRows ? rows : kShiftRows;
  for (int64_t t = 0; t < first; ++t) {
    for (int j = 0; j < kVecs; ++j) shift[j] += load(x + t * kBlock + j * kLanes);
  }
  for (int j = 0; j < kVecs; ++j) shift[j] *= 1.0f / (float)first;

  double total[kBlock] = {}, squares[kBlock] = {};
  for (int64_t p = 0; p < panels; ++p) {
    const float* panel = x + p * stride;
    for (int64_t begin = 0; begin < rows; begin += kRun) {
      const int64_t end = begin + kRun < rows ? begin + kRun : rows;
      // Two accumulators a vector hide the latency of the additions.
      V s0[kVecs] = {}, s1[kVecs] = {}, q0[kVecs] = {}, q1[kVecs] = {};
      int64_t t = begin;
      for (; t + 2 <= end; t += 2) {
        for (int j = 0; j < kVecs; ++j) {
          const V d0 = load(panel + t * kBlock + j * kLanes) - shift[j];
          const V d1 = load(panel + (t + 1) * kBlock + j * kLanes) - shift[j];
          s0[j] += d0;
          s1[j] += d1;
          q0[j] += d0 * d0;
          q1[j] += d1 * d1;
        }
      }
      for (int j = 0; j < kVecs; ++j) {
        if (t < end) {
          const V d = load(panel + t * kBlock + j * kLanes) - shift[j];
          s0[j] += d;
          q0[j] += d * d;
        }
        s0[j] += s1[j];
        q0[j] += q1[j];
      }
      add_to(total, s0);
      add_to(squares, q0);
    }
  }
  const double count = (double)(rows * panels);
  for (int i = 0; i < kBlock; ++i) {
    const double mean = total[i] / count;
    const double rest = squares[i] - total[i] * mean;
    sums->a[i] = (double)shift[i / kLanes][i % kLanes] + mean;
    sums->b[i] = rest < 0 ? 0 : rest;  // rounding only; NaN stays
  }
}

// Forward and backward must agree on which side of 0 a value falls, so both call this.
PANNS_INLINE V normalize(V x, V mean, V scale, V beta) { return (x - mean) * scale + beta; }

struct Lanes {
  V mean[kVecs], scale[kVecs], beta[kVecs], c0[kVecs], c1[kVecs];
};
PANNS_INLINE Lanes read(const BatchNormLanes& l) {
  Lanes r;
  for (int j = 0; j < kVecs; ++j) {
    r.mean[j] = load(l.mean + j * kLanes);
    r.scale[j] = load(l.scale + j * kLanes);
    r.beta[j] = load(l.beta + j * kLanes);
    r.c0[j] = load(l.c0 + j * kLanes);
    r.c1[j] = load(l.c1 + j * kLanes);
  }
  return r;
}

template <bool kRelu, bool kPool, bool kDrop>
struct Fused {
  static constexpr int kSide = kPool ? 2 : 1;  // rows and columns of x behind one row of y

  PANNS_INLINE V value(const Lanes& l, int j, V x) {
    const V y = normalize(x, l.mean[j], l.scale[j], l.beta[j]);
    return kRelu ? vmax(zero(), y) : y;
  }

  // The factor that dropout and pool put between dy and the normalised value.
  PANNS_INLINE float factor(const BatchNormPanel& p) {
    return (kPool ? 0.25f : 1.0f) * (kDrop ? p.drop.scale : 1.0f);
  }

  // dy of output row t through dropout, the pool's mean and their scale.
  PANNS_INLINE void gradient(const BatchNormPanel& p, int64_t t, float factor, V* g) {
    BlockWords words;
    if (kDrop) words = random_block(p.drop.random, p.drop.first_call + t * p.drop.call_stride);
    for (int j = 0; j < kVecs; ++j) {
      g[j] = load(p.dy + t * kBlock + j * kLanes) * factor;
      if (kDrop) g[j] = keep(g[j], words.v[j], p.drop.threshold);
    }
  }

  PANNS_INLINE V through_relu(V g, const Lanes& l, int j, V x) {
    if (!kRelu) return g;
    return where(~(I)(normalize(x, l.mean[j], l.scale[j], l.beta[j]) <= 0.0f), g);
  }

  static void forward(const BatchNormPanel& p) {
    const Lanes l = read(*p.lanes);
    const float f = factor(p);
    for (int64_t t = 0; t < p.rows / kSide; ++t) {
      const float* x = p.x + t * kSide * kBlock;
      BlockWords words;
      if (kDrop) words = random_block(p.drop.random, p.drop.first_call + t * p.drop.call_stride);
      for (int j = 0; j < kVecs; ++j) {
        V y = value(l, j, load(x + j * kLanes));
        if (kPool) {
          y += value(l, j, load(x + kBlock + j * kLanes));
          y += value(l, j, load(x + p.column + j * kLanes)) +
               value(l, j, load(x + p.column + kBlock + j * kLanes));
        }
        if (kPool || kDrop) y *= f;
        if (kDrop) y = keep(y, words.v[j], p.drop.threshold);
        store(p.out + t * kBlock + j * kLanes, y);
      }
    }
  }

  static void backward_sums(const BatchNormPanel& p, BatchNormSums* sums) {
    const Lanes l = read(*p.lanes);
    const float f = factor(p);
    const int64_t rows = p.rows / kSide;
    for (int64_t begin = 0; begin < rows; begin += kRun / kSide) {
      const int64_t end = begin + kRun / kSide < rows ? begin + kRun / kSide : rows;
      V s[kVecs] = {}, q[kVecs] = {};
      for (int64_t t = begin; t < end; ++t) {
        V g[kVecs];
        gradient(p, t, f, g);
        for (int c = 0; c < kSide; ++c) {
          for (int r = 0; r < kSide; ++r) {
            const float* x = p.x + c * p.column + (t * kSide + r) * kBlock;
            for (int j = 0; j < kVecs; ++j) {
              const V xv = load(x + j * kLanes);
              const V through = through_relu(g[j], l, j, xv);
              s[j] += through;
              q[j] += through * (xv - l.mean[j]);
            }
          }
        }
      }
      add_to(sums->a, s);
      add_to(sums->b, q);
    }
  }

  PANNS_INLINE void apply_row(const float* x, float* dx, const Lanes& l, const V* g) {
    for (int j = 0; j < kVecs; ++j) {
      const V xv = load(x + j * kLanes);
      const V through = through_relu(g[j], l, j, xv);
      store(dx + j * kLanes, through * l.scale[j] + (l.c0[j] + l.c1[j] * (xv - l.mean[j])));
    }
  }

  static void backward_apply(const BatchNormPanel& p) {
    const Lanes l = read(*p.lanes);
    const float f = factor(p);
    const V none[kVecs] = {};
    const int64_t pooled = p.dy == nullptr ? 0 : p.rows / kSide;
    const int columns = p.dy == nullptr ? 1 : kSide;
    for (int64_t t = 0; t < pooled; ++t) {
      V g[kVecs];
      gradient(p, t, f, g);
      for (int c = 0; c < kSide; ++c) {
        for (int r = 0; r < kSide; ++r) {
          const int64_t at = c * p.column + (t * kSide + r) * kBlock;
          apply_row(p.x + at, p.out + at, l, g);
        }
      }
    }
    for (int c = 0; c < columns; ++c) {
      for (int64_t t = pooled * kSide; t < p.rows; ++t) {
        const int64_t at = c * p.column + t * kBlock;
        apply_row(p.x + at, p.out + at, l, none);
      }
    }
  }
};

// Calls f with the Fused that norm asks for.
template <bool kRelu, bool kPool, typename F>
PANNS_INLINE void with_drop(const BatchNorm& norm, F f) {
  norm.dropout.active() ? f(Fused<kRelu, kPool, true>{}) : f(Fused<kRelu, kPool, false>{});
}
template <bool kRelu, typename F>
PANNS_INLINE void with_pool(const BatchNorm& norm, F f) {
  norm.pool ? with_drop<kRelu, true>(norm, f) : with_drop<kRelu, false>(norm, f);
}
template <typename F>
PANNS_INLINE void with_fused(const BatchNorm& norm, F f) {
  norm.relu ? with_pool<true>(norm, f) : with_pool<false>(norm, f);
}

void forward(const BatchNorm& norm, const BatchNormPanel& panel) {
  with_fused(norm, [&](auto fused) { fused.forward(panel); });
}
void backward_sums(const BatchNorm& norm, const BatchNormPanel& panel, BatchNormSums* sums) {
  with_fused(norm, [&](auto fused) { fused.backward_sums(panel, sums); });
}
void backward_apply(const BatchNorm& norm, const BatchNormPanel& panel) {
  with_fused(norm, [&](auto fused) { fused.backward_apply(panel); });
}

}  // namespace

const BatchNormKernels batch_norm_kernels = {statistics, forward, backward_sums, backward_apply};

}  // namespace panns::cpu::PANNS_TIER
