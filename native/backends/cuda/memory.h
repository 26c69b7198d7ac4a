// Device memory and page-locked host memory, owned.
#pragma once

#include <cstddef>
#include <memory>

#include "backends/backend.h"
#include "backends/cuda/check.h"

namespace panns::cuda {

// Memory of the current device, zeroed: padding channels of weights must start as zeros. Throws
// ERR_PANNS_OUT_OF_MEMORY naming the need and what is free.
std::unique_ptr<backends::Memory> allocate_device_memory(int ordinal, size_t bytes);

// What this process holds of that device's memory, and what is free for it. Asked of the driver at
// each call: other processes come and go.
backends::MemoryState device_memory(int ordinal);

// Page-locked host memory, which the device's copy engine reads and writes by itself.
class PinnedMemory final : public backends::Memory {
 public:
  explicit PinnedMemory(size_t bytes);
  ~PinnedMemory() override { cudaFreeHost(data_); }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  std::byte* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_;
};

// Memory from the device's pool for the length of some work on a stream: taken and given back in
// the stream's order, so that neither end waits.
class StreamMemory {
 public:
  StreamMemory(cudaStream_t stream, size_t bytes);
  ~StreamMemory() { cudaFreeAsync(data_, stream_); }
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;
  void* data() const { return data_; }

 private:
  cudaStream_t stream_;
  void* data_ = nullptr;
};

}  // namespace panns::cuda
