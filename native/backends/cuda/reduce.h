// Reductions of a feature map: over F, and over T; mean, maximum or maximum plus mean. A maximum
// lets NaN through and sends its gradient to the first one, as PyTorch does.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

// (N, C, T, F) to the map (N, C, T, 1): the mean.
void mean_over_freq(const Launch& launch, const Map& map, const void* x, void* y);
// dx = dy / F
void mean_over_freq_backward(const Launch& launch, const Map& map, const void* dy, void* dx);

enum class TimeReduce : uint8_t { mean, max, max_mean };

// The map (N, C, T, 1) to dense (N, C).
void reduce_time(const Launch& launch, TimeReduce kind, const Map& map, const void* x, float* y);
// x is not read by mean.
void reduce_time_backward(const Launch& launch, TimeReduce kind, const Map& map, const void* x,
                          const float* dy, void* dx);

}  // namespace panns::cuda
