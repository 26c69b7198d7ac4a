// bce:           loss = mean over N K of -(y log p + (1 - y) log(1 - p)), logarithms >= -100
// cross_entropy: loss = mean over N of -sum over K of y log_softmax(z)
// Dense float32 (N, K), 4-byte accesses side by side; logarithms in float, sums in double, in two
// stages and a fixed order. Bytes an element: 8 read forward; 8 read and 4 written backward.
// measured: never run on a GPU yet
#include "backends/backend.h"
#include "backends/cuda/device/row.cuh"
#include "backends/cuda/losses.h"

namespace panns::cuda {
namespace {

// Elements of a partial sum of bce: 16 a thread, so a batch of PANNs makes a handful of blocks.
constexpr int64_t kChunk = 16 * kThreads;

// In this order a NaN stays.
PANNS_DEVICE float clamped(float logarithm) { return logarithm < -100 ? -100.0f : logarithm; }

__global__ void __launch_bounds__(kThreads)
    bce_kernel(int64_t count, const float* p, const float* y, double* partial) {
  const int64_t begin = blockIdx.x * kChunk, end = smaller(begin + kChunk, count);
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    sum -= y[i] * clamped(logf(p[i])) + (1 - y[i]) * clamped(log1pf(-p[i]));
  }
  sum = block_reduce(sum, Add{});
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    mean_kernel(int64_t partials, const double* partial, double count, float* loss,
                backends::StepState* state) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < partials; i += kThreads) sum += partial[i];
  sum = block_reduce(sum, Add{});
  if (threadIdx.x != 0) return;
  const float mean = static_cast<float>(sum / count);
  *loss = mean;
  if (state != nullptr && !is_finite(mean)) state->gate = mean;
}

PANNS_DEVICE float scale_of(const float* loss_scale) {
  return loss_scale == nullptr ? 1.0f : *loss_scale;
}

__global__ void __launch_bounds__(kThreads)
    bce_backward_kernel(int64_t count, const float* p, const float* y, const float* loss_scale,
                        float* dp) {
  const float share = scale_of(loss_scale) / static_cast<float>(count);
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const float spread = (1 - p[i]) * p[i];
    dp[i] = (p[i] - y[i]) / (spread < 1e-12f ? 1e-12f : spread) * share;
  }
}

__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(int64_t k, const float* z, const float* y, double* partial) {
  z += blockIdx.x * k;
  y += blockIdx.x * k;
  const ExpSum row = exp_sum(z, k);
  const double log_sum = log(row.sum);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < k; i += kThreads) {
    // A zero target takes no part, even where its logit is -infinity.
    if (y[i] != 0) sum -= y[i] * (double{z[i]} - row.maximum - log_sum);
  }
  sum = block_reduce(sum, Add{});
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    cross_entropy_backward_kernel(int64_t n, int64_t k, const float* z, const float* y,
                                  const float* loss_scale, float* dz) {
  z += blockIdx.x * k;
  y += blockIdx.x * k;
  dz += blockIdx.x * k;
  const float share = scale_of(loss_scale) / static_cast<float>(n);
  const ExpSum row = exp_sum(z, k);
  double total = 0;
  for (int64_t i = threadIdx.x; i < k; i += kThreads) total += y[i];
  const float factor = static_cast<float>(block_reduce(total, Add{}) / row.sum);
  for (int64_t i = threadIdx.x; i < k; i += kThreads) {
    dz[i] = (expf(z[i] - row.maximum) * factor - y[i]) * share;
  }
}

void mean(const Launch& launch, const char* name, int64_t partials, const double* partial,
          int64_t count, float* loss, backends::StepState* state) {
  enqueue(launch, name, mean_kernel, {.x = 1, .shared = kReduceBytes}, partials, partial,
          static_cast<double>(count), loss, state);
}

}  // namespace

int64_t loss_workspace(int64_t n, int64_t k) {
  return larger(n, ceil_div(n * k, kChunk)) * static_cast<int64_t>(sizeof(double));
}

void bce(const Launch& launch, int64_t n, int64_t k, const float* p, const float* y, float* loss,
         void* workspace, backends::StepState* state) {
  auto* partial = static_cast<double*>(workspace);
  const int64_t chunks = ceil_div(n * k, kChunk);
  enqueue(launch, "bce", bce_kernel, {.x = chunks, .shared = kReduceBytes}, n * k, p, y, partial);
  mean(launch, "bce", chunks, partial, n * k, loss, state);
}
void bce_backward(const Launch& launch, int64_t n, int64_t k, const float* p, const float* y,
                  const float* loss_scale, float* dp) {
  enqueue(launch, "bce_backward", bce_backward_kernel, striding(launch, n * k), n * k, p, y,
          loss_scale, dp);
}

void cross_entropy(const Launch& launch, int64_t n, int64_t k, const float* z, const float* y,
                   float* loss, void* workspace, backends::StepState* state) {
  auto* partial = static_cast<double*>(workspace);
  enqueue(launch, "cross_entropy", cross_entropy_kernel, {.x = n, .shared = kReduceBytes}, k, z, y,
          partial);
  mean(launch, "cross_entropy", n, partial, n, loss, state);
}
void cross_entropy_backward(const Launch& launch, int64_t n, int64_t k, const float* z,
                            const float* y, const float* loss_scale, float* dz) {
  enqueue(launch, "cross_entropy_backward", cross_entropy_backward_kernel,
          {.x = n, .shared = kReduceBytes}, n, k, z, y, loss_scale, dz);
}

}  // namespace panns::cuda
