// The dot products of the resampler, eight at a time: enough independent sums to hide the latency
// of a multiply-add.
#pragma once

#include <cstdint>

#include "backends/cpu/tier.h"

namespace panns::cpu {

constexpr int kResampleDots = 8;
constexpr int64_t kResampleTapsMultiple = 16;  // lanes of the widest tier

constexpr int64_t kResampleWindows = 4;

// Both add in the same order, so that an output does not depend on which of them made it.
struct ResampleKernel {
  // Two rows over four windows: six loads for eight multiply-adds.
  // out[j] = sum over k of first[k] * x[j * stride + k], out[4 + j] the same with second; j in 0..3
  void (*pair)(const float* first, const float* second, const float* x, int64_t stride,
               int64_t taps, float* out);
  // out[j] = sum over k of rows[j][k] * x[j][k], j in 0..7
  void (*separate)(const float* const* rows, const float* const* x, int64_t taps, float* out);
};

PANNS_TIERED(ResampleKernel, resample_kernel)

}  // namespace panns::cpu
