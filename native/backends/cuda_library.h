// The CUDA backend as the addon sees it: a library of its own beside the addon, opened at the first
// wish for a GPU. The addon links nothing of NVIDIA's and knows nothing of backends/cuda.
//
// Both sides are built from the same sources by the same compiler, which the fingerprint verifies
// before anything else; so C++ types may cross. Exceptions may not: each side has a C++ runtime of
// its own inside. Whatever the library does is called through its guard, which turns what is thrown
// there into values.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/collective.h"

namespace panns::backends {

struct CudaOptions {
  int index = 0;                   // of the device, in the driver's order
  std::string precision = "fp32";  // fp32, tf32, bf16, fp16
  // The same bits from run to run; false also allows faster engines that differ in the last bits.
  bool deterministic = true;
  bool measure_plans = false;  // time cuDNN's candidates instead of taking its first proposal
  // Convolutions over two bins over pairs of them: measured, always, never (cuda/plans.h).
  std::string pair_bins = "measured";
};

// One of several processes with a GPU each.
struct NcclOptions {
  int index = 0;  // of the device
  int rank = 0, size = 1;
  std::string id;              // what nccl_id() gave the first process
  double timeout_seconds = 0;  // how long to wait for the others; 0: without end
};

// A library that the backend opens at run time, or would.
struct CudaLibraryStatus {
  std::string name, path, version;
  std::string reason;  // why it cannot be used, every place tried; empty when it can
};

struct CudaDeviceStatus {
  int index = 0;
  std::string name;
  int architecture = 0;  // 90 for compute capability 9.0
  int multiprocessors = 0;
  size_t memory_bytes = 0;
  std::string reason;  // why it cannot be used; empty when it can
};

struct CudaStatus {
  bool available = false;
  // Why not, as one of lib/addon.ts' CudaProblem and in words, and the command or the step that
  // mends it; all empty when it is available.
  std::string problem, reason, mend;
  std::string driver;   // the newest CUDA that the driver takes, for example "13.0"; empty: none
  std::string runtime;  // the CUDA that the backend was built with
  std::vector<CudaDeviceStatus> devices;
  std::vector<CudaLibraryStatus> libraries;  // the backend's own, the driver's, cuDNN, NVRTC
};

// What has to be equal on both sides of the boundary.
std::string cuda_fingerprint();

// What the library exports under the name panns_cuda_library: a function that returns this.
struct CudaLibrary {
  const char* fingerprint;
  // Runs body(argument); what it throws comes back in code, where and what, and false is returned.
  bool (*guard)(void (*body)(void*), void* argument, std::string& code, std::string& where,
                std::string& what);
  void (*status)(CudaStatus& status);
  Device* (*make_device)(const CudaOptions& options);
  void (*nccl_id)(std::string& id, bool make);
  Collective* (*join_processes)(const NcclOptions& options);
};

// ---- on the addon's side

// Never throws: a missing GPU, driver or library is told in the status.
CudaStatus cuda_status();
// Throws ERR_PANNS_CUDA_UNAVAILABLE with the status's reason and what mends it.
std::unique_ptr<Device> make_cuda_device(const CudaOptions& options);
// The same; and ERR_PANNS_PARALLEL where NCCL is missing or fails. An identifier is made on
// request.
std::string cuda_nccl_id(bool make);
std::unique_ptr<Collective> join_cuda_processes(const NcclOptions& options);

}  // namespace panns::backends
