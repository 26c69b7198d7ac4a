// scale: y(n, c, t, f) = x(n, c, t, f) s(n, c); backward dx = dy s, ds(n, c) = sum of dy x.
// Layout: maps [N][T][F][C'], 16-byte accesses of eight channels; one channel goes one by one. The
// sum goes in two deterministic stages, float within a thread, double after. Bytes an element of b
// bytes: 2 b forward, 3 b backward.
// measured: never run on a GPU yet
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/pack.cuh"
#include "backends/cuda/device/tile.cuh"
#include "backends/cuda/scale.h"

namespace panns::cuda {
namespace {

template <int W>
PANNS_DEVICE void factors(const float* s, uint32_t clip, const Place& at, uint32_t channels,
                          float* out) {
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    const uint32_t c = at.vector * W + k;
    out[k] = c < channels ? s[int64_t{clip} * channels + c] : 0;
  }
}

// blockIdx.z is the clip.
template <typename T, int W>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(Tiling g, uint32_t rows, uint32_t channels, const T* x, const float* s, T* y) {
  const Place at(g);
  if (!at.active) return;
  const int64_t stride = int64_t{g.vectors} * W;
  const int64_t offset = blockIdx.z * rows * stride + at.vector * W;
  float factor[W];
  factors<W>(s, blockIdx.z, at, channels, factor);
  const uint32_t step = gridDim.y * g.rows;
  for (uint32_t row = blockIdx.y * g.rows + at.row; row < rows; row += step) {
    Pack<W> v = load<W>(x + offset + row * stride);
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) v.v[k] *= factor[k];
    store<W>(y + offset + row * stride, v);
  }
}

// partial[clip][chunk] = the sum of dy x over the rows of a chunk.
template <typename T, int W>
__global__ void __launch_bounds__(kThreads)
    scale_backward_kernel(Tiling g, Chunks chunks, uint32_t channels, const T* x, const float* s,
                          const T* dy, T* dx, double* partial) {
  const Place at(g);
  const int64_t stride = int64_t{g.vectors} * W;
  const int64_t offset =
      (int64_t{blockIdx.z} * chunks.rows + blockIdx.y * chunks.each) * stride + at.vector * W;
  float sum[W] = {};
  if (at.active) {
    float factor[W];
    factors<W>(s, blockIdx.z, at, channels, factor);
    const uint32_t size = chunks.size(blockIdx.y);
    for (uint32_t row = at.row; row < size; row += g.rows) {
      Pack<W> v = load<W>(x + offset + row * stride), d = load<W>(dy + offset + row * stride);
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) {
        sum[k] += v.v[k] * d.v[k];
        d.v[k] *= factor[k];
      }
      if (dx != nullptr) store<W>(dx + offset + row * stride, d);
    }
  }
  double total[W];
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) total[k] = sum[k];
  sum_rows<W>(g, at, total);
  if (at.row != 0 || !at.active) return;
  double* out = partial + (int64_t{blockIdx.z} * chunks.count + blockIdx.y) * stride;
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) out[at.vector * W + k] = total[k];
}

__global__ void __launch_bounds__(kThreads)
    scale_sums_kernel(int64_t count, uint32_t channels, uint32_t chunks, int64_t stride,
                      const double* partial, float* ds) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const double* from = partial + i / channels * chunks * stride + i % channels;
  double sum = 0;
  for (uint32_t chunk = 0; chunk < chunks; ++chunk) sum += from[chunk * stride];
  ds[i] = static_cast<float>(sum);
}

Chunks chunks_of(const Map& map, const Tiling& g) { return Chunks(map.t * map.f, g); }
Tiling tiling_of(const Map& map) { return Tiling(map.c == 1 ? 1 : map.channels() / kChannelBlock); }

}  // namespace

void scale(const Launch& launch, const Map& map, const void* x, const float* s, void* y) {
  const int64_t rows = map.t * map.f;
  expect_indexable(map.pixels(), "scale");
  const Tiling g = tiling_of(map);
  with_width(map, [&](auto element, auto width) {
    using T = decltype(element);
    enqueue(launch, "scale", scale_kernel<T, width>,
            {.x = g.tiles, .y = g.stacks(launch, rows), .z = map.n}, g, static_cast<uint32_t>(rows),
            static_cast<uint32_t>(map.c), static_cast<const T*>(x), s, static_cast<T*>(y));
  });
}

int64_t scale_backward_workspace(const Map& map) {
  return map.n * chunks_of(map, tiling_of(map)).count * map.channels() *
         static_cast<int64_t>(sizeof(double));
}

void scale_backward(const Launch& launch, const Map& map, const void* x, const float* s,
                    const void* dy, void* dx, float* ds, void* workspace) {
  expect_indexable(map.pixels(), "scale_backward");
  const Tiling g = tiling_of(map);
  const Chunks chunks = chunks_of(map, g);
  auto* partial = static_cast<double*>(workspace);
  const auto channels = static_cast<uint32_t>(map.c);
  with_width(map, [&](auto element, auto width) {
    using T = decltype(element);
    enqueue(
        launch, "scale_backward", scale_backward_kernel<T, width>,
        {.x = g.tiles, .y = chunks.count, .z = map.n, .shared = width * kThreads * sizeof(double)},
        g, chunks, channels, static_cast<const T*>(x), s, static_cast<const T*>(dy),
        static_cast<T*>(dx), partial);
  });
  if (ds == nullptr) return;
  enqueue(launch, "scale_backward", scale_sums_kernel, {.x = ceil_div(map.n * map.c, kThreads)},
          map.n * map.c, channels, chunks.count, map.channels(),
          static_cast<const double*>(partial), ds);
}

}  // namespace panns::cuda
