// What panns_cuda.so exports, and what can be said about this machine without using it.
#include <cuda_runtime_api.h>

#include <exception>

#include "backends/cuda/cudnn_api.h"
#include "backends/cuda/dyload.h"
#include "backends/cuda/make_device.h"
#include "backends/cuda/nccl.h"
#include "backends/cuda_library.h"
#include "core/error.h"

namespace panns::cuda {
namespace {

using backends::CudaDeviceStatus;
using backends::CudaStatus;

// The oldest chip with machine code in this library: bfloat16 and cuDNN's run-time engines need it.
constexpr int kOldestArchitecture = 80;
// CUDA 13 runs on drivers of its own major version and newer, of which 580 is the first.
constexpr int kOldestDriver = 13000;
constexpr const char* kDriver = "580";
// Python's packages that have the libraries. Of cuBLAS nothing here is used, but cuDNN asks it for
// its version when it lists engines.
constexpr const char* kLibraryPackages = "nvidia-cudnn-cu13 nvidia-cuda-nvrtc nvidia-cublas";

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

// Why CUDA cannot be used: the first reason found is the one that is told.
void tell(CudaStatus& status, const char* problem, std::string reason, std::string mend) {
  if (!status.problem.empty()) return;
  status.problem = problem;
  status.reason = std::move(reason);
  status.mend = std::move(mend);
}

// What the driver says when it does not start.
void tell_failure(CudaStatus& status, cudaError_t error, const std::string& path) {
  const std::string words = cat(cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  switch (error) {
    case cudaSuccess:  // and yet there is no device
    case cudaErrorNoDevice:
      return tell(status, "device-missing", "the NVIDIA driver sees no GPU",
                  "see what nvidia-smi says; CUDA_VISIBLE_DEVICES may hide the GPU, and a "
                  "container needs --gpus all");
    case cudaErrorStubLibrary:
      return tell(status, "driver-stub",
                  cat(path, " is the toolkit's stand-in for linking: ", words),
                  "take the toolkit's folder `stubs` out of LD_LIBRARY_PATH");
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      return tell(status, "driver-mismatch",
                  cat(path, " does not fit the driver in the system's kernel: ", words),
                  "restart the machine after an update of the driver; where a package cuda-compat "
                  "brought this file, take its folder out of LD_LIBRARY_PATH");
    default:
      return tell(status, "driver-failed", cat("the NVIDIA driver does not start: ", words),
                  "see what nvidia-smi says");
  }
}

CudaDeviceStatus describe_device(int index) {
  CudaDeviceStatus d;
  d.index = index;
  cudaDeviceProp p;
  if (const cudaError_t e = cudaGetDeviceProperties(&p, index); e != cudaSuccess) {
    cudaGetLastError();
    d.reason = cudaGetErrorString(e);
    return d;
  }
  d.name = p.name;
  d.architecture = p.major * 10 + p.minor;
  d.multiprocessors = p.multiProcessorCount;
  d.memory_bytes = p.totalGlobalMem;
  if (d.architecture < kOldestArchitecture) {
    d.reason = cat("its compute capability is ", p.major, ".", p.minor, "; expected ",
                   kOldestArchitecture / 10, ".0 or newer");
  }
  return d;
}

// The driver and its devices, or why there are none. A runtime that finds no driver at all says
// that the driver is too old; the driver's version, 0 then, tells the two apart.
void find_devices(CudaStatus& status) {
  int driver = 0, runtime = 0, count = 0;
  cudaRuntimeGetVersion(&runtime);
  status.runtime = version_text(runtime);
  // Opened by the runtime, if it can be; asked here for its path or for the loader's words.
  const Library library = open_driver();
  backends::CudaLibraryStatus row{"NVIDIA driver", library.path, "", ""};
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  if (driver > 0) row.version = status.driver = version_text(driver);
  if (!library.loaded()) row.reason = cat("not found:", attempts_text(library.attempts));
  status.libraries.push_back(row);
  if (driver == 0) {
    return tell(status, "driver-missing",
                "there is no NVIDIA driver on this machine (libcuda.so.1 was not found)",
                cat("install NVIDIA's driver ", kDriver,
                    " or newer; inside a container, start it with --gpus all"));
  }
  if (driver < kOldestDriver) {
    return tell(status, "driver-old",
                cat("the NVIDIA driver takes CUDA up to ", status.driver, ", and this backend is ",
                    "built with CUDA ", status.runtime),
                cat("update the driver to ", kDriver, " or newer"));
  }
  const cudaError_t listed = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (listed != cudaSuccess || count == 0) return tell_failure(status, listed, library.path);
  bool usable = false;
  for (int i = 0; i < count; ++i) {
    status.devices.push_back(describe_device(i));
    usable |= status.devices.back().reason.empty();
  }
  if (usable) return;
  const CudaDeviceStatus& first = status.devices.front();
  tell(status, "device-old", cat("no GPU can be used: ", first.name, ": ", first.reason),
       "use a GPU of the Ampere generation (2020) or a newer one");
}

std::string nvrtc_version(const Library& nvrtc) {
  const auto ask = reinterpret_cast<int (*)(int*, int*)>(nvrtc.function("nvrtcVersion"));
  int major = 0, minor = 0;
  if (ask == nullptr || ask(&major, &minor) != 0) return "";
  return cat(major, ".", minor);
}

void find_libraries(CudaStatus& status) {
  // Into a virtual environment of Python, which is looked at when it is the active one.
  const auto mend = [](const std::string& packages) {
    return cat("in an active virtual environment of Python: pip install --no-deps ", packages,
               "; or name folders that have the libraries in PANNS_CUDA_LIB_DIRS");
  };
  std::string reason;
  const CudnnApi& api = try_cudnn(reason);
  const bool complete = reason.empty();
  status.libraries.push_back(
      {"cuDNN", api.library.path, complete ? api.version_text() : "", reason});
  if (!complete) {
    const bool absent = !api.library.loaded();
    tell(status, absent ? "cudnn-missing" : "cudnn-unfit", reason, mend(kLibraryPackages));
    // Which NVRTC it would be is not known.
    return;
  }
  const char* suffix = api.cuda_major == 12 ? "-cu12" : "";
  const std::string nvrtc = api.missing_nvrtc(), cublaslt = api.missing_cublaslt();
  if (!nvrtc.empty()) tell(status, "nvrtc-missing", nvrtc, mend(cat("nvidia-cuda-nvrtc", suffix)));
  if (!cublaslt.empty())
    tell(status, "cublas-missing", cublaslt, mend(cat("nvidia-cublas", suffix)));
  status.libraries.push_back({"NVRTC", api.nvrtc.path, nvrtc_version(api.nvrtc), nvrtc});
  status.libraries.push_back({"cuBLASLt", api.cublaslt.path, "", cublaslt});
}

void describe(CudaStatus& status) {
  find_devices(status);
  find_libraries(status);
  status.available = status.problem.empty();
}

backends::Device* make(const backends::CudaOptions& options) {
  return make_device(options).release();
}

void find_nccl(std::string& id, bool make) { id = nccl_id(make); }

backends::Collective* join(const backends::NcclOptions& options) {
  return join_processes(options).release();
}

}  // namespace
}  // namespace panns::cuda

extern "C" __attribute__((visibility("default"))) const panns::backends::CudaLibrary*
panns_cuda_library() {
  static const std::string fingerprint = panns::backends::cuda_fingerprint();
  static const panns::backends::CudaLibrary library{fingerprint.c_str(),    panns::cuda::guard,
                                                    panns::cuda::describe,  panns::cuda::make,
                                                    panns::cuda::find_nccl, panns::cuda::join};
  return &library;
}
