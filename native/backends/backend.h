// What a backend is: memory, a stream of work, and a kernel for each op.
//
// The contract is made for a device that has its own memory and works asynchronously. Work is
// enqueued on a Stream and happens in order; nothing is finished before Stream::synchronize. A
// kernel's enqueue only enqueues: it does not allocate, wait, or read device memory on the host.
// All that changes from step to step lives in StepState in device memory, so that a whole step can
// be captured once and replayed. backends/null computes nothing and is the template; the CPU
// backend runs each kernel at once on the calling thread and its pool.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ops/op.h"

namespace panns::backends {

// All that changes between two runs of one program. Written by one small upload before each run:
// all of it, or the inputs alone where what a run has left must reach the next one.
struct StepState {
  uint64_t seed = 0;  // of dropout and SpecAugment masks
  uint32_t step = 0;  // training steps done before this one; Adam's t is step + 1
  float lr = 0;
  float max_norm = 0;  // clip the global gradient norm to this; 0: no clipping
  // Results, read back when asked for.
  float grad_norm = 0;
  float grad_scale = 1;  // what the optimizer multiplies gradients by
  // Closed, which is not finite, by a loss that is not finite, and by a norm that is not where
  // gradients are clipped, or where they overflow with any loss scale: from then on neither
  // parameters nor running statistics nor what an optimizer keeps are moved. Of devices whose work
  // queues up: steps may wait there behind one of which the host does not know yet that it failed.
  float gate = 0;
};
// What a run is given; behind it lies what it leaves.
constexpr size_t kStepInputBytes = offsetof(StepState, grad_norm);

// A run of device memory; freed with the object.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual std::byte* data() const = 0;
  virtual size_t bytes() const = 0;
};

// A point in a stream's work.
class Event {
 public:
  virtual ~Event() = default;
};

// A captured run of work that can be launched again.
class Recording {
 public:
  virtual ~Recording() = default;
};

class Stream {
 public:
  virtual ~Stream() = default;
  virtual void upload(void* device, const void* host, size_t bytes) = 0;
  virtual void download(void* host, const void* device, size_t bytes) = 0;
  virtual std::unique_ptr<Event> record() = 0;
  virtual void wait(const Event& event) = 0;
  // A point whose time is kept, and the time from one to a later one of this stream, which is
  // waited for. Not while capturing.
  virtual std::unique_ptr<Event> mark() = 0;
  virtual double seconds(const Event& from, const Event& to) = 0;
  virtual void synchronize() = 0;
  // The host waits for what came before the event, on whatever stream.
  virtual void await(const Event& event) = 0;
  // Between the two, work is recorded and not run. A backend that cannot capture returns null from
  // end_capture, and has run the work at once.
  virtual void begin_capture() = 0;
  virtual std::unique_ptr<Recording> end_capture() = 0;
  // Ends a capture, if one is open, and leaves nothing of it.
  virtual void drop_capture() {}
  virtual void launch(const Recording& recording) = 0;
};

class Collective;

// What a sample of 16 bits stands for, as PANNs packs clips.
constexpr float sample_of(int16_t code) { return static_cast<float>(code) / 32767.0f; }

// Device addresses a kernel works on, bound once when a program is compiled. An output that nobody
// uses is null and need not be computed.
struct Args {
  std::vector<void*> in, out;
  std::vector<void*> beside;  // the second form of an input (Device::bytes_beside); null: none
  void* workspace = nullptr;
  StepState* state = nullptr;
  Collective* processes = nullptr;  // that the run is one of; null: this process alone
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  // Bytes of scratch memory; shared with the program's other kernels.
  virtual size_t workspace() const { return 0; }
  // Bytes of device memory that it keeps for itself from the first prepare on: a weight packed, a
  // table. Making a kernel allocates none, so that a program can be planned without memory.
  virtual size_t keeps() const { return 0; }
  // Called before the first enqueue, and whenever parameters changed other than by an optimizer of
  // this device: the time to pack weights.
  virtual void prepare(Stream&, const Args&) {}
  virtual void enqueue(Stream& stream, const Args& args) = 0;
};

