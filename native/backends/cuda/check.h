// What becomes of an error of the CUDA runtime.
#pragma once

#include <cuda_runtime_api.h>

#include "core/error.h"

namespace panns::cuda {

// Throws ERR_PANNS_DEVICE with the runtime's words unless the call succeeded. The error is cleared
// where it can be, so that the next call does not report it again.
inline void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw Error(
      "ERR_PANNS_DEVICE", "cuda",
      cat(call, " failed: ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")"));
}

#define PANNS_CUDA(call) ::panns::cuda::check((call), #call)

}  // namespace panns::cuda
