// What the depthwise convolution asks of the instruction-set tiers: each of 16 lanes is a channel
// of its own, so that a row of outputs is a short filter along time, summed over some source rows.
// All offsets and steps count floats unless they say pixels.
#pragma once

#include <stdint.h>

#include "backends/cpu/tier.h"

namespace panns::cpu {

constexpr int64_t kDepthwiseTaps = 5;   // along time, at most
constexpr int64_t kDepthwiseRows = 16;  // kernel positions along frequency, at most

// y[p] = start + sum over rows and taps of x[row][at + p * step + tap] * w[row][tap], 16 lanes;
// pixels of x outside [0, length) are zero.
struct DepthwiseGather {
  const float* x[kDepthwiseRows];
  const float* w[kDepthwiseRows];
  int64_t rows;
  int64_t taps, w_tap;
  int64_t at, step, length;  // pixels; step is 1 or 2
  float* y;
  int64_t y_pixel;
  int64_t pixels;
  const float* start;  // 16 floats
  bool relu;
};

// dw[row][tap] += sum over p of x[row][at + p * step + tap] * dy[p], 16 lanes.
struct DepthwiseWeight {
  const float* x[kDepthwiseRows];
  float* dw[kDepthwiseRows];
  int64_t rows;
  int64_t taps;
  int64_t at, step, length;
  const float* dy;
  int64_t pixels;
};

struct DepthwiseKernels {
  void (*gather)(const DepthwiseGather&);
  void (*weight)(const DepthwiseWeight&);
};
PANNS_TIERED(DepthwiseKernels, depthwise_kernels)

}  // namespace panns::cpu
