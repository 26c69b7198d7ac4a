// softmax and log_softmax over the last dimension of (rows, k), and their backward from the output.
// Outputs may be the inputs. Three passes over a row, which stays in cache.
#pragma once

#include <cstdint>

#include "backends/cpu/tier.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

void softmax(ThreadPool& pool, int64_t rows, int64_t k, const float* x, float* y, Tier t = tier());
// dx = y (dy - sum(dy y))
void softmax_backward(ThreadPool& pool, int64_t rows, int64_t k, const float* y, const float* dy,
                      float* dx, Tier t = tier());
void log_softmax(ThreadPool& pool, int64_t rows, int64_t k, const float* x, float* y,
                 Tier t = tier());
// dx = dy - exp(y) sum(dy)
void log_softmax_backward(ThreadPool& pool, int64_t rows, int64_t k, const float* y,
                          const float* dy, float* dx, Tier t = tier());

struct SoftmaxKernels {
  void (*forward)(const float* x, float* y, int64_t k);
  void (*backward)(const float* y, const float* dy, float* dx, int64_t k);
  // The row's maximum, and the sum of exp(x - maximum).
  void (*exp_sum)(const float* x, int64_t k, float* maximum, double* sum);
  // y = x - shift
  void (*subtract)(const float* x, float shift, float* y, int64_t k);
  void (*log_backward)(const float* y, const float* dy, float* dx, int64_t k);
};
PANNS_TIERED(SoftmaxKernels, softmax_kernels)

}  // namespace panns::cpu
