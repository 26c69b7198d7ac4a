// How long a plan takes on this device.
#pragma once

#include "backends/cuda/plans.h"

namespace panns::cuda {

// Runs the plan on scratch buffers of random values: zeros would flatter it, as they draw less
// power. The time is the median of some batches of runs.
Plans::Measurement measure_plan(const Target& target, int ordinal, const ConvGraph& graph,
                                const Plan& plan);

}  // namespace panns::cuda
