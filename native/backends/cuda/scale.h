// scale: a feature map (N, C, T, F) times one factor a channel and clip, dense (N, C).
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

void scale(const Launch& launch, const Map& map, const void* x, const float* s, void* y);

// Bytes of scratch.
int64_t scale_backward_workspace(const Map& map);
// dx = dy s, ds = sum over t and f of dy x; dx and ds may each be null where nothing needs them.
void scale_backward(const Launch& launch, const Map& map, const void* x, const float* s,
                    const void* dy, void* dx, float* ds, void* workspace);

}  // namespace panns::cuda
