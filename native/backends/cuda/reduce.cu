// reduce over frequency: y(n, c, t) = mean over f of x(n, c, t, f); over time: y(n, c) = mean, max
// or max + mean over t of x(n, c, t).
// Layout: maps [N][T][F][C'], 16-byte accesses of eight channels; one channel goes one by one.
// Bytes an element of x of b bytes: b read forward, b written backward (and b read for a maximum).
// Over time a block has one clip and 32 vectors of channels, its threads a share of the frames
// each, joined in a fixed order. measured: never run on a GPU yet
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/pack.cuh"
#include "backends/cuda/device/tile.cuh"
#include "backends/cuda/reduce.h"

namespace panns::cuda {
namespace {

template <typename T, int W>
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    mean_over_freq_kernel(uint32_t count, Divisor vectors, uint32_t bins, float share, const T* x,
                          T* y) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += step) {
    const Division at = divide(i, vectors);
    const int64_t stride = int64_t{vectors.divisor()} * W;
    const T* from = x + int64_t{at.quotient} * bins * stride + at.rest * W;
    Pack<W> sum{};
    for (uint32_t f = 0; f < bins; ++f, from += stride) {
      const Pack<W> v = load<W>(from);
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) sum.v[k] += v.v[k];
    }
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) sum.v[k] *= share;
    store<W>(y + int64_t{i} * W, sum);
  }
}

template <typename T, int W>
__global__ void __launch_bounds__(kThreads)
    spread_over_freq_kernel(uint32_t count, Divisor vectors, uint32_t bins, float share,
                            const T* dy, T* dx) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += step) {
    const Division at = divide(i, vectors);
    const int64_t stride = int64_t{vectors.divisor()} * W;
    T* to = dx + int64_t{at.quotient} * bins * stride + at.rest * W;
    Pack<W> g = load<W>(dy + int64_t{i} * W);
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) g.v[k] *= share;
    for (uint32_t f = 0; f < bins; ++f, to += stride) store<W>(to, g);
  }
}

// A maximum and its place; none yet at place -1.
struct Best {
  float value;
  int32_t place;

  // The earlier of equals, and a NaN before all.
  PANNS_DEVICE bool loses_to(const Best& o) const {
    if (o.place < 0 || place < 0) return o.place >= 0;
    if (is_nan(value) != is_nan(o.value)) return is_nan(o.value);
    if (is_nan(value) || value == o.value) return o.place < place;
    return o.value > value;
  }
};

// Joins the best of the block's rows; row 0 has it.
template <int W>
PANNS_DEVICE void best_of_rows(const Tiling& g, const Place& at, Best* best) {
  Best* shared = shared_memory<Best>() + threadIdx.x;
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) shared[k * kThreads] = best[k];
  __syncthreads();
  for (uint32_t rows = g.rows; rows > 1;) {
    const uint32_t half = (rows + 1) / 2;
    if (at.row + half < rows) {
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) {
        const Best other = shared[k * kThreads + half * g.columns];
        if (shared[k * kThreads].loses_to(other)) shared[k * kThreads] = other;
      }
    }
    rows = half;
    __syncthreads();
  }
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) best[k] = shared[k * kThreads];
}

template <typename T, int W>
PANNS_DEVICE void best_over_time(const Tiling& g, const Place& at, int32_t frames, int64_t stride,
                                 const T* x, Best* best) {
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) best[k] = {0, -1};
  if (at.active) {
    for (int32_t t = static_cast<int32_t>(at.row); t < frames; t += g.rows) {
      const Pack<W> v = load<W>(x + t * stride);
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) {
        const Best here{v.v[k], t};
        if (best[k].loses_to(here)) best[k] = here;
      }
    }
  }
  best_of_rows<W>(g, at, best);
}

template <typename T, int W>
__global__ void __launch_bounds__(kThreads)
    reduce_time_kernel(TimeReduce kind, Tiling g, int32_t frames, uint32_t channels, float share,
                       const T* x, float* y) {
  const Place at(g);
  const int64_t stride = int64_t{g.vectors} * W;
  x += blockIdx.y * frames * stride + at.vector * W;
  Best best[W];
  float sum[W] = {};
  if (kind != TimeReduce::max) {
    if (at.active) {
      for (int32_t t = static_cast<int32_t>(at.row); t < frames; t += g.rows) {
        const Pack<W> v = load<W>(x + t * stride);
        PANNS_UNROLL
        for (int k = 0; k < W; ++k) sum[k] += v.v[k];
      }
    }
    sum_rows<W>(g, at, sum);
    __syncthreads();  // so that the maxima may use the same memory
  }
  if (kind != TimeReduce::mean) best_over_time<T, W>(g, at, frames, stride, x, best);
  if (at.row != 0 || !at.active) return;
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    const uint32_t c = at.vector * W + k;
    if (c >= channels) continue;
    const float mean = kind == TimeReduce::max ? 0 : sum[k] * share;
    y[int64_t{blockIdx.y} * channels + c] = kind == TimeReduce::mean ? mean : best[k].value + mean;
  }
}

