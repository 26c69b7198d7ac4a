// Work in order on the device, and its capture as a CUDA graph.
#pragma once

#include <memory>
#include <vector>

#include "backends/cuda/memory.h"

namespace panns::cuda {

// A capture that an error or a cancelled run has left open is dropped by the next call of the
// host's: only kernels may come between begin_capture and end_capture.
class CudaStream final : public backends::Stream {
 public:
  // Of one piece of an upload: large enough for the full rate of a PCIe 5 link, which takes 0.1 ms
  // for it, and small beside the batches that are uploaded.
  static constexpr size_t kStageBytes = 4u << 20;
  // Of an upload that is one piece of the small ones: targets of 64 clips and 527 classes take
  // half.
  static constexpr size_t kSmallBytes = 256u << 10;

  enum class Priority : uint8_t { high, low };

  explicit CudaStream(int ordinal, Priority priority = Priority::high);
  ~CudaStream() override;

  // The host's memory may be reused on return: it is copied through page-locked memory, piece by
  // piece, so that the host copies one piece while the device reads the one before. It waits for
  // the device only where all page-locked memory of that size is still to be read: small uploads
  // have more of it, so that those of a step need not wait for the step before.
  void upload(void* device, const void* host, size_t bytes) override;
  void download(void* host, const void* device, size_t bytes) override;
  std::unique_ptr<backends::Event> record() override;
  void wait(const backends::Event& event) override;
  std::unique_ptr<backends::Event> mark() override;
  double seconds(const backends::Event& from, const backends::Event& to) override;
  void synchronize() override;
  void await(const backends::Event& event) override;
  void begin_capture() override;
  std::unique_ptr<backends::Recording> end_capture() override;
  void drop_capture() override;
  void launch(const backends::Recording& recording) override;

  cudaStream_t raw() const { return stream_; }
  int ordinal() const { return ordinal_; }

 private:
  struct Stage {
    std::unique_ptr<PinnedMemory> memory;
    cudaEvent_t read = nullptr;  // the device has read what was staged
  };
  struct Stages {
    size_t bytes;  // of one
    std::vector<Stage> ring;
    size_t next = 0;
  };
  void upload_piece(Stages& stages, void* device, const void* host, size_t bytes);

  int ordinal_;
  cudaStream_t stream_ = nullptr;
  Stages large_{kStageBytes, std::vector<Stage>(2)};
  // A step has at most six: the states of two programs, targets, weights of mixup, and, at its
  // chain's start, a gate; of the step under way and of the one behind it.
  Stages small_{kSmallBytes, std::vector<Stage>(16)};
  bool capturing_ = false;
};

// The stream of this backend behind the interface.
inline CudaStream& cuda_stream(backends::Stream& stream) {
  return static_cast<CudaStream&>(stream);
}

}  // namespace panns::cuda
