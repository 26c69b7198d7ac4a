// Whether a plan runs on this device, and how long it takes.
#pragma once

#include <optional>

#include "backends/cuda/plans.h"
#include "backends/cuda/stream.h"

namespace panns::cuda {

// The first run of a plan, outside of any capture, and waited for: it loads the engine's kernels,
// and an engine that could be built may still fail. False, with cuDNN's reason, where it failed and
// the device is as before. Throws DeviceLost where the device is not.
bool first_run(const Target& target, CudaStream& stream, const ConvGraph& graph, const Plan& plan,
               const BoundPlan& bound, std::string* reason);

// Runs the plan on scratch buffers of random values: zeros would flatter it, as they draw less
// power. The time is the median of some batches of runs. Nothing, with the reason, where the engine
// failed.
std::optional<Plans::Measurement> measure_plan(const Target& target, int ordinal,
                                               const ConvGraph& graph, const Plan& plan,
                                               std::string* reason);

}  // namespace panns::cuda
