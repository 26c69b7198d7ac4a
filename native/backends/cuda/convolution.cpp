// What a node asks of cuDNN: sizes with their padding, types, and which copies are needed.
#include "backends/cuda/conv.h"

namespace panns::cuda {
namespace {

// Groups whose channels padding would tear apart: [group 0, padding, group 1, ...] is what cuDNN
// would have to see, and what no layout here has.
bool groups_fit(const ops::ConvAttrs& a, int64_t channels) {
  if (a.groups == 1) return true;
  const bool depthwise = channels == a.groups && a.out_channels == a.groups;
  return depthwise ||
         (channels / a.groups % kChannelBlock == 0 && a.out_channels % kChannelBlock == 0);
}

Convolution conv_of(const NodeSpec& node, Pass pass, const ops::TensorSpec& x,
                    const ops::TensorSpec& w, const ops::TensorSpec& y, Math math) {
  const auto& a = ops::as<ops::ConvAttrs>(node.attrs);
  PANNS_CHECK(groups_fit(a, x.shape[1]), "ERR_PANNS_UNSUPPORTED", node.path,
              "on CUDA groups have 1 or a multiple of 8 channels each, got ", a.groups,
              " groups of ", x.shape[1] / a.groups, " into ", a.out_channels, " channels");
  const Storage storage = storage_of(math);
  const Map in = map_of(x, storage), out = map_of(y, storage);
  const Filter filter = filter_of(w);
  Convolution c;
  ConvGraph& g = c.graph;
  g.pass = pass;
  g.math = math;
  g.n = in.n;
  g.c = in.channels();
  g.t = in.t;
  g.f = in.f;
  g.k = out.channels();
  g.kernel_t = a.kernel[0];
  g.kernel_f = a.kernel[1];
  g.stride_t = a.stride[0];
  g.stride_f = a.stride[1];
  g.pad_t = a.padding[0];
  g.pad_f = a.padding[1];
  g.dilation_t = a.dilation[0];
  g.dilation_f = a.dilation[1];
  // Padding channels of a depthwise convolution are groups of their own, with weights of zero.
  g.groups = a.groups == x.shape[1] && a.groups > 1 ? in.channels() : a.groups;
  g.bias = pass == Pass::forward && a.bias;
  g.relu = pass == Pass::forward && a.relu;
  g.statistics = pass == Pass::forward && a.statistics;
  c.x = {in.size(), in.storage(), storage};
  c.w = {filter.size(), Storage::fp32, storage};
  c.filter = filter;
  c.y = {out.size(), out.storage(), storage};
  c.bias = a.bias ? a.out_channels : 0;
  c.frozen = a.frozen;
  c.rows = out.pixels();
  c.columns = out.channels();
  return c;
}

// Dense values are float. Without a wish for exact products the tensor cores take them, rounded.
Convolution linear_of(const NodeSpec& node, Pass pass, const ops::TensorSpec& x,
                      const ops::TensorSpec& y, Math math) {
  const auto& a = ops::as<ops::LinearAttrs>(node.attrs);
  Convolution c;
  c.graph.pass = pass;
  c.graph.math = math == Math::fp32 ? Math::fp32 : Math::tf32;
  c.graph.n = x.shape[0];
  c.graph.c = x.shape[1];
  c.graph.k = y.shape[1];
  c.graph.bias = pass == Pass::forward && a.bias;
  c.graph.relu = pass == Pass::forward && a.relu;
  c.x.count = x.shape.size();
  c.w.count = x.shape[1] * y.shape[1];
  c.y.count = y.shape.size();
  c.bias = a.bias ? y.shape[1] : 0;
  c.rows = y.shape[0];
  c.columns = y.shape[1];
  return c;
}

}  // namespace

Convolution convolution_of(const NodeSpec& node, Math math) {
  const auto &in = node.in, &out = node.out;
  switch (node.op) {
    case ops::Op::conv:
      return conv_of(node, Pass::forward, in[0], in[1], out[0], math);
    case ops::Op::conv_backward_data:
      return conv_of(node, Pass::backward_data, out[0], in[1], in[0], math);
    case ops::Op::conv_backward_weight:
      return conv_of(node, Pass::backward_weight, in[0], out[0], in[1], math);
    case ops::Op::linear:
      return linear_of(node, Pass::forward, in[0], out[0], math);
    case ops::Op::linear_backward_data:
      return linear_of(node, Pass::backward_data, out[0], in[0], math);
    case ops::Op::linear_backward_weight:
      return linear_of(node, Pass::backward_weight, in[0], in[1], math);
    default:
      throw Error("ERR_PANNS_INTERNAL", node.path, "expected a convolution or a linear layer");
  }
}

bool can_pair(const Convolution& conv) {
  const ConvGraph& g = conv.graph;
  const bool taps = g.kernel_f == 3 && g.pad_f == 1 && g.stride_f == 1 && g.dilation_f == 1;
  const bool channels = g.c % kChannelBlock == 0 && g.k % kChannelBlock == 0;
  return g.f == 2 && taps && channels && g.groups == 1 && !g.statistics;
}

Convolution paired(const Convolution& conv) {
  Convolution c = conv;
  ConvGraph& g = c.graph;
  g.pairs = conv.frozen && g.pass != Pass::backward_weight ? Pairs::before : Pairs::each_run;
  g.c *= 2;
  g.k *= 2;
  g.f = g.kernel_f = 1;
  g.pad_f = 0;
  return c;
}

}  // namespace panns::cuda
