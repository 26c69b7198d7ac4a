// A backend that computes nothing: it plans and counts. The planner's tests run on it, and it is
// the template for a new backend. It behaves like an asynchronous device with memory of its own:
// nothing happens to memory before synchronize, work can be captured, and reading an address of
// the device on the host is never needed.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <functional>

#include "backends/backend.h"

namespace panns::backends {
namespace {

constexpr size_t kAlignment = 256;  // as CUDA's allocator

// Shared with the memory, which may outlive the device, and which any thread may let go of.
using HeldBytes = std::shared_ptr<std::atomic<size_t>>;

class NullMemory final : public Memory {
 public:
  NullMemory(size_t bytes, HeldBytes held)
      // Zero pages that are hardly ever touched: plans of any size cost nothing.
      : bytes_(bytes),
        held_(std::move(held)),
        data_(static_cast<std::byte*>(std::calloc(1, std::max<size_t>(bytes, 1)))) {
    PANNS_CHECK(data_ != nullptr, "ERR_PANNS_OUT_OF_MEMORY", "null", "the system refused ", bytes,
                " bytes");
    *held_ += bytes;
  }
  ~NullMemory() override { *held_ -= bytes_; }
  std::byte* data() const override { return data_.get(); }
  size_t bytes() const override { return bytes_; }

 private:
  size_t bytes_;
  HeldBytes held_;
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  std::unique_ptr<std::byte, Free> data_;
};

using Work = std::function<void()>;

class NullStream;

class NullEvent final : public Event {
 public:
  NullEvent(NullStream* stream, uint64_t count) : stream(stream), count(count) {}
  NullStream* stream;
  uint64_t count;  // of the stream's work before it
};

using Clock = std::chrono::steady_clock;

class NullMark final : public Event {
 public:
  uint64_t count = 0;  // of the stream's work up to it
  const std::shared_ptr<Clock::time_point> at = std::make_shared<Clock::time_point>();
};

class NullRecording final : public Recording {
 public:
  std::deque<Work> work;
};

// Work waits in a queue until synchronize, as far as a caller can tell an asynchronous device.
class NullStream final : public Stream {
 public:
  void upload(void* device, const void* host, size_t bytes) override {
    // The host's memory may be reused at once, as with staged uploads.
    std::vector<std::byte> staged(static_cast<const std::byte*>(host),
                                  static_cast<const std::byte*>(host) + bytes);
    push([device, staged] {
      std::copy(staged.begin(), staged.end(), static_cast<std::byte*>(device));
    });
  }
  void download(void* host, const void* device, size_t bytes) override {
    push([=] {
      const auto* from = static_cast<const std::byte*>(device);
      std::copy(from, from + bytes, static_cast<std::byte*>(host));
    });
  }
  std::unique_ptr<Event> record() override {
    return std::make_unique<NullEvent>(this, done_ + queue_.size());
  }
  void wait(const Event& event) override {
    const auto& e = static_cast<const NullEvent&>(event);
    if (e.stream->capture_ != nullptr && e.stream != this) branch_of_ = e.stream;
    if (e.stream->branch_of_ == this) {
      e.stream->branch_of_ = nullptr;
      return;
    }
    if (branch_of_ != nullptr) return;
    push([stream = e.stream, count = e.count] { stream->work_until(count); });
  }
  std::unique_ptr<Event> mark() override {
    auto mark = std::make_unique<NullMark>();
    push([at = mark->at] { *at = Clock::now(); });
    mark->count = done_ + queue_.size();
    return mark;
  }
  double seconds(const Event& from, const Event& to) override {
    const auto &begin = static_cast<const NullMark&>(from), &end = static_cast<const NullMark&>(to);
    work_until(end.count);
    return std::chrono::duration<double>(*end.at - *begin.at).count();
  }
  void synchronize() override {
    PANNS_CHECK(capture_ == nullptr, "ERR_PANNS_INTERNAL", "null stream",
                "synchronize while capturing");
    work_until(done_ + queue_.size());
  }
  void await(const Event& event) override {
    const auto& e = static_cast<const NullEvent&>(event);
    e.stream->work_until(e.count);
  }
  void begin_capture() override { capture_ = std::make_unique<NullRecording>(); }
  std::unique_ptr<Recording> end_capture() override { return std::move(capture_); }
  void launch(const Recording& recording) override {
    for (const Work& w : static_cast<const NullRecording&>(recording).work) queue_.push_back(w);
  }
  // Does nothing where that much is done.
  void work_until(uint64_t count) {
    while (done_ < count) {
      const Work work = std::move(queue_.front());
      queue_.pop_front();
      ++done_;
      work();
    }
  }
  void push(Work work) {
    // A branch of another stream's capture is recorded there.
    if (branch_of_ != nullptr) {
      branch_of_->push(std::move(work));
      return;
    }
    (capture_ != nullptr ? capture_->work : queue_).push_back(std::move(work));
  }

