#include "backends/cuda/stream.h"

#include <algorithm>
#include <cstring>

namespace panns::cuda {
namespace {

class CudaEvent final : public backends::Event {
 public:
  // Without a time to keep an event costs a stream less.
  explicit CudaEvent(unsigned flags = cudaEventDisableTiming) {
    PANNS_CUDA(cudaEventCreateWithFlags(&event_, flags));
  }
  ~CudaEvent() override { cudaEventDestroy(event_); }
  cudaEvent_t raw() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaRecording final : public backends::Recording {
 public:
  explicit CudaRecording(cudaGraph_t graph) {
    // Each kernel with the priority of the stream that it was captured on.
    const cudaError_t status =
        cudaGraphInstantiate(&executable_, graph, cudaGraphInstantiateFlagUseNodePriority);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
  }
  ~CudaRecording() override { cudaGraphExecDestroy(executable_); }
  cudaGraphExec_t raw() const { return executable_; }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

CudaStream::CudaStream(int ordinal, Priority priority) : ordinal_(ordinal) {
  PANNS_CUDA(cudaSetDevice(ordinal));
  int least = 0, greatest = 0;
  PANNS_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  PANNS_CUDA(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking,
                                          priority == Priority::low ? least : greatest));
}

CudaStream::~CudaStream() {
  cudaSetDevice(ordinal_);
  drop_capture();
  cudaStreamSynchronize(stream_);
  for (const Stages* stages : {&large_, &small_}) {
    for (const Stage& s : stages->ring) {
      if (s.read != nullptr) cudaEventDestroy(s.read);
    }
  }
  cudaStreamDestroy(stream_);
}

void CudaStream::upload(void* device, const void* host, size_t bytes) {
  drop_capture();
  PANNS_CUDA(cudaSetDevice(ordinal_));
  Stages& stages = bytes <= kSmallBytes ? small_ : large_;
  const auto* from = static_cast<const std::byte*>(host);
  auto* to = static_cast<std::byte*>(device);
  for (size_t done = 0; done < bytes; done += stages.bytes) {
    upload_piece(stages, to + done, from + done, std::min(bytes - done, stages.bytes));
  }
}

void CudaStream::upload_piece(Stages& stages, void* device, const void* host, size_t bytes) {
  Stage& stage = stages.ring[stages.next];
  stages.next = (stages.next + 1) % stages.ring.size();
  if (stage.memory == nullptr) {
    stage.memory = std::make_unique<PinnedMemory>(stages.bytes);
    PANNS_CUDA(cudaEventCreateWithFlags(&stage.read, cudaEventDisableTiming));
  } else {
    PANNS_CUDA(cudaEventSynchronize(stage.read));
  }
  std::memcpy(stage.memory->data(), host, bytes);
  PANNS_CUDA(cudaMemcpyAsync(device, stage.memory->data(), bytes, cudaMemcpyHostToDevice, stream_));
  PANNS_CUDA(cudaEventRecord(stage.read, stream_));
}

void CudaStream::download(void* host, const void* device, size_t bytes) {
  drop_capture();
  PANNS_CUDA(cudaSetDevice(ordinal_));
  PANNS_CUDA(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_));
}

std::unique_ptr<backends::Event> CudaStream::record() {
  PANNS_CUDA(cudaSetDevice(ordinal_));
  auto event = std::make_unique<CudaEvent>();
  PANNS_CUDA(cudaEventRecord(event->raw(), stream_));
  return event;
}

void CudaStream::wait(const backends::Event& event) {
  PANNS_CUDA(cudaSetDevice(ordinal_));
  PANNS_CUDA(cudaStreamWaitEvent(stream_, static_cast<const CudaEvent&>(event).raw(), 0));
}

std::unique_ptr<backends::Event> CudaStream::mark() {
  drop_capture();
  PANNS_CUDA(cudaSetDevice(ordinal_));
  auto event = std::make_unique<CudaEvent>(cudaEventDefault);
  PANNS_CUDA(cudaEventRecord(event->raw(), stream_));
  return event;
}

double CudaStream::seconds(const backends::Event& from, const backends::Event& to) {
  const auto raw = [](const backends::Event& e) { return static_cast<const CudaEvent&>(e).raw(); };
  PANNS_CUDA(cudaSetDevice(ordinal_));
  PANNS_CUDA(cudaEventSynchronize(raw(to)));
  float milliseconds = 0;
  PANNS_CUDA(cudaEventElapsedTime(&milliseconds, raw(from), raw(to)));
  return 1e-3 * static_cast<double>(milliseconds);
}

void CudaStream::synchronize() {
  drop_capture();
  PANNS_CUDA(cudaSetDevice(ordinal_));
  PANNS_CUDA(cudaStreamSynchronize(stream_));
}

void CudaStream::await(const backends::Event& event) {
  PANNS_CUDA(cudaSetDevice(ordinal_));
  PANNS_CUDA(cudaEventSynchronize(static_cast<const CudaEvent&>(event).raw()));
}

void CudaStream::drop_capture() {
  if (!capturing_) return;
  capturing_ = false;
  cudaGraph_t graph = nullptr;
  // Also when work has made the capture invalid: this call ends it all the same.
  if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess && graph != nullptr) {
    cudaGraphDestroy(graph);
  }
  cudaGetLastError();
}

void CudaStream::begin_capture() {
  drop_capture();
  PANNS_CUDA(cudaSetDevice(ordinal_));
  // Relaxed: a kernel's first launch may load its code, as a library's may, and NCCL's first
  // exchange allocates. Other modes refuse such calls to this thread and lose the capture by them.
  PANNS_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed));
  capturing_ = true;
}

std::unique_ptr<backends::Recording> CudaStream::end_capture() {
  PANNS_CHECK(capturing_, "ERR_PANNS_INTERNAL", "cuda stream", "no capture was begun");
  capturing_ = false;
  cudaGraph_t graph = nullptr;
  PANNS_CUDA(cudaStreamEndCapture(stream_, &graph));
  return std::make_unique<CudaRecording>(graph);
}

void CudaStream::launch(const backends::Recording& recording) {
  drop_capture();
  PANNS_CUDA(cudaSetDevice(ordinal_));
  PANNS_CUDA(cudaGraphLaunch(static_cast<const CudaRecording&>(recording).raw(), stream_));
}

}  // namespace panns::cuda