// A node as a backend sees it.
struct NodeSpec {
  ops::Op op;
  ops::Attrs attrs;
  ops::Specs in, out;
  std::string path;
};

struct DeviceInfo {
  std::string kind;    // "cpu", "cuda", "null"
  std::string name;    // as the vendor calls it
  std::string detail;  // instruction set, driver, ...
  int threads = 0;
  size_t memory_bytes = 0;  // in all; 0 if unknown
};

// Memory of a device at this moment, in bytes.
struct MemoryState {
  static constexpr size_t kUnknown = ~size_t{0};
  // Allocated and not freed: through the device object, or, on a GPU, by this process.
  size_t held = 0;
  // What the system would still give to this process, others on the same device considered.
  size_t free = kUnknown;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  // Addresses that allocate and the planner hand out are multiples of this.
  virtual size_t alignment() const = 0;
  // Throws ERR_PANNS_OUT_OF_MEMORY naming the need and what is free.
  virtual std::unique_ptr<Memory> allocate(size_t bytes) = 0;
  virtual MemoryState memory() const = 0;
  // Memory of the host that downloads write while the host goes on: until an event behind them.
  virtual std::unique_ptr<Memory> host_memory(size_t bytes) { return allocate(bytes); }
  // Parameters that train may have a second form beside them, in the same order, that kernels bring
  // up to date in prepare() and optimizers write in the same pass: the bytes that it takes.
  virtual size_t bytes_beside(size_t parameters) const { return 0; }
  // Whether uploads take time in which it could compute: its memory is its own.
  virtual bool uploads() const { return false; }
  // Whether work is still to be done when a stream has taken it, and kernels heed StepState::gate.
  virtual bool queues() const { return false; }
  // Whether gradients carry a loss scale, so that a step in which they overflow moves nothing, and
  // the next one may.
  virtual bool scales_loss() const { return false; }
  virtual std::unique_ptr<Stream> stream() = 0;
  // For work that gives way to that of other streams where both want the same units.
  virtual std::unique_ptr<Stream> stream_beside() { return stream(); }
  // Whether work of two streams overlaps, and gradients need no factor that depends on all of them,
  // as one of a loss scale does.
  virtual bool updates_early() const { return false; }
  // Bytes that a value takes in this device's own layout.
  virtual size_t bytes(const ops::TensorSpec& value) const = 0;
  // Between the logical, row-major order of host memory and the device's layout.
  virtual void import_value(Stream&, const ops::TensorSpec& value, const float* host,
                            void* device) = 0;
  // Samples of 16 bits to the floats they stand for, of a dense value: half the bytes on the way.
  virtual void import_samples(Stream&, int64_t count, const int16_t* host, float* device) = 0;
  // The same of samples that an upload has brought to the device's memory.
  virtual void widen_samples(Stream&, int64_t count, const int16_t* samples, float* values) = 0;
  virtual void export_value(Stream&, const ops::TensorSpec& value, const void* device,
                            float* host) = 0;
  // While *flag is true, work under way may stop early with undefined results; null: never. For
  // devices whose kernels run for seconds on the calling thread; others may ignore it.
  virtual void set_cancel(const std::atomic<bool>* flag) {}
  // Whether the device has a kernel for the node as it stands, fused epilogue included.
  virtual bool supports(const NodeSpec& node) const = 0;
  virtual std::unique_ptr<Kernel> kernel(const NodeSpec& node) = 0;
  // Whether making a kernel may take seconds, as where its code is compiled for the shape.
  virtual bool compiles() const { return false; }
};

// Lets a device stop early for the length of one run.
class CancelScope {
 public:
  CancelScope(Device& device, const std::atomic<bool>* flag) : device_(device) {
    device_.set_cancel(flag);
  }
  ~CancelScope() { device_.set_cancel(nullptr); }

 private:
  Device& device_;
};

// `memory_limit`: bytes it has in all; 0 for no limit.
std::unique_ptr<Device> make_null_device(size_t memory_limit = 0);
// threads: 0 for one a core.
std::unique_ptr<Device> make_cpu_device(int threads);

}  // namespace panns::backends