 private:
  std::deque<Work> queue_;
  uint64_t done_ = 0;
  std::unique_ptr<NullRecording> capture_;
  NullStream* branch_of_ = nullptr;
};

// Marks every output as written, so that a test sees what ran, how often, and in which order.
class NullKernel final : public Kernel {
 public:
  explicit NullKernel(const NodeSpec& node) : node_(node) {}
  size_t workspace() const override { return kAlignment; }
  void enqueue(Stream& stream, const Args& args) override {
    PANNS_CHECK(args.in.size() == node_.in.size() && args.out.size() == node_.out.size(),
                "ERR_PANNS_INTERNAL", node_.path, "expected ", node_.in.size(), " inputs and ",
                node_.out.size(), " outputs, got ", args.in.size(), " and ", args.out.size());
    for (void* in : args.in) {
      PANNS_CHECK(in != nullptr, "ERR_PANNS_INTERNAL", node_.path, "an input has no address");
    }
    const auto out = args.out;
    static_cast<NullStream&>(stream).push([out] {
      for (void* p : out) {
        if (p != nullptr) *static_cast<float*>(p) += 1;
      }
    });
  }

 private:
  NodeSpec node_;
};

class NullDevice final : public Device {
 public:
  explicit NullDevice(size_t limit) {
    info_.kind = "null";
    info_.name = "computes nothing";
    info_.memory_bytes = limit;
  }
  const DeviceInfo& info() const override { return info_; }
  size_t alignment() const override { return kAlignment; }
  std::unique_ptr<Memory> allocate(size_t bytes) override {
    const size_t free = memory().free;
    PANNS_CHECK(bytes <= free, "ERR_PANNS_OUT_OF_MEMORY", "null", "expected ", bytes,
                " bytes of memory, ", free, " are free");
    return std::make_unique<NullMemory>(bytes, held_);
  }
  MemoryState memory() const override {
    const size_t limit = info_.memory_bytes;
    return {*held_, limit == 0 ? MemoryState::kUnknown : limit - *held_};
  }
  std::unique_ptr<Memory> host_memory(size_t bytes) override {
    return std::make_unique<NullMemory>(bytes, std::make_shared<std::atomic<size_t>>(0));
  }
  bool uploads() const override { return true; }
  bool queues() const override { return true; }
  bool updates_early() const override { return true; }
  std::unique_ptr<Stream> stream() override { return std::make_unique<NullStream>(); }
  size_t bytes(const ops::TensorSpec& v) const override {
    return static_cast<size_t>(v.shape.size()) * sizeof(float);
  }
  void import_value(Stream& s, const ops::TensorSpec& v, const float* host, void* device) override {
    s.upload(device, host, bytes(v));
  }
  void import_samples(Stream& s, int64_t count, const int16_t* host, float* device) override {
    std::vector<float> samples(static_cast<size_t>(count));
    std::transform(host, host + count, samples.begin(), sample_of);
    s.upload(device, samples.data(), samples.size() * sizeof(float));
  }
  void widen_samples(Stream& s, int64_t count, const int16_t* samples, float* values) override {
    static_cast<NullStream&>(s).push(
        [=] { std::transform(samples, samples + count, values, sample_of); });
  }
  void export_value(Stream& s, const ops::TensorSpec& v, const void* device, float* host) override {
    s.download(host, device, bytes(v));
  }
  bool supports(const NodeSpec&) const override { return true; }
  std::unique_ptr<Kernel> kernel(const NodeSpec& node) override {
    return std::make_unique<NullKernel>(node);
  }

 private:
  DeviceInfo info_;
  HeldBytes held_ = std::make_shared<std::atomic<size_t>>(0);
};

}  // namespace

std::unique_ptr<Device> make_null_device(size_t memory_limit) {
  return std::make_unique<NullDevice>(memory_limit);
}

}  // namespace panns::backends
