#include "backends/cpu/pool.h"

#include "backends/cpu/vec.h"

namespace panns::cpu::PANNS_TIER {
namespace {

// A map with C == 1 goes float by float (Float = float), any other a vector of channels at a time.
template <typename Float>
PANNS_INLINE Float get(const float* p) {
  if constexpr (sizeof(Float) == sizeof(float)) {
    return *p;
  } else {
    return load(p);
  }
}
PANNS_INLINE void put(float* p, float v) { *p = v; }
PANNS_INLINE void put(float* p, V v) { store(p, v); }
template <typename Float>
PANNS_INLINE Float splat(float x) {
  return x - Float{};
}

constexpr float kMinusInfinity = -__builtin_inff();

struct Range {
  int64_t begin, end;
};
PANNS_INLINE Range window(int64_t out, int64_t size, int64_t stride, int64_t padding,
                          int64_t limit) {
  const int64_t begin = out * stride - padding, end = begin + size;
  return {begin < 0 ? 0 : begin, end > limit ? limit : end};
}

// The first maximum of a window, and its place: counted along (t, f).
template <typename Float>
struct Maximum {
  Float value = splat<Float>(kMinusInfinity);
  Float place = splat<Float>(0.0f);
};
template <typename Float>
PANNS_INLINE void see(Maximum<Float>& m, Float x, float place) {
  const auto better = (x > m.value) | (x != x);
  m.value = better ? x : m.value;
  m.place = better ? splat<Float>(place) : m.place;
}

template <typename Float, PoolKind kKind>
void forward(const PoolRun& run, const float* x, float* y, int64_t column, int64_t begin,
             int64_t end) {
  const Pool& p = run.pool;
  const int64_t block = run.in.block(), row = run.in.row(), lanes = sizeof(Float) / sizeof(float);
  const Range f = window(column, p.kf, p.sf, p.pf, run.in.f);
  const float share = 1.0f / (float)(p.kt * p.kf);
  for (int64_t to = begin; to < end; ++to) {
    const Range t = window(to, p.kt, p.st, p.pt, run.in.t);
    for (int64_t c = 0; c < block; c += lanes) {
      Float sum{};
      Float best = splat<Float>(kMinusInfinity);
      for (int64_t it = t.begin; it < t.end; ++it) {
        for (int64_t jf = f.begin; jf < f.end; ++jf) {
          const Float v = get<Float>(x + jf * row + it * block + c);
          if (kKind != PoolKind::max) sum += v;
          if (kKind != PoolKind::mean) best = ((v > best) | (v != v)) ? v : best;
        }
      }
      Float out = sum * share;
      if (kKind == PoolKind::max) out = best;
      if (kKind == PoolKind::mean_max) out += best;
      put(y + to * block + c, out);
    }
  }
}

template <typename Float, PoolKind kKind>
void backward(const PoolRun& run, const float* x, const float* dy, float* dx, int64_t column) {
  const Pool& p = run.pool;
  const int64_t block = run.in.block(), row = run.in.row(), lanes = sizeof(Float) / sizeof(float);
  const Range f = window(column, p.kf, p.sf, p.pf, run.in.f);
  const float share = 1.0f / (float)(p.kt * p.kf);
  for (int64_t to = 0; to < run.out.t; ++to) {
    const Range t = window(to, p.kt, p.st, p.pt, run.in.t);
    for (int64_t c = 0; c < block; c += lanes) {
      const Float g = get<Float>(dy + to * block + c);
      const Float mean = kKind == PoolKind::max ? Float{} : g * share;
      Maximum<Float> best;
      if (kKind != PoolKind::mean) {
        float place = 0;  // exact: windows are far smaller than 2^24
        for (int64_t it = t.begin; it < t.end; ++it) {
          for (int64_t jf = f.begin; jf < f.end; ++jf, place += 1) {
            see(best, get<Float>(x + jf * row + it * block + c), place);
          }
        }
      }
      float place = 0;
      for (int64_t it = t.begin; it < t.end; ++it) {
        for (int64_t jf = f.begin; jf < f.end; ++jf, place += 1) {
          float* at = dx + jf * row + it * block + c;
          Float add = mean;
          if (kKind != PoolKind::mean) add += best.place == place ? g : Float{};
          put(at, get<Float>(at) + add);
        }
      }
    }
  }
}

template <typename Float>
void forward_of(const PoolRun& run, const float* x, float* y, int64_t column, int64_t begin,
                int64_t end) {
  switch (run.pool.kind) {
    case PoolKind::mean:
      return forward<Float, PoolKind::mean>(run, x, y, column, begin, end);
    case PoolKind::max:
      return forward<Float, PoolKind::max>(run, x, y, column, begin, end);
    case PoolKind::mean_max:
      return forward<Float, PoolKind::mean_max>(run, x, y, column, begin, end);
  }
}

template <typename Float>
void backward_of(const PoolRun& run, const float* x, const float* dy, float* dx, int64_t column) {
  switch (run.pool.kind) {
    case PoolKind::mean:
      return backward<Float, PoolKind::mean>(run, x, dy, dx, column);
    case PoolKind::max:
      return backward<Float, PoolKind::max>(run, x, dy, dx, column);
    case PoolKind::mean_max:
      return backward<Float, PoolKind::mean_max>(run, x, dy, dx, column);
  }
}

void forward_any(const PoolRun& run, const float* x, float* y, int64_t column, int64_t begin,
                 int64_t end) {
  run.in.c == 1 ? forward_of<float>(run, x, y, column, begin, end)
                : forward_of<V>(run, x, y, column, begin, end);
}
void backward_any(const PoolRun& run, const float* x, const float* dy, float* dx, int64_t column) {
  run.in.c == 1 ? backward_of<float>(run, x, dy, dx, column)
                : backward_of<V>(run, x, dy, dx, column);
}

}  // namespace

const PoolKernels pool_kernels = {forward_any, backward_any};

}  // namespace panns::cpu::PANNS_TIER
