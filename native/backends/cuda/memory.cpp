#include "backends/cuda/memory.h"

#include <algorithm>
#include <array>
#include <atomic>

namespace panns::cuda {
namespace {

// More devices than any machine has.
constexpr size_t kMostDevices = 1024;
std::array<std::atomic<size_t>, kMostDevices> held;

std::atomic<size_t>& held_on(int ordinal) { return held[static_cast<size_t>(ordinal)]; }

// Kept out of what is called free, of a small device less: kernels' code is loaded when it first
// runs, and each allocation is rounded up to pages of 2 MiB.
constexpr size_t kMargin = size_t{128} << 20;
constexpr size_t kMarginShare = 64;

// Runs of memory that live long (an arena, weights) come from cudaMalloc and not from the pool:
// cudaFree waits for work that still uses them, and no stream need be known to give them back.
class DeviceMemory final : public backends::Memory {
 public:
  DeviceMemory(int ordinal, std::byte* data, size_t bytes)
      : ordinal_(ordinal), data_(data), bytes_(bytes) {
    held_on(ordinal) += bytes;
  }
  ~DeviceMemory() override {
    cudaSetDevice(ordinal_);
    cudaFree(data_);
    held_on(ordinal_) -= bytes_;
  }
  std::byte* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  int ordinal_;
  std::byte* data_;
  size_t bytes_;
};

[[noreturn]] void out_of_memory(size_t bytes) {
  cudaGetLastError();
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  throw Error("ERR_PANNS_OUT_OF_MEMORY", "cuda",
              cat("expected ", bytes >> 20, " MiB of device memory, of ", total >> 20, " MiB ",
                  free >> 20, " MiB are free; a smaller batch or shorter clips need less"));
}

}  // namespace

backends::MemoryState device_memory(int ordinal) {
  PANNS_CUDA(cudaSetDevice(ordinal));
  size_t free = 0, total = 0;
  PANNS_CUDA(cudaMemGetInfo(&free, &total));
  const size_t margin = std::min(kMargin, total / kMarginShare);
  return {held_on(ordinal), free > margin ? free - margin : 0};
}

std::unique_ptr<backends::Memory> allocate_device_memory(int ordinal, size_t bytes) {
  PANNS_CUDA(cudaSetDevice(ordinal));
  void* data = nullptr;
  cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    // The pool keeps what it was given back; it may be just what is missing.
    cudaGetLastError();
    cudaMemPool_t pool = nullptr;
    if (cudaDeviceGetDefaultMemPool(&pool, ordinal) == cudaSuccess) {
      cudaDeviceSynchronize();
      cudaMemPoolTrimTo(pool, 0);
    }
    status = cudaMalloc(&data, bytes);
  }
  if (status == cudaErrorMemoryAllocation) out_of_memory(bytes);
  check(status, "cudaMalloc");
  auto memory = std::make_unique<DeviceMemory>(ordinal, static_cast<std::byte*>(data), bytes);
  // On a stream that no other thread's capture takes part in: neither the device as a whole nor the
  // default stream may be waited for while one is open. Others must not see the memory before.
  PANNS_CUDA(cudaMemsetAsync(data, 0, bytes, cudaStreamPerThread));
  PANNS_CUDA(cudaStreamSynchronize(cudaStreamPerThread));
  return memory;
}

PinnedMemory::PinnedMemory(size_t bytes) : bytes_(bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaHostAlloc(&data, bytes, cudaHostAllocDefault);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error("ERR_PANNS_OUT_OF_MEMORY", "cuda",
                cat("expected ", bytes >> 20,
                    " MiB of page-locked host memory, which the system "
                    "refused; `ulimit -l` may set the bound"));
  }
  check(status, "cudaHostAlloc");
  data_ = static_cast<std::byte*>(data);
}

StreamMemory::StreamMemory(cudaStream_t stream, size_t bytes) : stream_(stream) {
  const cudaError_t status = cudaMallocAsync(&data_, bytes, stream);
  if (status == cudaErrorMemoryAllocation) out_of_memory(bytes);
  check(status, "cudaMallocAsync");
}

}  // namespace panns::cuda
