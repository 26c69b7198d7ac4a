// cuDNN's functions, bound at run time, and its descriptors as objects. The graph API is used
// through its C interface: the C++ header library over it takes a minute to compile and is not
// needed for the few graphs that are built here.
#pragma once

#include <cudnn_graph.h>

#include <cstdint>
#include <string>
#include <vector>

#include "backends/cuda/dyload.h"

namespace panns::cuda {

struct CudnnApi {
  Library library, nvrtc, cublaslt;
  size_t version = 0;     // 92800 for 9.28.0
  size_t cuda_major = 0;  // of the CUDA that cuDNN was built with: what it opens is of the same
  decltype(&cudnnGetVersion) get_version = nullptr;
  decltype(&cudnnGetCudartVersion) get_cudart_version = nullptr;
  decltype(&cudnnGetErrorString) error_string = nullptr;
  decltype(&cudnnGetLastErrorString) last_error = nullptr;
  decltype(&cudnnCreate) create = nullptr;
  decltype(&cudnnDestroy) destroy = nullptr;
  decltype(&cudnnSetStream) set_stream = nullptr;
  decltype(&cudnnBackendCreateDescriptor) create_descriptor = nullptr;
  decltype(&cudnnBackendDestroyDescriptor) destroy_descriptor = nullptr;
  decltype(&cudnnBackendFinalize) finalize = nullptr;
  decltype(&cudnnBackendSetAttribute) set_attribute = nullptr;
  decltype(&cudnnBackendGetAttribute) get_attribute = nullptr;
  decltype(&cudnnBackendExecute) execute = nullptr;

  std::string version_text() const;
  std::string nvrtc_soname() const;
  std::string cublaslt_soname() const;
  // Why a library that cuDNN opens by name is missing, with every place tried, or "".
  std::string missing_nvrtc() const;
  std::string missing_cublaslt() const;
  // What cuDNN says of a call that returned this: its status, and details where it has any.
  std::string words(cudnnStatus_t status) const;
  // Throws ERR_PANNS_DEVICE with cuDNN's own words unless the status is success.
  void check(cudnnStatus_t status, const char* call) const;
};

// The oldest cuDNN that has every function and attribute used here (device properties as JSON).
constexpr size_t kOldestCudnn = 90800;

// cuDNN, opened at the first call and kept; with it what it opens by name: NVRTC, for its run-time
// engines, and cuBLASLt, without which listing engines ends the process. Throws
// ERR_PANNS_CUDA_UNAVAILABLE with every place tried. A failure is not remembered.
const CudnnApi& cudnn();
// The same without throwing; `reason` is empty when cuDNN itself is loaded.
const CudnnApi& try_cudnn(std::string& reason);

// A backend descriptor: attributes are set, then it is finalized and may be read.
class Descriptor {
 public:
  Descriptor(const CudnnApi& api, cudnnBackendDescriptorType_t type);
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&& other) noexcept;

  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                  const void* values);
  Descriptor& set(cudnnBackendAttributeName_t name, const std::vector<int64_t>& values);
  Descriptor& set(cudnnBackendAttributeName_t name, int64_t value);
  Descriptor& set(cudnnBackendAttributeName_t name, bool value);
  Descriptor& set(cudnnBackendAttributeName_t name, float value);
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnDataType_t value);
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value);
  Descriptor& finalize();
  // Finalizes and says whether that was possible: asking is how cuDNN's support is found out.
  bool try_finalize(std::string* reason = nullptr);

  // How many values there are; fills at most `room` of them.
  int64_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t room,
              void* values) const;
  int64_t get_int64(cudnnBackendAttributeName_t name) const;
  std::string get_text(cudnnBackendAttributeName_t name) const;

  cudnnBackendDescriptor_t raw() const { return raw_; }

 private:
  const CudnnApi* api_;
  cudnnBackendDescriptor_t raw_ = nullptr;
};

}  // namespace panns::cuda
