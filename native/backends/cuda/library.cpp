// What panns_cuda.so exports, and what can be said about this machine without using it.
#include <cuda_runtime_api.h>

#include <exception>

#include "backends/cuda/cudnn_api.h"
#include "backends/cuda/make_device.h"
#include "backends/cuda_library.h"
#include "core/error.h"

namespace panns::cuda {
namespace {

using backends::CudaDeviceStatus;
using backends::CudaStatus;

// The oldest chip with machine code in this library: bfloat16 and cuDNN's run-time engines need it.
constexpr int kOldestArchitecture = 80;
// CUDA 13 runs on drivers of its own major version and newer.
constexpr int kOldestDriver = 13000;

std::string version_text(int version) { return cat(version / 1000, ".", version % 1000 / 10); }

bool guard(void (*body)(void*), void* argument, std::string& code, std::string& where,
           std::string& what) {
  const auto tell = [&](const char* c, const std::string& place, const char* text) {
    code = c;
    where = place;
    what = text;
    return false;
  };
  try {
    body(argument);
    return true;
  } catch (const Error& e) {
    // Without the place in front, which the caller's error adds again.
    const std::string full = e.what();
    const size_t skip = e.where().empty() ? 0 : e.where().size() + 2;
    return tell(e.code().c_str(), e.where(), full.c_str() + skip);
  } catch (const std::bad_alloc&) {
    return tell("ERR_PANNS_OUT_OF_MEMORY", "cuda", "expected more memory than the system can give");
  } catch (const std::exception& e) {
    return tell("ERR_PANNS_INTERNAL", "cuda", e.what());
  }
}

// The devices, or why there are none. A runtime that finds no driver at all says that the driver
// is too old; the driver's version, 0 then, tells the two apart.
void find_devices(CudaStatus& status) {
  int driver = 0, runtime = 0, count = 0;
  cudaRuntimeGetVersion(&runtime);
  status.runtime = version_text(runtime);
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  if (driver == 0) {
    status.reason = "there is no NVIDIA driver on this machine (libcuda.so.1 was not found)";
    status.mend =
        "install NVIDIA's driver 580 or newer; inside a container, start it with --gpus all";
    return;
  }
  status.driver = version_text(driver);
  if (driver < kOldestDriver) {
    status.reason = cat("the NVIDIA driver takes CUDA up to ", status.driver,
                        ", and this backend is ", "built with CUDA ", status.runtime);
    status.mend = "update the driver to 580 or newer";
    return;
  }
  const cudaError_t listed = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (listed != cudaSuccess || count == 0) {
    const bool none = listed == cudaSuccess || listed == cudaErrorNoDevice;
    status.reason = none ? std::string("the NVIDIA driver sees no GPU")
                         : cat("the NVIDIA driver does not start: ", cudaGetErrorString(listed),
                               " (", cudaGetErrorName(listed), ")");
    status.mend = "see what nvidia-smi says; CUDA_VISIBLE_DEVICES may hide the GPU";
    return;
  }
  for (int i = 0; i < count; ++i) {
    CudaDeviceStatus d;
    d.index = i;
    cudaDeviceProp p;
    if (const cudaError_t e = cudaGetDeviceProperties(&p, i); e != cudaSuccess) {
      cudaGetLastError();
      d.reason = cudaGetErrorString(e);
    } else {
      d.name = p.name;
      d.architecture = p.major * 10 + p.minor;
      d.multiprocessors = p.multiProcessorCount;
      d.memory_bytes = p.totalGlobalMem;
      if (d.architecture < kOldestArchitecture) {
        d.reason = cat("its compute capability is ", p.major, ".", p.minor, "; expected ",
                       kOldestArchitecture / 10, ".0 or newer");
      }
    }
    status.devices.push_back(d);
  }
}

void describe(CudaStatus& status) {
  status.available = false;
  find_devices(status);
  std::string reason;
  const CudnnApi& api = try_cudnn(reason);
  status.libraries.push_back(
      {"cuDNN", api.library.path, reason.empty() ? api.version_text() : "", reason});
  std::string nvrtc_reason;
  if (!api.nvrtc.loaded()) {
    nvrtc_reason = "NVRTC was not found. Tried:" + attempts_text(api.nvrtc.attempts);
  }
  status.libraries.push_back({"NVRTC", api.nvrtc.path, "", nvrtc_reason});
  if (!status.reason.empty()) return;
  for (const CudaDeviceStatus& d : status.devices) status.available |= d.reason.empty();
  if (!status.available) {
    status.reason = cat("no GPU can be used: ", status.devices.front().name, ": ",
                        status.devices.front().reason);
    return;
  }
  for (const std::string& missing : {reason, nvrtc_reason}) {
    if (missing.empty()) continue;
    status.available = false;
    status.reason = missing;
    status.mend =
        "npm run setup:cuda fetches the libraries; PANNS_CUDA_LIB_DIR names a folder that "
        "has them";
    return;
  }
}

backends::Device* make(const backends::CudaOptions& options) {
  return make_device(options).release();
}

}  // namespace
}  // namespace panns::cuda

extern "C" __attribute__((visibility("default"))) const panns::backends::CudaLibrary*
panns_cuda_library() {
  static const std::string fingerprint = panns::backends::cuda_fingerprint();
  static const panns::backends::CudaLibrary library{fingerprint.c_str(), panns::cuda::guard,
                                                    panns::cuda::describe, panns::cuda::make};
  return &library;
}
