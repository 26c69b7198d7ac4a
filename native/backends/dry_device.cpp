#include "backends/dry_device.h"

namespace panns::backends {
namespace {

// Addresses only have to differ from null, which means "not wanted": nothing is ever read there.
constexpr uintptr_t kFirst = uintptr_t{1} << 20;

std::byte* address_of(size_t offset) { return reinterpret_cast<std::byte*>(kFirst + offset); }

class DryMemory final : public Memory {
 public:
  DryMemory(std::byte* data, size_t bytes) : data_(data), bytes_(bytes) {}
  std::byte* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  std::byte* data_;
  size_t bytes_;
};

class DryStream final : public Stream {
 public:
  void upload(void*, const void*, size_t) override {}
  void download(void*, const void*, size_t) override {}
  std::unique_ptr<Event> record() override { return std::make_unique<Event>(); }
  void wait(const Event&) override {}
  std::unique_ptr<Event> mark() override { return record(); }
  double seconds(const Event&, const Event&) override { return 0; }
  void synchronize() override {}
  void await(const Event&) override {}
  void begin_capture() override {}
  std::unique_ptr<Recording> end_capture() override { return nullptr; }
  void launch(const Recording&) override {}
};

// Answers as the kernel it stands for, which itself never sees the addresses.
class DryKernel final : public Kernel {
 public:
  DryKernel(size_t workspace, size_t keeps) : workspace_(workspace), keeps_(keeps) {}
  size_t workspace() const override { return workspace_; }
  size_t keeps() const override { return keeps_; }
  void enqueue(Stream&, const Args&) override {}

 private:
  size_t workspace_, keeps_;
};

}  // namespace

std::unique_ptr<Memory> DryDevice::allocate(size_t bytes) {
  auto memory = std::make_unique<DryMemory>(address_of(allocated_), bytes);
  allocated_ += bytes;
  return memory;
}

std::unique_ptr<Stream> DryDevice::stream() { return std::make_unique<DryStream>(); }

std::unique_ptr<Kernel> DryDevice::kernel(const NodeSpec& node) {
  nodes_.push_back(node);
  if (kernels_ == Kernels::left_out) return std::make_unique<DryKernel>(0, 0);
  const auto kernel = device_.kernel(node);
  kept_ += kernel->keeps();
  return std::make_unique<DryKernel>(kernel->workspace(), kernel->keeps());
}

}  // namespace panns::backends
