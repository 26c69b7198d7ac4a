// attention_pool: maps a and x (N, K, T, 1) to dense (N, K): the mean of x over time, weighted by
// softmax over time of a clamped to -10 ... 10. The clamp bounds every term between e^-10 and
// e^10, so no maximum is taken off first. Reads a and x once forward, three times backward.
#pragma once

#include "backends/cpu/layout.h"
#include "backends/cpu/tier.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

// Throws ERR_PANNS_SHAPE unless F is 1.
void attention_pool(ThreadPool& pool, const Map& map, const float* a, const float* x, float* y,
                    Tier t = tier());
// da is zero where a was clamped, as in PyTorch. Either output may be null.
void attention_pool_backward(ThreadPool& pool, const Map& map, const float* a, const float* x,
                             const float* dy, float* da, float* dx, Tier t = tier());

struct AttentionPoolKernels {
  // One panel of `rows` rows of 16 floats to 16 floats, and back; da or dx may be null.
  void (*forward)(const float* a, const float* x, int64_t rows, float* y);
  void (*backward)(const float* a, const float* x, const float* dy, int64_t rows, float* da,
                   float* dx);
};
PANNS_TIERED(AttentionPoolKernels, attention_pool_kernels)

}  // namespace panns::cpu
