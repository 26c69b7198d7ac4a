// How a function over pointers becomes a kernel of a node.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

#include "backends/cuda/device.h"

namespace panns::cuda {

// A kernel that is one call.
template <typename Call>
class Adapter final : public Kernel {
 public:
  Adapter(int64_t workspace, const Context& context, Call call)
      : workspace_(static_cast<size_t>(workspace)), context_(context), call_(std::move(call)) {}
  size_t workspace() const override { return workspace_; }
  void enqueue(Stream& stream, const Args& args) override {
    const Launch launch = launch_on(stream, context_);
    if constexpr (std::is_invocable_v<Call, const Launch&, Stream&, const Args&>) {
      call_(launch, stream, args);
    } else {
      call_(launch, args);
    }
  }

 private:
  size_t workspace_;
  const Context& context_;
  Call call_;
};

// `call` takes a Launch, where it asks for it the stream too, and the node's addresses.
template <typename Call>
std::unique_ptr<Kernel> adapt(int64_t workspace, const Context& context, Call call) {
  return std::make_unique<Adapter<Call>>(workspace, context, std::move(call));
}

// Dense values are float.
inline const float* floats_in(const Args& a, size_t i) {
  return static_cast<const float*>(a.in[i]);
}
inline float* floats_out(const Args& a, size_t i) { return static_cast<float*>(a.out[i]); }

}  // namespace panns::cuda
