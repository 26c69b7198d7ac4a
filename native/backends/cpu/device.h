// The CPU device: its thread pool, and the adapters from graph nodes to the kernels' functions.
#pragma once

#include <atomic>
#include <memory>

#include "backends/backend.h"
#include "backends/cpu/layout.h"
#include "core/threads.h"

namespace panns::cpu {

using backends::Args;
using backends::Kernel;
using backends::NodeSpec;
using backends::Stream;

// Bytes of a device's memory that are allocated. Shared with the memory, which may outlive it.
using HeldBytes = std::shared_ptr<std::atomic<size_t>>;

// What an adapter may use while it lives.
struct Context {
  ThreadPool& pool;
  HeldBytes held;
};

// One factory an op, in nodes/*.cpp.
#define PANNS_OP(name, Attrs) \
  std::unique_ptr<Kernel> make_##name(const NodeSpec& node, Context& context);
#include "ops/list.inc"
#undef PANNS_OP

// Whether batch_norm takes this shape with this epilogue in one go.
bool supports_batch_norm(const NodeSpec& node);

// Aligned memory of the device's kind, for what a kernel keeps between runs.
std::unique_ptr<backends::Memory> make_cpu_memory(size_t bytes, const Context& context);

// The map of a value: (N, C, T, F).
inline Map map_of(const ops::TensorSpec& v) {
  return {v.shape[0], v.shape[1], v.shape[2], v.shape[3]};
}

// Floats that a value takes, padding lanes included.
int64_t floats(const ops::TensorSpec& v);

inline const float* in(const Args& a, size_t i) { return static_cast<const float*>(a.in[i]); }
inline float* out(const Args& a, size_t i) { return static_cast<float*>(a.out[i]); }

}  // namespace panns::cpu
