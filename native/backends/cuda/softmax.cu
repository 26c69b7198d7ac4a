// softmax: y = exp(x - max) / sum exp(x - max) over the rows of dense float32 (rows, k).
// A block a row, read thrice of which twice from the caches; 4-byte accesses, side by side, as k
// need not be a multiple of four. Bytes an element: 4 read, 4 written.
// measured: never run on a GPU yet
#include "backends/cuda/device/row.cuh"
#include "backends/cuda/softmax.h"

namespace panns::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) softmax_kernel(int64_t k, const float* x, float* y) {
  x += blockIdx.x * k;
  y += blockIdx.x * k;
  const ExpSum row = exp_sum(x, k);
  const float share = static_cast<float>(1 / row.sum);
  for (int64_t i = threadIdx.x; i < k; i += kThreads) y[i] = expf(x[i] - row.maximum) * share;
}

}  // namespace

void softmax(const Launch& launch, int64_t rows, int64_t k, const float* x, float* y) {
  enqueue(launch, "softmax", softmax_kernel, {.x = rows, .shared = kReduceBytes}, k, x, y);
}

}  // namespace panns::cuda
