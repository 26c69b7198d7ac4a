// Heads, losses and optimizers.
#include <algorithm>
#include <vector>

#include "backends/cuda/attention_pool.h"
#include "backends/cuda/losses.h"
#include "backends/cuda/nodes/adapter.h"
#include "backends/cuda/optimizer.h"
#include "backends/cuda/softmax.h"

namespace panns::cuda {
namespace {

// What the loss's gradient is multiplied by; grad_norm takes it out again. Null: nothing.
const float* loss_factor(const Context& context) {
  return context.loss_scale != nullptr ? &context.loss_scale->scale : nullptr;
}

}  // namespace

std::unique_ptr<Kernel> make_softmax(const NodeSpec& node, Context& context) {
  const Shape x = node.in[0].shape;
  return adapt(0, context, [x](const Launch& launch, const Args& a) {
    softmax(launch, x[0], x[1], floats_in(a, 0), floats_out(a, 0));
  });
}

// (attention, x)
std::unique_ptr<Kernel> make_attention_pool(const NodeSpec& node, Context& context) {
  return adapt(0, context,
               [map = map_of(node.in[0], context)](const Launch& launch, const Args& a) {
                 attention_pool(launch, map, a.in[0], a.in[1], floats_out(a, 0));
               });
}

// (attention, x, dy) to the gradients of both
std::unique_ptr<Kernel> make_attention_pool_backward(const NodeSpec& node, Context& context) {
  return adapt(
      0, context, [map = map_of(node.in[0], context)](const Launch& launch, const Args& a) {
        attention_pool_backward(launch, map, a.in[0], a.in[1], floats_in(a, 2), a.out[0], a.out[1]);
      });
}

std::unique_ptr<Kernel> make_bce(const NodeSpec& node, Context& context) {
  const Shape p = node.in[0].shape;
  return adapt(loss_workspace(p[0], p[1]), context, [p](const Launch& launch, const Args& a) {
    bce(launch, p[0], p[1], floats_in(a, 0), floats_in(a, 1), floats_out(a, 0), a.workspace,
        a.state);
  });
}
std::unique_ptr<Kernel> make_bce_backward(const NodeSpec& node, Context& context) {
  const Shape p = node.in[0].shape;
  return adapt(0, context, [p, by = loss_factor(context)](const Launch& launch, const Args& a) {
    bce_backward(launch, p[0], p[1], floats_in(a, 0), floats_in(a, 1), by, floats_out(a, 0));
  });
}
std::unique_ptr<Kernel> make_cross_entropy(const NodeSpec& node, Context& context) {
  const Shape z = node.in[0].shape;
  return adapt(loss_workspace(z[0], z[1]), context, [z](const Launch& launch, const Args& a) {
    cross_entropy(launch, z[0], z[1], floats_in(a, 0), floats_in(a, 1), floats_out(a, 0),
                  a.workspace, a.state);
  });
}
std::unique_ptr<Kernel> make_cross_entropy_backward(const NodeSpec& node, Context& context) {
  const Shape z = node.in[0].shape;
  return adapt(0, context, [z, by = loss_factor(context)](const Launch& launch, const Args& a) {
    cross_entropy_backward(launch, z[0], z[1], floats_in(a, 0), floats_in(a, 1), by,
                           floats_out(a, 0));
  });
}

// Writes the norm and the clip factor into the step's state, and moves the loss scale.
std::unique_ptr<Kernel> make_grad_norm(const NodeSpec& node, Context& context) {
  std::vector<int64_t> counts;
  int64_t partials = 0;
  for (const auto& v : node.in) {
    counts.push_back(v.shape.size());
    partials += grad_norm_partials(v.shape.size());
  }
  const int64_t workspace = partials * static_cast<int64_t>(sizeof(double));
  return adapt(workspace, context,
               [counts, partials, loss = context.loss_scale](const Launch& launch, const Args& a) {
                 int64_t first = 0;
                 for (size_t i = 0; i < counts.size(); ++i) {
                   grad_norm_add(launch, a.state, counts[i], floats_in(a, i), first, a.workspace,
                                 loss);
                   first += grad_norm_partials(counts[i]);
                 }
                 grad_norm_finish(launch, partials, a.state, a.workspace, loss);
               });
}

namespace {

// Of an optimizer whose inputs before it are so many; null: none.
const float* gate_of(const Args& a, size_t inputs) {
  return a.in.size() == inputs ? nullptr : floats_in(a, inputs);
}

}  // namespace

// (parameters, gradients, m, v[, v_max][, gate])
std::unique_ptr<Kernel> make_adam(const NodeSpec& node, Context& context) {
  const auto& attrs = ops::as<ops::AdamAttrs>(node.attrs);
  const Adam options{attrs.beta1,     attrs.beta2,   attrs.eps, attrs.weight_decay,
                     attrs.decoupled, attrs.amsgrad, attrs.rate};
  return adapt(0, context,
               [options, count = node.in[0].shape.size(), type = context.storage()](
                   const Launch& launch, const Args& a) {
                 const auto slot = [&](size_t i) { return static_cast<float*>(a.in[i]); };
                 adam(launch, options, a.state, count, floats_in(a, 1), slot(0), slot(2), slot(3),
                      options.amsgrad ? slot(4) : nullptr, {type, a.beside[0]},
                      gate_of(a, options.amsgrad ? 5 : 4));
               });
}

// (parameters, gradients[, momentum][, gate])
std::unique_ptr<Kernel> make_sgd(const NodeSpec& node, Context& context) {
  const auto& attrs = ops::as<ops::SgdAttrs>(node.attrs);
  const Sgd options{attrs.momentum, attrs.weight_decay, attrs.nesterov, attrs.rate};
  return adapt(0, context,
               [options, count = node.in[0].shape.size(), type = context.storage()](
                   const Launch& launch, const Args& a) {
                 sgd(launch, options, a.state, count, floats_in(a, 1), static_cast<float*>(a.in[0]),
                     options.momentum > 0 ? static_cast<float*>(a.in[2]) : nullptr,
                     {type, a.beside[0]}, gate_of(a, options.momentum > 0 ? 3 : 2));
               });
}

}  // namespace panns::cuda
