// Processes with a GPU each: sums in device memory through NCCL, opened at run time (dyload.h).
#pragma once

#include <memory>
#include <string>

#include "backends/collective.h"
#include "backends/cuda_library.h"

namespace panns::cuda {

// Finds NCCL, and makes what the first process tells all others before they join.
std::string nccl_id(bool make);

// Waits for all processes, as long as the options say. Throws ERR_PANNS_PARALLEL with every place
// where NCCL was looked for.
std::unique_ptr<backends::Collective> join_processes(const backends::NcclOptions& options);

}  // namespace panns::cuda