template <typename T, int W>
__global__ void __launch_bounds__(kThreads)
    reduce_time_backward_kernel(TimeReduce kind, Tiling g, int32_t frames, uint32_t channels,
                                float share, const T* x, const float* dy, T* dx) {
  const Place at(g);
  const int64_t stride = int64_t{g.vectors} * W,
                offset = blockIdx.y * frames * stride + at.vector * W;
  int32_t place[W];
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) place[k] = -1;
  if (kind != TimeReduce::mean) {
    Best best[W];
    best_over_time<T, W>(g, at, frames, stride, x + offset, best);
    // Row 0 knows; the others read it from where the search left it.
    const Best* found = shared_memory<Best>() + threadIdx.x % g.columns;
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) place[k] = found[k * kThreads].place;
  }
  if (!at.active) return;
  float gradient[W];
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    const uint32_t c = at.vector * W + k;
    gradient[k] = c < channels ? dy[int64_t{blockIdx.y} * channels + c] : 0;
  }
  const float each = kind == TimeReduce::max ? 0 : share;
  for (int32_t t = static_cast<int32_t>(at.row); t < frames; t += g.rows) {
    Pack<W> out;
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) {
      out.v[k] = gradient[k] * each + (place[k] == t ? gradient[k] : 0.0f);
    }
    store<W>(dx + offset + t * stride, out);
  }
}

void expect_one_bin(const Map& map) {
  PANNS_CHECK(map.f == 1 && map.t > 0, "ERR_PANNS_SHAPE", "reduce_time",
              "expected a map with F = 1 and T >= 1, got T = ", map.t, ", F = ", map.f,
              "; reduce over F first");
  expect_indexable(map.pixels(), "reduce_time");
}

// Shared memory of the larger of the two joins.
constexpr size_t time_bytes(int width) {
  return static_cast<size_t>(width) * kThreads * sizeof(Best);
}

}  // namespace

void mean_over_freq(const Launch& launch, const Map& map, const void* x, void* y) {
  with_width(map, [&](auto element, auto width) {
    using T = decltype(element);
    const int64_t vectors = map.channels() / width, count = map.n * map.t * vectors;
    expect_indexable(count, "reduce");
    enqueue(launch, "reduce", mean_over_freq_kernel<T, width>, striding(launch, count),
            static_cast<uint32_t>(count), Divisor(vectors), static_cast<uint32_t>(map.f),
            1.0f / static_cast<float>(map.f), static_cast<const T*>(x), static_cast<T*>(y));
  });
}

void mean_over_freq_backward(const Launch& launch, const Map& map, const void* dy, void* dx) {
  with_width(map, [&](auto element, auto width) {
    using T = decltype(element);
    const int64_t vectors = map.channels() / width, count = map.n * map.t * vectors;
    expect_indexable(count, "reduce_backward");
    enqueue(launch, "reduce_backward", spread_over_freq_kernel<T, width>, striding(launch, count),
            static_cast<uint32_t>(count), Divisor(vectors), static_cast<uint32_t>(map.f),
            1.0f / static_cast<float>(map.f), static_cast<const T*>(dy), static_cast<T*>(dx));
  });
}

void reduce_time(const Launch& launch, TimeReduce kind, const Map& map, const void* x, float* y) {
  expect_one_bin(map);
  with_width(map, [&](auto element, auto width) {
    using T = decltype(element);
    const Tiling g(map.channels() / width);
    enqueue(launch, "reduce", reduce_time_kernel<T, width>,
            {.x = g.tiles, .y = map.n, .shared = time_bytes(width)}, kind, g,
            static_cast<int32_t>(map.t), static_cast<uint32_t>(map.c),
            1.0f / static_cast<float>(map.t), static_cast<const T*>(x), y);
  });
}

void reduce_time_backward(const Launch& launch, TimeReduce kind, const Map& map, const void* x,
                          const float* dy, void* dx) {
  expect_one_bin(map);
  with_width(map, [&](auto element, auto width) {
    using T = decltype(element);
    const Tiling g(map.channels() / width);
    enqueue(launch, "reduce_backward", reduce_time_backward_kernel<T, width>,
            {.x = g.tiles, .y = map.n, .shared = time_bytes(width)}, kind, g,
            static_cast<int32_t>(map.t), static_cast<uint32_t>(map.c),
            1.0f / static_cast<float>(map.t), static_cast<const T*>(x), dy, static_cast<T*>(dx));
  });
}

}  // namespace panns::cuda
