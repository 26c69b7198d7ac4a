// Reductions of a feature map: mean over F, and the heads' max, mean or max + mean over T.
#pragma once

#include <cstdint>

#include "backends/cpu/layout.h"
#include "backends/cpu/tier.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

// (N, C, T, F) to the map (N, C, T, 1). Reads x once.
void mean_over_freq(ThreadPool& pool, const Map& map, const float* x, float* y, Tier t = tier());
// dx = dy / F. Writes dx once.
void mean_over_freq_backward(ThreadPool& pool, const Map& map, const float* dy, float* dx,
                             Tier t = tier());

enum class TimeReduce { max, mean, max_mean };

// The map (N, C, T, 1) to dense (N, C). Throws ERR_PANNS_SHAPE unless F is 1.
void reduce_time(ThreadPool& pool, TimeReduce kind, const Map& map, const float* x, float* y,
                 Tier t = tier());
// The max sends its gradient to the first maximum, as PyTorch does. x is not read by mean.
void reduce_time_backward(ThreadPool& pool, TimeReduce kind, const Map& map, const float* x,
                          const float* dy, float* dx, Tier t = tier());

struct ReduceKernels {
  // y[i] = mean over f < count of x[f * stride + i], i < size
  void (*mean)(const float* x, int64_t count, int64_t stride, float* y, int64_t size);
  // x[f * stride + i] = y[i] / count
  void (*spread)(const float* y, int64_t count, int64_t stride, float* x, int64_t size);
  // One panel of `rows` rows of 16 floats to 16 floats, and back.
  void (*time)(TimeReduce kind, const float* x, int64_t rows, float* y);
  void (*time_backward)(TimeReduce kind, const float* x, const float* dy, int64_t rows, float* dx);
};
PANNS_TIERED(ReduceKernels, reduce_kernels)

}  // namespace panns::cpu
