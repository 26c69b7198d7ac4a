// spec_augment: y(n, t, f) = 0 inside the clip's stripes, x elsewhere.
// Layout: maps with one channel, [N][T][F] float32, 4-byte accesses side by side. Bytes an element:
// 4 read, 4 written. Every block draws its clip's stripes: two calls of Philox.
// measured: never run on a GPU yet
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/stripes.cuh"

namespace panns::cuda {
namespace {

__global__ void __launch_bounds__(kThreads)
    spec_augment_kernel(SpecAugment augment, uint32_t frames, Divisor bins,
                        const backends::StepState* state, const float* x, float* y) {
  const Stripes stripes(augment, state, blockIdx.y, frames, bins.divisor());
  const uint32_t size = frames * bins.divisor(), step = gridDim.x * kThreads;
  const int64_t clip = int64_t{blockIdx.y} * size;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < size; i += step) {
    const Division at = divide(i, bins);
    const bool covered = stripes.cover_frame(at.quotient) || stripes.cover_bin(at.rest);
    y[clip + i] = covered ? 0.0f : x[clip + i];
  }
}

}  // namespace

void spec_augment(const Launch& launch, const SpecAugment& augment, const Map& map,
                  const backends::StepState* state, const float* x, float* y) {
  PANNS_CHECK(map.c == 1, "ERR_PANNS_SHAPE", "spec_augment",
              "expected a map with C = 1, got C = ", map.c,
              "; it belongs after bn0, before the first convolution");
  expect_indexable(map.t * map.f, "spec_augment");
  // A thread has some elements, to pay for drawing the stripes.
  constexpr int64_t kEach = 8;
  enqueue(launch, "spec_augment", spec_augment_kernel,
          {.x = ceil_div(map.t * map.f, kThreads * kEach), .y = map.n}, augment,
          static_cast<uint32_t>(map.t), Divisor(map.f), state, x, y);
}

}  // namespace panns::cuda
