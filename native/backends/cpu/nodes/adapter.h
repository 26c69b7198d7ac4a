// How a function over pointers becomes a kernel of a node.
#pragma once

#include <memory>
#include <utility>

#include "backends/cpu/device.h"
#include "core/philox.h"

namespace panns::cpu {

// A kernel that is one call.
template <typename Call>
class Adapter final : public Kernel {
 public:
  Adapter(size_t workspace, Call call) : workspace_(workspace), call_(std::move(call)) {}
  size_t workspace() const override { return workspace_; }
  void enqueue(Stream&, const Args& args) override { call_(args); }

 private:
  size_t workspace_;
  Call call_;
};

template <typename Call>
std::unique_ptr<Kernel> adapt(size_t workspace, Call call) {
  return std::make_unique<Adapter<Call>>(workspace, std::move(call));
}

inline std::byte* scratch(const Args& args) { return static_cast<std::byte*>(args.workspace); }

// The random numbers of a mask at this step: read from the step's state at each run.
inline RandomStream random_stream(const Args& args, int32_t mask) {
  return {args.state->seed, args.state->step, static_cast<uint32_t>(mask)};
}

}  // namespace panns::cpu
