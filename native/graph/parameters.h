// Where a model's parameters and buffers live: one run of device memory, in the device's own
// layout, so that an optimizer sees a flat array. Every program of the model is bound to it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "graph/graph.h"

namespace panns::graph {

class Parameters {
 public:
  struct Entry {
    std::string name;  // PyTorch's
    ops::TensorSpec spec;
    bool trainable;
    ops::Init init;
    size_t offset, bytes;  // in device memory; parameters come first, then buffers
  };

  // The parameters of a graph, in its order. The device must outlive the object.
  Parameters(const Graph& graph, backends::Device& device);

  const std::vector<Entry>& entries() const { return entries_; }
  const Entry& entry(const std::string& name) const;  // throws ERR_PANNS_CHECKPOINT
  bool has(const std::string& name) const { return index_.count(name) > 0; }
  std::byte* address(const Entry& e) const { return memory_->data() + e.offset; }
  // Bytes of all parameters without the buffers behind them.
  size_t trainable_bytes() const { return trainable_bytes_; }
  // Bytes of parameters and buffers.
  size_t bytes() const { return memory_->bytes(); }
  std::byte* data() const { return memory_->data(); }

  // In logical, row-major order. Throws ERR_PANNS_SHAPE unless count fits.
  void set(const std::string& name, const float* values, int64_t count);
  void get(const std::string& name, float* values, int64_t count) const;

  // Xavier-uniform weights (fans from the weight's shape, as PyTorch counts them), gamma 1,
  // everything else 0; drawn from Philox(seed, entry, element).
  void initialise(uint64_t seed);

  // Grows whenever values change, so that programs know when to fold and pack again.
  uint64_t version() const { return version_; }
  void touch() { ++version_; }
  backends::Stream& stream() const { return *stream_; }

 private:
  backends::Device& device_;
  std::unique_ptr<backends::Stream> stream_;
  std::unique_ptr<backends::Memory> memory_;
  std::vector<Entry> entries_;
  std::map<std::string, size_t> index_;
  size_t trainable_bytes_ = 0;
  uint64_t version_ = 1;
};

}  // namespace panns::graph
