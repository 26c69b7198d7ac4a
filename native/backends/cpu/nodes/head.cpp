// Linear layers, losses, optimizers and the front-end.
#include <algorithm>
#include <cmath>

#include "backends/cpu/linear.h"
#include "backends/cpu/logmel.h"
#include "backends/cpu/losses.h"
#include "backends/cpu/nodes/adapter.h"
#include "backends/cpu/optimizer.h"

namespace panns::cpu {
namespace {

Linear linear_of(const Shape& x, const Shape& w, bool relu) {
  Linear l;
  l.n = x[0];
  l.in = w[1];
  l.out = w[0];
  l.relu = relu;
  return l;
}

}  // namespace

std::unique_ptr<Kernel> make_logmel(const NodeSpec& node, Context& context) {
  const auto& a = ops::as<ops::LogmelAttrs>(node.attrs);
  auto logmel = std::make_shared<Logmel>(frontend::config_of(a), context.pool.size());
  const Shape x = node.in[0].shape;
  return adapt(
      static_cast<size_t>(logmel->workspace_bytes()), [=, &pool = context.pool](const Args& args) {
        logmel->run(pool, in(args, 0), x[0], x[1], LogmelOutput::map, out(args, 0), args.workspace);
      });
}

// (x, w[, b])
std::unique_ptr<Kernel> make_linear(const NodeSpec& node, Context& context) {
  const auto& a = ops::as<ops::LinearAttrs>(node.attrs);
  const Linear shape = linear_of(node.in[0].shape, node.in[1].shape, a.relu);
  return adapt(0, [=, bias = a.bias, &pool = context.pool](const Args& args) {
    linear(pool, shape, in(args, 0), in(args, 1), bias ? in(args, 2) : nullptr, out(args, 0));
  });
}

// (dy, w) to dx
std::unique_ptr<Kernel> make_linear_backward_data(const NodeSpec& node, Context& context) {
  const Linear shape = linear_of(node.in[0].shape, node.in[1].shape, false);
  return adapt(static_cast<size_t>(linear_workspace(shape)), [=, &pool = context.pool](
                                                                 const Args& args) {
    linear_backward(pool, shape,
                    {nullptr, in(args, 1), nullptr, in(args, 0), out(args, 0), nullptr, nullptr},
                    scratch(args));
  });
}

// (x, dy) to (dw[, db])
std::unique_ptr<Kernel> make_linear_backward_weight(const NodeSpec& node, Context& context) {
  const Linear shape = linear_of(node.in[0].shape, node.out[0].shape, false);
  const bool bias = ops::as<ops::LinearAttrs>(node.attrs).bias;
  return adapt(static_cast<size_t>(linear_workspace(shape)),
               [=, &pool = context.pool](const Args& args) {
                 linear_backward(pool, shape,
                                 {in(args, 0), nullptr, nullptr, in(args, 1), nullptr, out(args, 0),
                                  bias ? out(args, 1) : nullptr},
                                 scratch(args));
               });
}

std::unique_ptr<Kernel> make_bce(const NodeSpec& node, Context& context) {
  const Shape p = node.in[0].shape;
  return adapt(static_cast<size_t>(loss_workspace(p[0])),
               [=, &pool = context.pool](const Args& args) {
                 bce(pool, p[0], p[1], in(args, 0), in(args, 1), out(args, 0), scratch(args));
               });
}
std::unique_ptr<Kernel> make_bce_backward(const NodeSpec& node, Context& context) {
  const Shape p = node.in[0].shape;
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    bce_backward(pool, p[0], p[1], in(args, 0), in(args, 1), out(args, 0));
  });
}
std::unique_ptr<Kernel> make_cross_entropy(const NodeSpec& node, Context& context) {
  const Shape z = node.in[0].shape;
  return adapt(
      static_cast<size_t>(loss_workspace(z[0])), [=, &pool = context.pool](const Args& args) {
        cross_entropy(pool, z[0], z[1], in(args, 0), in(args, 1), out(args, 0), scratch(args));
      });
}
std::unique_ptr<Kernel> make_cross_entropy_backward(const NodeSpec& node, Context& context) {
  const Shape z = node.in[0].shape;
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    cross_entropy_backward(pool, z[0], z[1], in(args, 0), in(args, 1), out(args, 0));
  });
}

// Writes the norm and the clip factor into the step's state; without clipping it costs nothing.
std::unique_ptr<Kernel> make_grad_norm(const NodeSpec& node, Context& context) {
  std::vector<int64_t> counts;
  size_t workspace = 0;
  for (const auto& v : node.in) {
    counts.push_back(v.shape.size());
    workspace = std::max(workspace, static_cast<size_t>(sum_of_squares_workspace(v.shape.size())));
  }
  return adapt(workspace, [=, &pool = context.pool](const Args& args) {
    backends::StepState& state = *args.state;
    state.grad_scale = 1;
    if (!(state.max_norm > 0)) return;
    double sum = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      sum += sum_of_squares(pool, counts[i], in(args, i), scratch(args));
    }
    const double norm = std::sqrt(sum);
    state.grad_norm = static_cast<float>(norm);
    state.grad_scale = clip_scale(norm, state.max_norm);
  });
}

namespace {

// Of an optimizer whose inputs before the gate are so many.
bool passes(const Args& args, size_t inputs) {
  return args.in.size() == inputs || std::isfinite(*in(args, inputs));
}

}  // namespace

// (parameters, gradients, m, v[, v_max][, gate])
std::unique_ptr<Kernel> make_adam(const NodeSpec& node, Context& context) {
  const auto& a = ops::as<ops::AdamAttrs>(node.attrs);
  const int64_t count = node.in[0].shape.size();
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    if (!passes(args, a.amsgrad ? 5 : 4)) return;
    const backends::StepState& state = *args.state;
    const auto slot = [&](size_t i) { return static_cast<float*>(args.in[i]); };
    const Adam options{state.lr * a.rate, a.beta1,     a.beta2,  a.eps,
                       a.weight_decay,    a.decoupled, a.amsgrad};
    adam(pool, options, static_cast<int64_t>(state.step) + 1, state.grad_scale, count, in(args, 1),
         slot(0), slot(2), slot(3), a.amsgrad ? slot(4) : nullptr);
  });
}

// (parameters, gradients[, momentum][, gate])
std::unique_ptr<Kernel> make_sgd(const NodeSpec& node, Context& context) {
  const auto& a = ops::as<ops::SgdAttrs>(node.attrs);
  const int64_t count = node.in[0].shape.size();
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    if (!passes(args, a.momentum > 0 ? 3 : 2)) return;
    const backends::StepState& state = *args.state;
    sgd(pool, {state.lr * a.rate, a.momentum, a.weight_decay, a.nesterov}, state.grad_scale, count,
        in(args, 1), static_cast<float*>(args.in[0]),
        a.momentum > 0 ? static_cast<float*>(args.in[2]) : nullptr);
  });
}

}  // namespace panns::cpu
