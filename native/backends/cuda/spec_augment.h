// spec_augment (training only): zeroes two stripes of time and two of frequency in each clip of a
// map (N, 1, T, F), as torchlibrosa's SpecAugmentation does (the numbers drawn are our own).
//
// A stripe's width is uniform in [0, width), at most total - 1; its start is uniform in
// [0, total - width). Clip i's draws are elements 8 i ... 8 i + 7 of the node's random stream:
// time width, time start, time width, time start, then the same for frequency.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::backends {
struct StepState;
}

namespace panns::cuda {

struct SpecAugment {
  int64_t time_width = 64, freq_width = 8;
  int32_t mask = 0;  // the node of the random stream
};

// y may be x. The backward pass is the same function of dy. Throws ERR_PANNS_SHAPE unless C is 1.
void spec_augment(const Launch& launch, const SpecAugment& augment, const Map& map,
                  const backends::StepState* state, const float* x, float* y);

}  // namespace panns::cuda
