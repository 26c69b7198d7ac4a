// unsqueeze: samples (N, S) to a map (N, 1, S, 1). fold: a map (N, G * bins, T, 1) to
// (N, G, T, bins), channel g * bins + f becoming bin f of channel g.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

// A map with one channel is float32, as samples are: a copy.
void unsqueeze(const Launch& launch, int64_t samples, const float* x, float* y);

// `folded` is the map (N, G, T, bins).
void fold(const Launch& launch, const Map& folded, const void* x, void* y);
// dx of the map (N, G * bins, T, 1)
void fold_backward(const Launch& launch, const Map& folded, const void* dy, void* dx);

}  // namespace panns::cuda
