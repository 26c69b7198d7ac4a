// pool: y(t, f) = mean or max of x over [t st - pt, + kt) x [f sf - pf, + kf), or the sum of both.
// Layout: maps [N][T][F][C'], 16-byte accesses of eight channels; one channel goes one by one.
// Forward, a thread an output vector: reads x once for each window that covers it (through the
// caches) and writes y. Backward, a thread an input vector: gathers from the windows that cover it,
// so that nothing is added twice at a time, and finds their maxima in x again.
// measured: never run on a GPU yet
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/pack.cuh"
#include "backends/cuda/pool.h"

namespace panns::cuda {
namespace {

struct PoolArgs {
  int kt, kf, st, sf, pt, pf;
  int in_t, in_f, out_t, out_f;
  uint32_t count;         // vectors to make
  Divisor vectors, t, f;  // of those: vectors of a pixel, frames, bins
  int64_t stride;         // elements of a pixel
  float share;            // 1 / (kt kf)
};

struct Range {
  int begin, end;
};
PANNS_DEVICE Range window(int out, int size, int stride, int padding, int limit) {
  const int begin = out * stride - padding;
  return {larger(begin, 0), smaller(begin + size, limit)};
}
// The windows that cover a place: those with out * stride - padding in (place - size, place].
PANNS_DEVICE Range covering(int place, int size, int stride, int padding, int outputs) {
  const int last = place + padding, first = last - size + 1;
  return {first <= 0 ? 0 : (first + stride - 1) / stride, smaller(last / stride + 1, outputs)};
}

struct At {
  uint32_t n, t, f, vector;
};
PANNS_DEVICE At place_of(uint32_t i, const PoolArgs& a) {
  const Division pixel = divide(i, a.vectors), row = divide(pixel.quotient, a.f);
  const Division frame = divide(row.quotient, a.t);
  return {frame.quotient, frame.rest, row.rest, pixel.rest};
}

template <int W>
PANNS_DEVICE Pack<W> filled(float x) {
  Pack<W> out;
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) out.v[k] = x;
  return out;
}

template <typename T, int W, PoolKind kKind>
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    pool_kernel(PoolArgs a, const T* x, T* y) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < a.count; i += step) {
    const At at = place_of(i, a);
    const Range t = window(static_cast<int>(at.t), a.kt, a.st, a.pt, a.in_t);
    const Range f = window(static_cast<int>(at.f), a.kf, a.sf, a.pf, a.in_f);
    Pack<W> sum = filled<W>(0), best = filled<W>(-INFINITY);
    for (int it = t.begin; it < t.end; ++it) {
      for (int jf = f.begin; jf < f.end; ++jf) {
        const int64_t pixel = (int64_t{at.n} * a.in_t + it) * a.in_f + jf;
        const Pack<W> v = load<W>(x + pixel * a.stride + at.vector * W);
        PANNS_UNROLL
        for (int k = 0; k < W; ++k) {
          if (kKind != PoolKind::max) sum.v[k] += v.v[k];
          if (kKind != PoolKind::mean && (v.v[k] > best.v[k] || is_nan(v.v[k]))) best.v[k] = v.v[k];
        }
      }
    }
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) {
      if (kKind == PoolKind::mean) best.v[k] = sum.v[k] * a.share;
      if (kKind == PoolKind::mean_max) best.v[k] += sum.v[k] * a.share;
    }
    store<W>(y + int64_t{i} * W, best);
  }
}

// Whether a place has the maximum of a window, for each channel: nothing before it is as large,
// nothing after it larger; of NaNs the last counts. `image` is x at the clip's first pixel.
template <int W, typename T>
PANNS_DEVICE void keep_winners(const PoolArgs& a, const Range& t, const Range& f, int own_t,
                               int own_f, const Pack<W>& own, const T* image, bool* wins) {
  for (int it = t.begin; it < t.end; ++it) {
    for (int jf = f.begin; jf < f.end; ++jf) {
      if (it == own_t && jf == own_f) continue;
      const bool before = it < own_t || (it == own_t && jf < own_f);
      const Pack<W> v = load<W>(image + (int64_t{it} * a.in_f + jf) * a.stride);
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) {
        const bool nan = is_nan(own.v[k]);
        const bool beaten =
            before ? !nan && !(v.v[k] < own.v[k]) : is_nan(v.v[k]) || (!nan && v.v[k] > own.v[k]);
        wins[k] = wins[k] && !beaten;
      }
    }
  }
}

