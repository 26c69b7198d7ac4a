// Devices, memory, copies and errors.
#include "runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

// The driver's stand-in (test/cuda/stub_libcuda.c), which says the version.
extern "C" int cuDriverGetVersion(int* version);

namespace cuda_emulator {
namespace {

thread_local int chosen_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

size_t number(const char* name, size_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// Page-locked memory of the host.
std::map<const std::byte*, size_t>& pinned() {
  static auto* all = new std::map<const std::byte*, size_t>;
  return *all;
}

bool is_pinned(const void* begin, size_t bytes) {
  const auto* from = static_cast<const std::byte*>(begin);
  const auto next = pinned().upper_bound(from);
  if (next == pinned().begin()) return false;
  const auto& [data, length] = *std::prev(next);
  return bytes <= length && static_cast<size_t>(from - data) <= length - bytes;
}

bool holds(int device, const void* begin, size_t bytes) {
  return device_at(device).memory.holds(begin, bytes);
}

constexpr const char* kInCapture = "a call that may wait for the device, in a capture";

}  // namespace

std::recursive_mutex& mutex() {
  static auto* one = new std::recursive_mutex;
  return *one;
}

// Never destroyed: a job may compute while the process exits.
std::vector<std::unique_ptr<Device>>& devices() {
  static auto* all = [] {
    auto* made = new std::vector<std::unique_ptr<Device>>;
    watch_accesses();
    const auto count = static_cast<int>(number("PANNS_EMULATOR_DEVICES", 1));
    for (int i = 0; i < count; ++i) {
      made->push_back(std::make_unique<Device>(number("PANNS_EMULATOR_MEMORY", size_t{8} << 30)));
      made->back()->first.device = made->back()->pool.device = i;
    }
    return made;
  }();
  return *all;
}

Device& device_at(int ordinal) { return *devices().at(static_cast<size_t>(ordinal)); }
Device& current() { return device_at(chosen_device); }
int current_device() { return chosen_device; }

cudaError_t say(cudaError_t error) { return last_error = error; }

cudaError_t say(cudaError_t error, const char* what) {
  std::fprintf(stderr, "emulated CUDA: %s: %s\n", cudaGetErrorName(error), what);
  return say(error);
}

int refuse(int error, const char* what) { return say(static_cast<cudaError_t>(error), what); }

bool reachable(CUstream_st* stream, const void* begin, size_t bytes) {
  const Lock lock(mutex());
  return bytes == 0 || holds(real(stream)->device, begin, bytes);
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

extern "C" {

cudaError_t cudaGetLastError() { return std::exchange(last_error, current().broken); }

#define ERRORS(row)                                                                                \
  row(cudaSuccess, "no error") row(cudaErrorInvalidValue, "invalid argument")                      \
      row(cudaErrorMemoryAllocation, "out of memory") row(                                         \
          cudaErrorNoDevice, "no CUDA-capable device is detected") row(cudaErrorInvalidDevice,     \
                                                                       "invalid device ordinal")   \
          row(cudaErrorInvalidResourceHandle, "invalid resource handle") row(                      \
              cudaErrorIllegalAddress, "an illegal memory access was encountered")                 \
              row(cudaErrorLaunchFailure, "unspecified launch failure") row(                       \
                  cudaErrorIllegalState, "the operation cannot be performed in the present state") \
                  row(cudaErrorNotReady, "device not ready")                                       \
                      row(cudaErrorNotSupported, "operation not supported")                        \
                          row(cudaErrorStreamCaptureUnsupported,                                   \
                              "operation not permitted when stream is capturing")                  \
                              row(cudaErrorStreamCaptureInvalidated,                               \
                                  "operation failed due to a previous error during capture")       \
                                  row(cudaErrorStreamCaptureIsolation,                             \
                                      "dependency created on uncaptured work in another stream")   \
                                      row(cudaErrorStreamCaptureWrongThread,                       \
                                          "attempt to terminate a thread-local capture sequence "  \
                                          "from another thread")

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define ROW(name, text) \
  case name:            \
    return #name;
    ERRORS(ROW)
#undef ROW
    default:
      return "cudaErrorUnknown";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
#define ROW(name, text) \
  case name:            \
    return text;
    ERRORS(ROW)
#undef ROW
    default:
      return "unknown error";
  }
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  return cuDriverGetVersion(version) == 0 ? cudaSuccess : say(cudaErrorUnknown);
}

cudaError_t cudaGetDeviceCount(int* count) {
  const Lock lock(mutex());
  *count = static_cast<int>(devices().size());
  return *count > 0 ? cudaSuccess : say(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  const Lock lock(mutex());
  if (device < 0 || device >= static_cast<int>(devices().size())) {
    return say(cudaErrorInvalidDevice, "there is no such device");
  }
  chosen_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  const Lock lock(mutex());
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "Emulated GPU %d", device);
  properties->major = 9;
  // Few: each block costs as much as on one core.
  properties->multiProcessorCount = 2;
  properties->totalGlobalMem = device_at(device).memory.total();
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Lock lock(mutex());
  *free = current().memory.free();
  *total = current().memory.total();
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  const Lock lock(mutex());
  if (forbidden_by_capture()) return say(cudaErrorStreamCaptureUnsupported, kInCapture);
  if (captures_on(current())) {
    return say(cudaErrorStreamCaptureUnsupported, "the device, on which another thread captures");
  }
  return advance_all(current());
}

cudaError_t cudaMalloc(void** data, size_t bytes) {
  const Lock lock(mutex());
  if (forbidden_by_capture()) return say(cudaErrorStreamCaptureUnsupported, kInCapture);
  if (current().broken != cudaSuccess) return say(current().broken);
  *data = current().memory.allocate(bytes);
  return *data != nullptr ? cudaSuccess : say(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* data) {
  const Lock lock(mutex());
  if (data == nullptr) return cudaSuccess;
  if (forbidden_by_capture()) return say(cudaErrorStreamCaptureUnsupported, kInCapture);
  const cudaError_t status = advance_all(current());
  if (!current().memory.release(data)) return say(cudaErrorInvalidValue, "no memory begins there");
  return status;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  const Lock lock(mutex());
  *pool = &device_at(device).pool;
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  const Lock lock(mutex());
  if (attribute != cudaMemPoolAttrReleaseThreshold) {
    return say(cudaErrorNotSupported, "an attribute of pools that is not emulated");
  }
  std::memcpy(&pool->keeps, value, sizeof pool->keeps);
  return cudaSuccess;
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep) {
  const Lock lock(mutex());
  device_at(pool->device).memory.trim_pool(keep);
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** data, size_t bytes, cudaStream_t stream) {
  const Lock lock(mutex());
  CUstream_st& s = *real(stream);
  if (s.capture != nullptr) return say(cudaErrorNotSupported, "memory in captures is not emulated");
  *data = device_at(s.device).memory.allocate_pooled(bytes);
  return *data != nullptr ? cudaSuccess : say(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  const Lock lock(mutex());
  CUstream_st& s = *real(stream);
  if (s.capture != nullptr) return say(cudaErrorNotSupported, "memory in captures is not emulated");
  Device& d = device_at(s.device);
  return append(s, [&d, data] {
    if (!d.memory.release_pooled(data, d.pool.keeps)) throw std::runtime_error("freed twice");
  });
}

cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) {
  const Lock lock(mutex());
  if (forbidden_by_capture()) return say(cudaErrorStreamCaptureUnsupported, kInCapture);
  *data = std::malloc(bytes);
  if (*data == nullptr) return say(cudaErrorMemoryAllocation);
  std::memset(*data, 0xFF, bytes);
  pinned()[static_cast<std::byte*>(*data)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* data) {
  const Lock lock(mutex());
  if (data == nullptr) return cudaSuccess;
  if (pinned().erase(static_cast<std::byte*>(data)) == 0) {
    return say(cudaErrorInvalidValue, "no page-locked memory begins there");
  }
  std::free(data);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const Lock lock(mutex());
  if (bytes == 0) return cudaSuccess;
  CUstream_st& s = *real(stream);
  const bool reads = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool writes = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  if ((!reads && !writes) || holds(s.device, from, bytes) != reads ||
      holds(s.device, to, bytes) != writes) {
    return say(cudaErrorInvalidValue, "a copy beyond memory of the device, or of the wrong kind");
  }
  if (reads || is_pinned(from, bytes)) return append(s, [=] { std::memcpy(to, from, bytes); });
  if (s.capture != nullptr) {
    return say(cudaErrorStreamCaptureUnsupported, "a copy from memory that is not page-locked");
  }
  // The driver has taken what it copies before it returns.
  const auto* bytes_of = static_cast<const std::byte*>(from);
  return append(s, [to, taken = std::vector<std::byte>(bytes_of, bytes_of + bytes)] {
    std::memcpy(to, taken.data(), taken.size());
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const Lock lock(mutex());
  if (forbidden_by_capture()) return say(cudaErrorStreamCaptureUnsupported, kInCapture);
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return status == cudaSuccess ? advance(current().first) : status;
}

cudaError_t cudaMemset(void* data, int value, size_t bytes) {
  const Lock lock(mutex());
  if (forbidden_by_capture()) return say(cudaErrorStreamCaptureUnsupported, kInCapture);
  if (!holds(chosen_device, data, bytes)) {
    return say(cudaErrorInvalidValue, "beyond memory of the device");
  }
  return append(current().first, [=] { std::memset(data, value, bytes); });
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(mutex());
  CUstream_st& s = *real(stream);
  if (!holds(s.device, data, bytes)) {
    return say(cudaErrorInvalidValue, "beyond memory of the device");
  }
  return append(s, [=] { std::memset(data, value, bytes); });
}

}  // extern "C"
