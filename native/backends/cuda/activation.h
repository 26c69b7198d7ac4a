// Elementwise ops over runs of stored elements: activations, their backward, sums, casts. An output
// may be the same array as an input of the same storage. Zeros stay zeros, so padding does; sigmoid
// alone must be told the map.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

// A NaN goes through each of them, forward and backward.
void relu(const Launch& launch, const Run& run, const void* x, void* y);
void relu_backward(const Launch& launch, const Run& run, const void* y, const void* dy, void* dx);
void relu6(const Launch& launch, const Run& run, const void* x, void* y);
void relu6_backward(const Launch& launch, const Run& run, const void* y, const void* dy, void* dx);
void hard_swish(const Launch& launch, const Run& run, const void* x, void* y);
// Reads the input, as the function is not monotonic.
void hard_swish_backward(const Launch& launch, const Run& run, const void* x, const void* dy,
                         void* dx);

void sigmoid(const Launch& launch, int64_t count, const float* x, float* y);
void sigmoid(const Launch& launch, const Map& map, const void* x, void* y);
void sigmoid_backward(const Launch& launch, const Run& run, const void* y, const void* dy,
                      void* dx);

// y = a + b
void add(const Launch& launch, const Run& run, const void* a, const void* b, void* y);

// Rounds to the nearest, ties to even. Between equal types it is a copy.
void cast(const Launch& launch, int64_t count, Storage from, const void* x, Storage to, void* y);

}  // namespace panns::cuda
