#include "backends/cuda/cudnn_api.h"

#include <dlfcn.h>

#include <mutex>
#include <utility>

#include "core/error.h"

namespace panns::cuda {
namespace {

struct State {
  std::mutex mutex;
  bool loaded = false;
  CudnnApi api;
};

State& state() {
  static State* s = new State;  // never destroyed: a job may compute while the process exits
  return *s;
}

template <typename Function>
void bind(const Library& library, const char* name, Function& function, std::string& missing) {
  function = reinterpret_cast<Function>(library.function(name));
  if (function == nullptr && missing.empty()) missing = cat("it has no function ", name);
}

std::string version_text_of(size_t version) {
  return cat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

// The library of that name is a door: its functions look for libcudnn_graph.so.9 when they are
// called, and end the process where there is none. Returns why they cannot be called, or "".
std::string missing_graph(const Library& library) {
  const std::string soname = "libcudnn_graph.so.9";
  const size_t slash = library.path.rfind('/');
  const std::string beside = library.path.substr(0, slash + 1) + soname;
  // As cuDNN itself looks: in its own folder, then where the system does.
  if (dlopen(beside.c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) return "";
  const char* text = dlerror();
  const std::string reason = text != nullptr ? text : beside;
  if (dlopen(soname.c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) return "";
  return cat(library.path, " is not complete: ", reason);
}

// Opens what cuDNN will ask for by soname, and then get: it may lie where the loader would not
// look.
void open_companions(CudnnApi& api) {
  if (!api.nvrtc.loaded()) {
    const std::string builtins = cat("libnvrtc-builtins.so.", api.cuda_major, ".*");
    api.nvrtc = open_library(api.nvrtc_soname(), {builtins});
  }
  if (!api.cublaslt.loaded()) api.cublaslt = open_library(api.cublaslt_soname());
}

std::string missing(const Library& library, const char* name, const std::string& soname) {
  if (library.loaded()) return "";
  return cat(name, " (", soname,
             ", as cuDNN asks for it) was not found. Tried:", attempts_text(library.attempts));
}

// Returns why not, or an empty string and a complete api.
std::string load(CudnnApi& api) {
  api.library = open_library("libcudnn.so.9");
  if (!api.library.loaded()) {
    return cat("cuDNN 9 was not found. Tried:", attempts_text(api.library.attempts));
  }
  if (const std::string reason = missing_graph(api.library); !reason.empty()) return reason;
  std::string missing;
  bind(api.library, "cudnnGetVersion", api.get_version, missing);
  bind(api.library, "cudnnGetCudartVersion", api.get_cudart_version, missing);
  bind(api.library, "cudnnGetErrorString", api.error_string, missing);
  bind(api.library, "cudnnGetLastErrorString", api.last_error, missing);
  bind(api.library, "cudnnCreate", api.create, missing);
  bind(api.library, "cudnnDestroy", api.destroy, missing);
  bind(api.library, "cudnnSetStream", api.set_stream, missing);
  bind(api.library, "cudnnBackendCreateDescriptor", api.create_descriptor, missing);
  bind(api.library, "cudnnBackendDestroyDescriptor", api.destroy_descriptor, missing);
  bind(api.library, "cudnnBackendFinalize", api.finalize, missing);
  bind(api.library, "cudnnBackendSetAttribute", api.set_attribute, missing);
  bind(api.library, "cudnnBackendGetAttribute", api.get_attribute, missing);
  bind(api.library, "cudnnBackendExecute", api.execute, missing);
  if (!missing.empty()) return cat(api.library.path, " cannot be used: ", missing);
  api.version = api.get_version();
  if (api.version < kOldestCudnn) {
    return cat(api.library.path, " is cuDNN ", version_text_of(api.version), "; expected ",
               version_text_of(kOldestCudnn), " or newer");
  }
  api.cuda_major = api.get_cudart_version() / 1000;
  open_companions(api);
  return "";
}

}  // namespace

std::string CudnnApi::version_text() const { return version_text_of(version); }

std::string CudnnApi::nvrtc_soname() const { return cat("libnvrtc.so.", cuda_major); }

std::string CudnnApi::cublaslt_soname() const { return cat("libcublasLt.so.", cuda_major); }

std::string CudnnApi::missing_nvrtc() const { return missing(nvrtc, "NVRTC", nvrtc_soname()); }

std::string CudnnApi::missing_cublaslt() const {
  return missing(cublaslt, "cuBLASLt", cublaslt_soname());
}

std::string CudnnApi::words(cudnnStatus_t status) const {
  char detail[1024] = "";
  last_error(detail, sizeof(detail));
  return cat(error_string(status), detail[0] != '\0' ? ", " : "", detail);
}

void CudnnApi::check(cudnnStatus_t status, const char* call) const {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw Error("ERR_PANNS_DEVICE", "cuda",
              cat(call, " failed: ", words(status), " (cuDNN ", version_text(), ")"));
}

const CudnnApi& try_cudnn(std::string& reason) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  reason.clear();
  if (!s.loaded) {
    reason = load(s.api);
    s.loaded = reason.empty();
  } else {
    open_companions(s.api);  // they may have been installed meanwhile
  }
  return s.api;
}

const CudnnApi& cudnn() {
  std::string reason;
  const CudnnApi& api = try_cudnn(reason);
  if (reason.empty()) reason = api.missing_cublaslt();
  PANNS_CHECK(reason.empty(), "ERR_PANNS_CUDA_UNAVAILABLE", "cuda", reason);
  return api;
}

Descriptor::Descriptor(const CudnnApi& api, cudnnBackendDescriptorType_t type) : api_(&api) {
  api.check(api.create_descriptor(type, &raw_), "cudnnBackendCreateDescriptor");
}

Descriptor::~Descriptor() {
  if (raw_ != nullptr) api_->destroy_descriptor(raw_);
}

Descriptor::Descriptor(Descriptor&& other) noexcept
    : api_(other.api_), raw_(std::exchange(other.raw_, nullptr)) {}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(api_, other.api_);
  std::swap(raw_, other.raw_);
  return *this;
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                            int64_t count, const void* values) {
  api_->check(api_->set_attribute(raw_, name, type, count, values), "cudnnBackendSetAttribute");
  return *this;
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, const std::vector<int64_t>& values) {
  return set(name, CUDNN_TYPE_INT64, static_cast<int64_t>(values.size()), values.data());
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, int64_t value) {
  return set(name, CUDNN_TYPE_INT64, 1, &value);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, bool value) {
  return set(name, CUDNN_TYPE_BOOLEAN, 1, &value);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, float value) {
  return set(name, CUDNN_TYPE_FLOAT, 1, &value);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnDataType_t value) {
  return set(name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, const Descriptor& value) {
  return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.raw_);
}

Descriptor& Descriptor::finalize() {
  api_->check(api_->finalize(raw_), "cudnnBackendFinalize");
  return *this;
}

bool Descriptor::try_finalize(std::string* reason) {
  const cudnnStatus_t status = api_->finalize(raw_);
  if (status == CUDNN_STATUS_SUCCESS) return true;
  if (reason != nullptr) {
    char detail[1024] = "";
    api_->last_error(detail, sizeof(detail));
    *reason = detail[0] != '\0' ? detail : api_->error_string(status);
  }
  return false;
}

int64_t Descriptor::get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                        int64_t room, void* values) const {
  int64_t count = 0;
  api_->check(api_->get_attribute(raw_, name, type, room, &count, values),
              "cudnnBackendGetAttribute");
  return count;
}

int64_t Descriptor::get_int64(cudnnBackendAttributeName_t name) const {
  int64_t value = 0;
  get(name, CUDNN_TYPE_INT64, 1, &value);
  return value;
}

std::string Descriptor::get_text(cudnnBackendAttributeName_t name) const {
  std::string text(static_cast<size_t>(get(name, CUDNN_TYPE_CHAR, 0, nullptr)), '\0');
  const int64_t count = get(name, CUDNN_TYPE_CHAR, static_cast<int64_t>(text.size()), text.data());
  text.resize(static_cast<size_t>(count));
  return text;
}

}  // namespace panns::cuda
