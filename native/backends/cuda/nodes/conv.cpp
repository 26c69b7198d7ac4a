// conv and linear, forward and backward: both are convolutions to cuDNN.
#include "backends/cuda/conv.h"

namespace panns::cuda {
namespace {

ConvArguments take_forward(const Args& a) {
  ConvArguments c{a.in[0], a.in[1], a.out[0], a.in.size() > 2 ? a.in[2] : nullptr, a.beside[1]};
  if (a.out.size() > 1) {
    c.sum = a.out[1];
    c.sum_of_squares = a.out[2];
  }
  return c;
}
// (dy, w) to dx
ConvArguments take_backward_data(const Args& a) {
  return {a.out[0], a.in[1], a.in[0], nullptr, a.beside[1]};
}
// (x, dy) to (dw[, db])
ConvArguments take_backward_weight(const Args& a) {
  return {a.in[0], a.out[0], a.in[1], a.out.size() > 1 ? a.out[1] : nullptr};
}

}  // namespace

// The 2x2 mean is a kernel of its own: cuDNN pools only what lies in memory.
bool supports_conv(const NodeSpec& node, const Context& context) {
  const auto& a = ops::as<ops::ConvAttrs>(node.attrs);
  if (a.avg_pool_2x2) return false;
  if (!a.statistics) return true;
  // Sums are of whole vectors of channels, and come in no fixed order.
  const bool fits = context.storage() != Storage::fp32 && a.out_channels % kChannelBlock == 0;
  return fits && !context.plans->options().deterministic &&
         context.plans->try_plan(convolution_of(node, context.math).graph) != nullptr;
}

std::unique_ptr<Kernel> make_conv(const NodeSpec& node, Context& context) {
  return make_convolution(convolution_of(node, context.math), take_forward, context);
}

std::unique_ptr<Kernel> make_conv_backward_data(const NodeSpec& node, Context& context) {
  return make_convolution(convolution_of(node, context.math), take_backward_data, context);
}

std::unique_ptr<Kernel> make_conv_backward_weight(const NodeSpec& node, Context& context) {
  return make_convolution(convolution_of(node, context.math), take_backward_weight, context);
}

std::unique_ptr<Kernel> make_linear(const NodeSpec& node, Context& context) {
  return make_convolution(convolution_of(node, context.math), take_forward, context);
}

std::unique_ptr<Kernel> make_linear_backward_data(const NodeSpec& node, Context& context) {
  return make_convolution(convolution_of(node, context.math), take_backward_data, context);
}

std::unique_ptr<Kernel> make_linear_backward_weight(const NodeSpec& node, Context& context) {
  return make_convolution(convolution_of(node, context.math), take_backward_weight, context);
}

}  // namespace panns::cuda
