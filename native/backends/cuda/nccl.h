// Processes with a GPU each: sums in device memory through NCCL, opened at run time (dyload.h).
#pragma once

#include <memory>
#include <string>

#include "backends/collective.h"
#include "backends/cuda_library.h"

namespace panns::cuda {

// What the first process makes and all others are told before they join.
std::string nccl_id();

// Waits for all processes. Throws ERR_PANNS_PARALLEL with every place where NCCL was looked for.
std::unique_ptr<backends::Collective> join_processes(const backends::NcclOptions& options);

}  // namespace panns::cuda
