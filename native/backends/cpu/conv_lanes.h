// The generic convolution's kernels, defined in conv_lanes.simd.cpp for each tier.
#pragma once

#include "backends/cpu/conv_kernels.h"

namespace panns::cpu::PANNS_TIER {

void conv_lane_row(const ConvLaneRow& r);
void conv_weight_lanes(const ConvWeightLanes& r);

}  // namespace panns::cpu::PANNS_TIER
