// Which device a caller asks for.
#pragma once

#include <napi.h>

#include <memory>

#include "backends/backend.h"
#include "backends/cuda_library.h"

namespace panns::bindings {

struct DeviceChoice {
  std::string kind = "cpu";  // cpu, cuda, null
  int threads = 0;
  size_t memory_limit = 0;  // of the null device; 0: none
  backends::CudaOptions cuda;
};

// {device, threads[, memoryLimit, index, precision, deterministic, measurePlans, pairBins]}; throws
// ERR_PANNS_DEVICE and ERR_PANNS_OPTION.
DeviceChoice to_device_choice(const Napi::Value& value);

// Opening a GPU takes up to a second: not for the event loop.
std::unique_ptr<backends::Device> make_device(const DeviceChoice& choice);

// cudaStatus
Napi::Value cuda_status(const Napi::CallbackInfo& info);

}  // namespace panns::bindings
