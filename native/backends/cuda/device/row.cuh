// A block a row of a dense array: sums and maxima over the row, the same in every thread.
#pragma once

#include "backends/cuda/device/tile.cuh"

namespace panns::cuda {

struct Add {
  template <typename V>
  PANNS_DEVICE V operator()(V a, V b) const {
    return a + b;
  }
};
// Lets a NaN through, as a comparison of either side with one is false.
struct Max {
  PANNS_DEVICE float operator()(float a, float b) const { return a > b || is_nan(a) ? a : b; }
};

template <typename V, typename F>
PANNS_DEVICE V warp_reduce(V x, const F& f) {
  PANNS_UNROLL
  for (int mask = kWarp / 2; mask > 0; mask /= 2) x = f(x, __shfl_xor_sync(~0u, x, mask));
  return x;
}

// Over all threads of the block, in a fixed order. Shared memory: kThreads / kWarp values.
template <typename V, typename F>
PANNS_DEVICE V block_reduce(V x, const F& f) {
  V* shared = shared_memory<V>();
  x = warp_reduce(x, f);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = shared[0];
  for (int i = 1; i < kThreads / kWarp; ++i) x = f(x, shared[i]);
  __syncthreads();  // so that the next one may write
  return x;
}
constexpr size_t kReduceBytes = kThreads / kWarp * sizeof(double);

// The maximum of a row and the sum of exp(x - maximum).
struct ExpSum {
  float maximum;
  double sum;
};
PANNS_DEVICE ExpSum exp_sum(const float* x, int64_t k) {
  float maximum = -INFINITY;
  for (int64_t i = threadIdx.x; i < k; i += kThreads) maximum = Max{}(maximum, x[i]);
  maximum = block_reduce(maximum, Max{});
  float sum = 0;
  for (int64_t i = threadIdx.x; i < k; i += kThreads) sum += expf(x[i] - maximum);
  return {maximum, block_reduce(static_cast<double>(sum), Add{})};
}

}  // namespace panns::cuda
