// The device behind the library's entry.
#pragma once

#include <memory>

#include "backends/cuda_library.h"

namespace panns::cuda {

// The driver, the device and the libraries were looked at before (describe in library.cpp).
std::unique_ptr<backends::Device> make_device(const backends::CudaOptions& options);

}  // namespace panns::cuda
