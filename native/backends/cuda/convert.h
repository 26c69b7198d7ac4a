// Between row-major float32, as host memory has it, and the device's layout: for import and export,
// at the edges of a program. Padding comes out as zeros.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

// (N, C, T, F)
void import_map(const Launch& launch, const Map& map, const float* rows, void* y);
void export_map(const Launch& launch, const Map& map, const void* x, float* rows);

// (O, I, kT, kF)
void import_filter(const Launch& launch, const Filter& filter, const float* rows, float* w);
void export_filter(const Launch& launch, const Filter& filter, const float* w, float* rows);

// Samples of 16 bits to the floats they stand for, x / 32767, rounded to the nearest as elsewhere.
void widen_samples(const Launch& launch, int64_t count, const int16_t* x, float* y);

// `count` floats and zeros up to `padded`: a bias for a convolution into padded channels.
void copy_padded(const Launch& launch, int64_t count, int64_t padded, const float* x, float* y);

}  // namespace panns::cuda
