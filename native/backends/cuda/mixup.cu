// mixup: y[i] = lambda[2i] x[2i] + lambda[2i + 1] x[2i + 1]; backward dx[j] = lambda[j] dy[j / 2].
// Layout: clips one after another, eight elements a thread in accesses of 16 bytes where a clip's
// length allows them, else one. Bytes an element of y of b bytes: 2 b read and b written, backward
// b read and 2 b written.
// measured: never run on a GPU yet
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/pack.cuh"
#include "backends/cuda/mixup.h"

namespace panns::cuda {
namespace {

template <typename T, int W>
__global__ void __launch_bounds__(kThreads)
    mixup_kernel(int64_t clip, const T* x, const float* lambda, T* y) {
  const float la = lambda[2 * blockIdx.y], lb = lambda[2 * blockIdx.y + 1];
  x += 2 * blockIdx.y * clip;
  y += blockIdx.y * clip;
  const int64_t step = int64_t{gridDim.x} * kThreads * W;
  for (int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * W; i < clip; i += step) {
    const Pack<W> a = load<W>(x + i), b = load<W>(x + clip + i);
    Pack<W> out;
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) out.v[k] = a.v[k] * la + b.v[k] * lb;
    store<W>(y + i, out);
  }
}

template <typename T, int W>
__global__ void __launch_bounds__(kThreads)
    mixup_backward_kernel(int64_t clip, const T* dy, const float* lambda, T* dx) {
  const float la = lambda[2 * blockIdx.y], lb = lambda[2 * blockIdx.y + 1];
  dy += blockIdx.y * clip;
  dx += 2 * blockIdx.y * clip;
  const int64_t step = int64_t{gridDim.x} * kThreads * W;
  for (int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * W; i < clip; i += step) {
    const Pack<W> g = load<W>(dy + i);
    Pack<W> a, b;
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) {
      a.v[k] = g.v[k] * la;
      b.v[k] = g.v[k] * lb;
    }
    store<W>(dx + i, a);
    store<W>(dx + clip + i, b);
  }
}

// Calls body(element, width, grid).
template <typename Body>
void with_clips(const Launch& launch, int64_t n, const Run& clip, Body&& body) {
  with_storage(clip.type, [&](auto element) {
    const auto grid = [&](int64_t width) {
      return Grid{.x = striding(launch, ceil_div(clip.count, width)).x, .y = n};
    };
    if (clip.count % kChannelBlock == 0) {
      body(element, std::integral_constant<int, 8>{}, grid(8));
    } else {
      body(element, std::integral_constant<int, 1>{}, grid(1));
    }
  });
}

}  // namespace

void mixup(const Launch& launch, int64_t n, const Run& clip, const void* x, const float* lambda,
           void* y) {
  with_clips(launch, n, clip, [&](auto element, auto width, const Grid& grid) {
    using T = decltype(element);
    enqueue(launch, "mixup", mixup_kernel<T, width>, grid, clip.count, static_cast<const T*>(x),
            lambda, static_cast<T*>(y));
  });
}

void mixup_backward(const Launch& launch, int64_t n, const Run& clip, const void* dy,
                    const float* lambda, void* dx) {
  with_clips(launch, n, clip, [&](auto element, auto width, const Grid& grid) {
    using T = decltype(element);
    enqueue(launch, "mixup_backward", mixup_backward_kernel<T, width>, grid, clip.count,
            static_cast<const T*>(dy), lambda, static_cast<T*>(dx));
  });
}

}  // namespace panns::cuda
