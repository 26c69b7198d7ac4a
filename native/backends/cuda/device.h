// The CUDA device, and what the adapters from graph nodes to the kernels' functions may use.
#pragma once

#include <memory>

#include "backends/backend.h"
#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"
#include "backends/cuda/optimizer.h"
#include "backends/cuda/plans.h"
#include "backends/cuda/stream.h"

namespace panns::cuda {

using backends::Args;
using backends::Kernel;
using backends::NodeSpec;
using backends::Stream;

// How maps are stored for that arithmetic.
constexpr Storage storage_of(Math math) {
  return math == Math::bf16 ? Storage::bf16 : math == Math::fp16 ? Storage::fp16 : Storage::fp32;
}

// Lives as long as the device.
struct Context {
  int ordinal = 0;
  int multiprocessors = 0;
  Math math = Math::fp32;
  Plans* plans = nullptr;
  // In device memory, and moved there by the steps themselves; null unless maps are fp16.
  LossScale* loss_scale = nullptr;

  Storage storage() const { return storage_of(math); }
};

// One factory an op, in nodes/*.cpp.
#define PANNS_OP(name, Attrs) \
  std::unique_ptr<Kernel> make_##name(const NodeSpec& node, Context& context);
#include "ops/list.inc"
#undef PANNS_OP

// Whether the device has a kernel for the node with its epilogue.
bool supports_batch_norm(const NodeSpec& node);
bool supports_conv(const NodeSpec& node, const Context& context);

// The map of a value: (N, C, T, F).
inline Map map_of(const ops::TensorSpec& v, Storage storage) {
  return {v.shape[0], v.shape[1], v.shape[2], v.shape[3], storage};
}
inline Map map_of(const ops::TensorSpec& v, const Context& context) {
  return map_of(v, context.storage());
}
// The filter of a value: (O, I, kT, kF).
inline Filter filter_of(const ops::TensorSpec& v) {
  return {v.shape[0], v.shape[1], v.shape[2], v.shape[3]};
}
// The stored elements of a value: a map with its padding channels, or an array.
Run run_of(const ops::TensorSpec& v, const Context& context);
// Bytes that a value takes.
size_t bytes_of(const ops::TensorSpec& v, const Context& context);

// Also makes the device the thread's current one: another model's may be it.
inline Launch launch_on(Stream& stream, const Context& context) {
  PANNS_CUDA(cudaSetDevice(context.ordinal));
  return {cuda_stream(stream).raw(), context.multiprocessors};
}

}  // namespace panns::cuda
