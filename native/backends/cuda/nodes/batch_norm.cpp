#include "backends/cuda/batch_norm.h"

#include <optional>

#include "backends/collective.h"
#include "backends/cuda/conv_batch_norm.h"
#include "backends/cuda/nodes/adapter.h"

namespace panns::cuda {
namespace {

BatchNorm norm_of(const NodeSpec& node) {
  const auto& a = ops::as<ops::BatchNormAttrs>(node.attrs);
  BatchNorm norm;
  norm.freq = a.axis == ops::Axis::freq;
  norm.relu = a.relu;
  norm.avg_pool_2x2 = a.avg_pool_2x2;
  norm.eps = a.eps;
  norm.momentum = a.momentum;
  norm.dropout = {a.dropout.p, a.dropout.mask};
  norm.over_processes = a.over_processes;
  if (a.spec_augment) {
    norm.spec_augment = {a.spec_augment->time_width, a.spec_augment->freq_width,
                         a.spec_augment->mask};
  }
  norm.mixup = a.mixup;
  return norm;
}

// Those that the node's batch is spread over; none where it is this process's own.
std::optional<BatchNormProcesses> processes_of(const BatchNorm& norm, Stream& stream,
                                               const Args& a) {
  if (!norm.over_processes || a.processes == nullptr) return std::nullopt;
  const auto sum = [&stream, processes = a.processes](double* values, int64_t count) {
    processes->sum(stream, values, count);
  };
  return BatchNormProcesses{a.processes->size(), sum};
}

// The convolution inside.
ConvOfOne convolution_of(const NodeSpec& node, size_t weight, Storage storage) {
  const Shape &x = node.in[0].shape, &w = node.in[weight].shape;
  const auto& stride = *ops::as<ops::BatchNormAttrs>(node.attrs).of_conv;
  return {{x[0], x[1], x[2], x[3], storage}, w[0], w[2], w[3], stride[0], stride[1]};
}

// (x, gamma, beta, running_mean, running_var, w) to (y, mean, invstd, moments)
std::unique_ptr<Kernel> make_conv_batch_norm(const NodeSpec& node, Context& context) {
  const BatchNorm norm = norm_of(node);
  const ConvOfOne conv = convolution_of(node, 5, context.storage());
  return adapt(conv_batch_norm_workspace(conv), context, [=](const Launch& launch, const Args& a) {
    conv_batch_norm_train(launch, norm, conv,
                          {floats_in(a, 0), floats_in(a, 5), floats_in(a, 1), floats_in(a, 2),
                           static_cast<float*>(a.in[3]), static_cast<float*>(a.in[4]), a.out[0],
                           floats_out(a, 1), floats_out(a, 2), floats_out(a, 3), &a.state->gate},
                          a.workspace);
  });
}

// (x, gamma, beta, mean, invstd, dy, w, moments) to (dx, dgamma, dbeta, dw)
std::unique_ptr<Kernel> make_conv_batch_norm_backward(const NodeSpec& node, Context& context) {
  const BatchNorm norm = norm_of(node);
  const ConvOfOne conv = convolution_of(node, 6, context.storage());
  return adapt(conv_batch_norm_backward_workspace(conv), context,
               [=](const Launch& launch, const Args& a) {
                 conv_batch_norm_backward(
                     launch, norm, conv,
                     {floats_in(a, 0), floats_in(a, 6), floats_in(a, 1), floats_in(a, 2),
                      floats_in(a, 4), floats_in(a, 7), a.in[5], floats_out(a, 0), floats_out(a, 1),
                      floats_out(a, 2), floats_out(a, 3)},
                     a.workspace);
               });
}

}  // namespace

bool supports_batch_norm(const NodeSpec& node) {
  const BatchNorm norm = norm_of(node);
  if (!ops::as<ops::BatchNormAttrs>(node.attrs).of_conv) {
    const Shape& x = node.in[0].shape;
    return batch_norm_supported(norm, {x[0], x[1], x[2], x[3]});
  }
  return conv_batch_norm_supported(norm, convolution_of(node, 5, Storage::fp32));
}

// (x, gamma, beta, running_mean, running_var[, sum, sum of squares | clip weights]) to y, in
// training to (y, mean, invstd)
std::unique_ptr<Kernel> make_batch_norm(const NodeSpec& node, Context& context) {
  if (ops::as<ops::BatchNormAttrs>(node.attrs).of_conv) return make_conv_batch_norm(node, context);
  const BatchNorm norm = norm_of(node);
  const Map map = map_of(node.in[0], context);
  const auto& attrs = ops::as<ops::BatchNormAttrs>(node.attrs);
  const bool training = attrs.training, sums = attrs.from_sums;
  const auto call = [=](const Launch& launch, Stream& stream, const Args& a) {
    if (!training) {
      batch_norm_eval(launch, norm, map, a.state,
                      {a.in[0], floats_in(a, 1), floats_in(a, 2), floats_in(a, 3), floats_in(a, 4),
                       a.out[0], norm.mixup ? floats_in(a, 5) : nullptr},
                      a.workspace);
      return;
    }
    const auto processes = processes_of(norm, stream, a);
    batch_norm_train(
        launch, norm, map, a.state,
        {a.in[0], floats_in(a, 1), floats_in(a, 2), static_cast<float*>(a.in[3]),
         static_cast<float*>(a.in[4]), a.out[0], floats_out(a, 1), floats_out(a, 2),
         sums ? floats_in(a, 5) : nullptr, sums ? floats_in(a, 6) : nullptr,
         processes ? &*processes : nullptr, norm.mixup ? floats_in(a, 5) : nullptr, &a.state->gate},
        a.workspace);
  };
  return adapt(batch_norm_workspace(norm, map), context, call);
}

// (x, gamma, beta, mean, invstd, dy[, clip weights]), of a norm that does not train with the
// running statistics in their place, to (dx, dgamma, dbeta)
std::unique_ptr<Kernel> make_batch_norm_backward(const NodeSpec& node, Context& context) {
  if (ops::as<ops::BatchNormAttrs>(node.attrs).of_conv) {
    return make_conv_batch_norm_backward(node, context);
  }
  const BatchNorm norm = norm_of(node);
  const Map map = map_of(node.in[0], context);
  const bool training = ops::as<ops::BatchNormAttrs>(node.attrs).training;
  const auto call = [=](const Launch& launch, Stream& stream, const Args& a) {
    if (!training) {
      batch_norm_eval_backward(
          launch, norm, map, a.state,
          {a.in[0], floats_in(a, 1), floats_in(a, 2), floats_in(a, 3), floats_in(a, 4), a.in[5],
           a.out[0], floats_out(a, 1), floats_out(a, 2), norm.mixup ? floats_in(a, 6) : nullptr},
          a.workspace);
      return;
    }
    const auto processes = processes_of(norm, stream, a);
    batch_norm_backward(launch, norm, map, a.state,
                        {a.in[0], floats_in(a, 1), floats_in(a, 2), floats_in(a, 3),
                         floats_in(a, 4), a.in[5], a.out[0], floats_out(a, 1), floats_out(a, 2),
                         processes ? &*processes : nullptr, norm.mixup ? floats_in(a, 6) : nullptr},
                        a.workspace);
  };
  return adapt(batch_norm_workspace(norm, map), context, call);
}

}  // namespace panns::cuda
