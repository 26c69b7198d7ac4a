// attention_pool: maps (N, K, T, 1), attention a and scores x, to dense (N, K): the mean of x over
// time, weighted by the softmax over time of a clamped to -10 ... 10.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

void attention_pool(const Launch& launch, const Map& map, const void* a, const void* x, float* y);
// da and dx may each be null where nothing needs them. Where a lies beyond the clamp da is 0.
void attention_pool_backward(const Launch& launch, const Map& map, const void* a, const void* x,
                             const float* dy, void* da, void* dx);

}  // namespace panns::cuda
