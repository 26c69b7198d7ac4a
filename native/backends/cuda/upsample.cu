// upsample: y(n, t, k) = x(n, k, min(t / ratio, S - 1)).
// Layout: x a map [N][S][1][K'], y dense float32 [N][T][K]; a thread an element, side by side along
// the classes, which eight need not divide. Bytes an element: 4 written, and a map's b / ratio
// read. measured: never run on a GPU yet
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/pack.cuh"
#include "backends/cuda/upsample.h"

namespace panns::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kThreads)
    upsample_kernel(uint32_t count, Divisor channels, Divisor frames, Divisor ratio,
                    uint32_t segments, int64_t stride, const T* x, float* y) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += step) {
    const Division row = divide(i, channels), clip = divide(row.quotient, frames);
    const uint32_t segment = smaller(ratio.quotient(clip.rest), segments - 1);
    const int64_t pixel = int64_t{clip.quotient} * segments + segment;
    y[i] = to_float(x[pixel * stride + row.rest]);
  }
}

}  // namespace

void upsample(const Launch& launch, int64_t ratio, int64_t frames, const Map& map, const void* x,
              float* y) {
  const int64_t count = map.n * frames * map.c;
  expect_indexable(larger(count, ratio), "upsample");
  with_storage(map.storage(), [&](auto element) {
    using T = decltype(element);
    enqueue(launch, "upsample", upsample_kernel<T>, striding(launch, count),
            static_cast<uint32_t>(count), Divisor(map.c), Divisor(frames), Divisor(ratio),
            static_cast<uint32_t>(map.t), map.channels(), static_cast<const T*>(x), y);
  });
}

}  // namespace panns::cuda
