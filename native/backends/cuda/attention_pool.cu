// attention_pool: w(t) = exp(clamp(a(t), -10, 10)), y = sum w x / sum w over t;
// backward: dx = dy w / sum w, da = dx (x - y) inside the clamp.
// Layout: maps [N][T][1][K'], 16-byte accesses of eight classes; one class goes one by one. A block
// has one clip and 32 vectors of classes, its threads a share of the frames each, joined in a fixed
// order. The clamp bounds the weights to 5e-5 ... 2e4, so no maximum need be taken out. Bytes an
// element of b bytes: 2 b forward, 4 b read (half of it from the caches) and 2 b written backward.
// measured: never run on a GPU yet
#include "backends/cuda/attention_pool.h"
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/pack.cuh"
#include "backends/cuda/device/tile.cuh"

namespace panns::cuda {
namespace {

constexpr float kClamp = 10;

PANNS_DEVICE float weight(float a) { return expf(a < -kClamp ? -kClamp : a > kClamp ? kClamp : a); }

// Sums of w and w x over the frames of a clip; the threads of row 0 have them in `sums`, and all
// find them in shared memory, those of channel k at k and W + k.
template <typename T, int W>
PANNS_DEVICE void sums_over_time(const Tiling& g, const Place& at, uint32_t frames, const T* a,
                                 const T* x, float* sums) {
  const int64_t stride = int64_t{g.vectors} * W;
  PANNS_UNROLL
  for (int k = 0; k < 2 * W; ++k) sums[k] = 0;
  if (at.active) {
    for (uint32_t t = at.row; t < frames; t += g.rows) {
      const Pack<W> attention = load<W>(a + t * stride), score = load<W>(x + t * stride);
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) {
        const float w = weight(attention.v[k]);
        sums[k] += w;
        sums[W + k] += w * score.v[k];
      }
    }
  }
  sum_rows<2 * W>(g, at, sums);
}

template <typename T, int W>
__global__ void __launch_bounds__(kThreads)
    attention_pool_kernel(Tiling g, uint32_t frames, uint32_t channels, const T* a, const T* x,
                          float* y) {
  const Place at(g);
  const int64_t offset = (blockIdx.y * frames * int64_t{g.vectors} + at.vector) * W;
  float sums[2 * W];
  sums_over_time<T, W>(g, at, frames, a + offset, x + offset, sums);
  if (at.row != 0 || !at.active) return;
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    const uint32_t c = at.vector * W + k;
    if (c < channels) y[int64_t{blockIdx.y} * channels + c] = sums[W + k] / sums[k];
  }
}

template <typename T, int W>
__global__ void __launch_bounds__(kThreads)
    attention_pool_backward_kernel(Tiling g, uint32_t frames, uint32_t channels, const T* a,
                                   const T* x, const float* dy, T* da, T* dx) {
  const Place at(g);
  const int64_t stride = int64_t{g.vectors} * W;
  const int64_t offset = blockIdx.y * frames * stride + at.vector * W;
  float sums[2 * W];
  sums_over_time<T, W>(g, at, frames, a + offset, x + offset, sums);
  if (!at.active) return;
  const float* found = shared_memory<float>() + threadIdx.x % g.columns;
  float factor[W], mean[W];  // dy / sum w, and y
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    const uint32_t c = at.vector * W + k;
    const float total = found[k * kThreads];
    // Padding: its gradient is 0.
    factor[k] = c < channels ? dy[int64_t{blockIdx.y} * channels + c] / total : 0;
    mean[k] = found[(W + k) * kThreads] / total;
  }
  for (uint32_t t = at.row; t < frames; t += g.rows) {
    const Pack<W> attention = load<W>(a + offset + t * stride);
    const Pack<W> score = load<W>(x + offset + t * stride);
    Pack<W> to_a, to_x;
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) {
      to_x.v[k] = factor[k] * weight(attention.v[k]);
      const bool beyond = attention.v[k] < -kClamp || attention.v[k] > kClamp;
      to_a.v[k] = beyond ? 0.0f : to_x.v[k] * (score.v[k] - mean[k]);
    }
    if (dx != nullptr) store<W>(dx + offset + t * stride, to_x);
    if (da != nullptr) store<W>(da + offset + t * stride, to_a);
  }
}

// Calls body(element, width, tiling, grid).
template <typename Body>
void with_tiles(const Map& map, Body&& body) {
  PANNS_CHECK(map.f == 1, "ERR_PANNS_SHAPE", "attention_pool",
              "expected maps with one frequency bin, got F = ", map.f);
  expect_indexable(map.pixels(), "attention_pool");
  with_width(map, [&](auto element, auto width) {
    const Tiling g(map.channels() / width);
    body(element, width, g,
         Grid{.x = g.tiles, .y = map.n, .shared = 2 * width * kThreads * sizeof(float)});
  });
}

}  // namespace

void attention_pool(const Launch& launch, const Map& map, const void* a, const void* x, float* y) {
  with_tiles(map, [&](auto element, auto width, const Tiling& g, const Grid& grid) {
    using T = decltype(element);
    enqueue(launch, "attention_pool", attention_pool_kernel<T, width>, grid, g,
            static_cast<uint32_t>(map.t), static_cast<uint32_t>(map.c), static_cast<const T*>(a),
            static_cast<const T*>(x), y);
  });
}

void attention_pool_backward(const Launch& launch, const Map& map, const void* a, const void* x,
                             const float* dy, void* da, void* dx) {
  with_tiles(map, [&](auto element, auto width, const Tiling& g, const Grid& grid) {
    using T = decltype(element);
    enqueue(launch, "attention_pool_backward", attention_pool_backward_kernel<T, width>, grid, g,
            static_cast<uint32_t>(map.t), static_cast<uint32_t>(map.c), static_cast<const T*>(a),
            static_cast<const T*>(x), dy, static_cast<T*>(da), static_cast<T*>(dx));
  });
}

}  // namespace panns::cuda