template <typename T, int W, PoolKind kKind>
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    pool_backward_kernel(PoolArgs a, const T* x, const T* dy, T* dx) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < a.count; i += step) {
    const At at = place_of(i, a);
    const int own_t = static_cast<int>(at.t), own_f = static_cast<int>(at.f);
    const Range out_t = covering(own_t, a.kt, a.st, a.pt, a.out_t);
    const Range out_f = covering(own_f, a.kf, a.sf, a.pf, a.out_f);
    Pack<W> own{}, sum{};
    if constexpr (kKind != PoolKind::mean) own = load<W>(x + int64_t{i} * W);
    for (int to = out_t.begin; to < out_t.end; ++to) {
      for (int fo = out_f.begin; fo < out_f.end; ++fo) {
        const int64_t pixel = (int64_t{at.n} * a.out_t + to) * a.out_f + fo;
        const Pack<W> g = load<W>(dy + pixel * a.stride + at.vector * W);
        if constexpr (kKind != PoolKind::max) {
          PANNS_UNROLL
          for (int k = 0; k < W; ++k) sum.v[k] += g.v[k] * a.share;
        }
        if constexpr (kKind != PoolKind::mean) {
          bool wins[W];
          PANNS_UNROLL
          for (int k = 0; k < W; ++k) wins[k] = true;
          keep_winners<W>(a, window(to, a.kt, a.st, a.pt, a.in_t),
                          window(fo, a.kf, a.sf, a.pf, a.in_f), own_t, own_f, own,
                          x + int64_t{at.n} * a.in_t * a.in_f * a.stride + at.vector * W, wins);
          PANNS_UNROLL
          for (int k = 0; k < W; ++k) sum.v[k] += wins[k] ? g.v[k] : 0.0f;
        }
      }
    }
    store<W>(dx + int64_t{i} * W, sum);
  }
}

PoolArgs args_of(const Pool& p, const Map& in, const Map& out, const Map& made) {
  const int64_t width = in.c == 1 ? 1 : kChannelBlock, count = made.size() / width;
  expect_indexable(larger(in.pixels(), count), "pool");
  const auto narrow = [](int64_t x) { return static_cast<int>(x); };
  return {narrow(p.kt),
          narrow(p.kf),
          narrow(p.st),
          narrow(p.sf),
          narrow(p.pt),
          narrow(p.pf),
          narrow(in.t),
          narrow(in.f),
          narrow(out.t),
          narrow(out.f),
          static_cast<uint32_t>(count),
          Divisor(made.channels() / width),
          Divisor(made.t),
          Divisor(made.f),
          made.channels(),
          1.0f / static_cast<float>(p.kt * p.kf)};
}

// Calls body(element, width, kind) with what the map and the pool ask for.
template <typename Body>
void with_pool_form(const Pool& pool, const Map& map, Body&& body) {
  const auto with_kind = [&](auto element, auto width) {
    switch (pool.kind) {
      case PoolKind::mean:
        return body(element, width, std::integral_constant<PoolKind, PoolKind::mean>{});
      case PoolKind::max:
        return body(element, width, std::integral_constant<PoolKind, PoolKind::max>{});
      case PoolKind::mean_max:
        return body(element, width, std::integral_constant<PoolKind, PoolKind::mean_max>{});
    }
  };
  with_width(map, with_kind);
}

}  // namespace

Map pool_output(const Pool& p, const Map& map) {
  return {map.n, map.c, (map.t + 2 * p.pt - p.kt) / p.st + 1, (map.f + 2 * p.pf - p.kf) / p.sf + 1,
          map.precision};
}

void pool(const Launch& launch, const Pool& pool, const Map& map, const void* x, void* y) {
  const Map out = pool_output(pool, map);
  const PoolArgs args = args_of(pool, map, out, out);
  with_pool_form(pool, map, [&](auto element, auto width, auto kind) {
    using T = decltype(element);
    enqueue(launch, "pool", pool_kernel<T, width, kind>, striding(launch, args.count), args,
            static_cast<const T*>(x), static_cast<T*>(y));
  });
}

void pool_backward(const Launch& launch, const Pool& pool, const Map& map, const void* x,
                   const void* dy, void* dx) {
  const PoolArgs args = args_of(pool, map, pool_output(pool, map), map);
  with_pool_form(pool, map, [&](auto element, auto width, auto kind) {
    using T = decltype(element);
    enqueue(launch, "pool_backward", pool_backward_kernel<T, width, kind>,
            striding(launch, args.count), args, static_cast<const T*>(x), static_cast<const T*>(dy),
            static_cast<T*>(dx));
  });
}

}  // namespace panns::cuda
