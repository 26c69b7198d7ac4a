// losses: one float each, accumulated in double over rows in index order; and their gradients for
// an upstream gradient of 1. Predictions and targets are dense (N, K); targets may be soft.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cpu/tier.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

// Bytes of scratch for either loss: one double a row.
int64_t loss_workspace(int64_t n);

// loss = mean over N K of -(y log p + (1 - y) log(1 - p)), both logarithms at least -100 as in
// PyTorch; p in 0 ... 1.
void bce(ThreadPool& pool, int64_t n, int64_t k, const float* p, const float* y, float* loss,
         std::byte* workspace);
// dp = (p - y) / max(p (1 - p), 1e-12) / (N K)
void bce_backward(ThreadPool& pool, int64_t n, int64_t k, const float* p, const float* y,
                  float* dp);
// The gradient of bce(sigmoid(z), y) in z, from p = sigmoid(z): (p - y) / (N K).
void sigmoid_bce_backward(ThreadPool& pool, int64_t n, int64_t k, const float* p, const float* y,
                          float* dz);

// loss = mean over N of -sum over K of y log_softmax(z)
void cross_entropy(ThreadPool& pool, int64_t n, int64_t k, const float* z, const float* y,
                   float* loss, std::byte* workspace, Tier t = tier());
// dz = (softmax(z) sum(y) - y) / N
void cross_entropy_backward(ThreadPool& pool, int64_t n, int64_t k, const float* z, const float* y,
                            float* dz, Tier t = tier());

}  // namespace panns::cpu
