// A device that stands in for another one while memory is planned: the same layouts and kernels,
// and nothing is allocated or computed. What is built on it (Parameters, a Program, a Session) asks
// it for exactly what it will ask the other for, and is counted.
#pragma once

#include <vector>

#include "backends/backend.h"

namespace panns::backends {

class DryDevice final : public Device {
 public:
  enum class Kernels : uint8_t {
    made,     // asked of the other device, for the scratch memory they need
    left_out  // need nothing: where making them takes too long
  };

  // The other device must outlive this one.
  DryDevice(Device& device, Kernels kernels) : device_(device), kernels_(kernels) {}

  // Bytes that were allocated, and that kernels will keep.
  size_t counted() const { return allocated_ + kept_; }
  // The nodes that kernels were asked for, in this order.
  const std::vector<NodeSpec>& nodes() const { return nodes_; }

  const DeviceInfo& info() const override { return device_.info(); }
  size_t alignment() const override { return device_.alignment(); }
  std::unique_ptr<Memory> allocate(size_t bytes) override;
  MemoryState memory() const override { return device_.memory(); }
  size_t bytes_beside(size_t parameters) const override { return device_.bytes_beside(parameters); }
  bool updates_early() const override { return device_.updates_early(); }
  bool uploads() const override { return device_.uploads(); }
  bool queues() const override { return device_.queues(); }
  bool scales_loss() const override { return device_.scales_loss(); }
  std::unique_ptr<Stream> stream() override;
  size_t bytes(const ops::TensorSpec& value) const override { return device_.bytes(value); }
  void import_value(Stream&, const ops::TensorSpec&, const float*, void*) override {}
  void import_samples(Stream&, int64_t, const int16_t*, float*) override {}
  void widen_samples(Stream&, int64_t, const int16_t*, float*) override {}
  void export_value(Stream&, const ops::TensorSpec&, const void*, float*) override {}
  bool supports(const NodeSpec& node) const override { return device_.supports(node); }
  std::unique_ptr<Kernel> kernel(const NodeSpec& node) override;
  bool compiles() const override { return device_.compiles(); }

 private:
  Device& device_;
  Kernels kernels_;
  size_t allocated_ = 0, kept_ = 0;
  std::vector<NodeSpec> nodes_;
};

}  // namespace panns::backends
