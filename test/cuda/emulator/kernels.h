// Included before each of native/backends/cuda/*.cu: kernels as plain C++, launched on the emulated
// runtime's streams.
#pragma once

#define PANNS_CUDA_EMULATED

#include <cstdlib>
#include <string_view>
#include <type_traits>

#include "../../native/cuda_on_host.h"
#include "emulator.h"

extern "C" {
PANNS_EMULATOR_API const char* cudaGetErrorName(cudaError_t error);
PANNS_EMULATOR_API const char* cudaGetErrorString(cudaError_t error);
}

namespace cuda_emulator {

constexpr cudaError_t kInvalidValue = 1;

inline const bool order_is_set = [] {
  const char* text = std::getenv("PANNS_EMULATOR_ORDER");
  const std::string_view name = text != nullptr ? text : "ascending";
  using cuda_on_host::Order;
  cuda_on_host::order = name == "descending" ? Order::descending
                        : name == "shuffled" ? Order::shuffled
                                             : Order::ascending;
  return true;
}();

// A kernel can follow no pointer of the host's. (Those inside of structs are met by its accesses.)
template <typename T>
bool fits(CUstream_st* stream, const T& argument) {
  if constexpr (std::is_pointer_v<T>) {
    return argument == nullptr || reachable(stream, argument, 1);
  } else {
    return true;
  }
}

}  // namespace cuda_emulator

template <typename... Params, typename... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               Args... args) {
  if (!(cuda_emulator::fits(config->stream, args) && ...)) {
    return cuda_emulator::refuse(cuda_emulator::kInvalidValue,
                                 "a kernel's argument points to no memory of its device");
  }
  return cuda_emulator::submit(config->stream, [config = *config, kernel, args...] {
    cuda_on_host::run_grid(config, kernel, args...);
  });
}
