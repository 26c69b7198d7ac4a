// losses: one float each, summed in double in a fixed order; and their gradients. Predictions and
// targets are dense float32 (N, K) in every precision; targets may be soft.
#pragma once

#include <cstdint>

#include "backends/cuda/launch.h"

namespace panns::backends {
struct StepState;
}

namespace panns::cuda {

// Bytes of scratch for either loss.
int64_t loss_workspace(int64_t n, int64_t k);

// loss = mean over N K of -(y log p + (1 - y) log(1 - p)), both logarithms at least -100 as in
// PyTorch; p in 0 ... 1. A loss that is not finite closes the state's gate; null: none.
void bce(const Launch& launch, int64_t n, int64_t k, const float* p, const float* y, float* loss,
         void* workspace, backends::StepState* state = nullptr);
// dp = (p - y) / max(p (1 - p), 1e-12) / (N K), times *loss_scale: what a 16-bit backward pass
// multiplies its gradients by, so that small ones are not lost. In device memory; null: 1.
void bce_backward(const Launch& launch, int64_t n, int64_t k, const float* p, const float* y,
                  const float* loss_scale, float* dp);

// loss = mean over N of -sum over K of y log_softmax(z)
void cross_entropy(const Launch& launch, int64_t n, int64_t k, const float* z, const float* y,
                   float* loss, void* workspace, backends::StepState* state = nullptr);
// dz = (softmax(z) sum(y) - y) / N, times *loss_scale
void cross_entropy_backward(const Launch& launch, int64_t n, int64_t k, const float* z,
                            const float* y, const float* loss_scale, float* dz);

}  // namespace panns::cuda
