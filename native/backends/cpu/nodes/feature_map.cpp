// Ops on feature maps and on flat arrays whose adapters are one call each.
#include "backends/cpu/activation.h"
#include "backends/cpu/dropout.h"
#include "backends/cpu/mixup.h"
#include "backends/cpu/nodes/adapter.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/reduce.h"
#include "backends/cpu/softmax.h"
#include "backends/cpu/spec_augment.h"

namespace panns::cpu {
namespace {

std::unique_ptr<Kernel> elementwise(Activation kind, const NodeSpec& node, Context& context) {
  const bool is_map = node.in[0].form == ops::Form::map;
  const Map map = is_map ? map_of(node.in[0]) : Map{};
  const int64_t count = floats(node.in[0]);
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    if (is_map) {
      activation(pool, kind, map, in(args, 0), out(args, 0));
    } else {
      activation(pool, kind, count, in(args, 0), out(args, 0));
    }
  });
}

std::unique_ptr<Kernel> elementwise_backward(Activation kind, const NodeSpec& node,
                                             Context& context) {
  const int64_t count = floats(node.in[0]);
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    activation_backward(pool, kind, count, in(args, 0), in(args, 1), out(args, 0));
  });
}

Pool pool_of(const ops::PoolAttrs& a) {
  Pool p;
  p.kind = a.kind == ops::PoolKind::avg   ? PoolKind::mean
           : a.kind == ops::PoolKind::max ? PoolKind::max
                                          : PoolKind::mean_max;
  p.kt = a.kernel[0];
  p.kf = a.kernel[1];
  p.st = a.stride[0];
  p.sf = a.stride[1];
  p.pt = a.padding[0];
  p.pf = a.padding[1];
  return p;
}

TimeReduce time_of(ops::ReduceKind kind) {
  switch (kind) {
    case ops::ReduceKind::mean:
      return TimeReduce::mean;
    case ops::ReduceKind::max:
      return TimeReduce::max;
    default:
      return TimeReduce::max_mean;
  }
}

// Over frequency only the mean has a kernel: no published model takes another.
void expect_reducible(const NodeSpec& node) {
  const auto& a = ops::as<ops::ReduceAttrs>(node.attrs);
  PANNS_CHECK(a.axis == ops::Axis::time || a.kind == ops::ReduceKind::mean, "ERR_PANNS_UNSUPPORTED",
              node.path, "over frequency only the mean is supported, got ", a.text());
}

}  // namespace

std::unique_ptr<Kernel> make_relu(const NodeSpec& node, Context& context) {
  return elementwise(Activation::relu, node, context);
}
std::unique_ptr<Kernel> make_relu_backward(const NodeSpec& node, Context& context) {
  return elementwise_backward(Activation::relu, node, context);
}
std::unique_ptr<Kernel> make_relu6(const NodeSpec& node, Context& context) {
  return elementwise(Activation::relu6, node, context);
}
std::unique_ptr<Kernel> make_relu6_backward(const NodeSpec& node, Context& context) {
  return elementwise_backward(Activation::relu6, node, context);
}
std::unique_ptr<Kernel> make_hard_swish(const NodeSpec& node, Context& context) {
  return elementwise(Activation::hard_swish, node, context);
}
std::unique_ptr<Kernel> make_hard_swish_backward(const NodeSpec& node, Context& context) {
  return elementwise_backward(Activation::hard_swish, node, context);
}
std::unique_ptr<Kernel> make_sigmoid(const NodeSpec& node, Context& context) {
  return elementwise(Activation::sigmoid, node, context);
}
std::unique_ptr<Kernel> make_sigmoid_backward(const NodeSpec& node, Context& context) {
  return elementwise_backward(Activation::sigmoid, node, context);
}

std::unique_ptr<Kernel> make_softmax(const NodeSpec& node, Context& context) {
  const Shape x = node.in[0].shape;
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    softmax(pool, x[0], x[1], in(args, 0), out(args, 0));
  });
}

std::unique_ptr<Kernel> make_add(const NodeSpec& node, Context& context) {
  const int64_t count = floats(node.in[0]);
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    add(pool, count, in(args, 0), in(args, 1), out(args, 0));
  });
}

std::unique_ptr<Kernel> make_dropout(const NodeSpec& node, Context& context) {
  const auto& a = ops::as<ops::DropoutAttrs>(node.attrs);
  const bool is_map = node.in[0].form == ops::Form::map;
  const Map map = is_map ? map_of(node.in[0]) : Map{};
  const int64_t count = floats(node.in[0]);
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    const Dropout drop{a.p, random_stream(args, a.mask)};
    if (is_map) {
      dropout(pool, drop, map, in(args, 0), out(args, 0));
    } else {
      dropout(pool, drop, count, in(args, 0), out(args, 0));
    }
  });
}

std::unique_ptr<Kernel> make_pool(const NodeSpec& node, Context& context) {
  const Pool p = pool_of(ops::as<ops::PoolAttrs>(node.attrs));
  const Map map = map_of(node.in[0]);
  return adapt(0, [=, &threads = context.pool](const Args& args) {
    pool(threads, p, map, in(args, 0), out(args, 0));
  });
}

// (x, dy) to dx
std::unique_ptr<Kernel> make_pool_backward(const NodeSpec& node, Context& context) {
  const Pool p = pool_of(ops::as<ops::PoolAttrs>(node.attrs));
  const Map map = map_of(node.in[0]);
  return adapt(0, [=, &threads = context.pool](const Args& args) {
    pool_backward(threads, p, map, in(args, 0), in(args, 1), out(args, 0));
  });
}

std::unique_ptr<Kernel> make_reduce(const NodeSpec& node, Context& context) {
  expect_reducible(node);
  const auto& a = ops::as<ops::ReduceAttrs>(node.attrs);
  const Map map = map_of(node.in[0]);
  return adapt(0, [=, freq = a.axis == ops::Axis::freq, kind = time_of(a.kind),
                   &pool = context.pool](const Args& args) {
    if (freq) {
      mean_over_freq(pool, map, in(args, 0), out(args, 0));
    } else {
      reduce_time(pool, kind, map, in(args, 0), out(args, 0));
    }
  });
}

// (x, dy) to dx
std::unique_ptr<Kernel> make_reduce_backward(const NodeSpec& node, Context& context) {
  const auto& a = ops::as<ops::ReduceAttrs>(node.attrs);
  const Map map = map_of(node.in[0]);
  return adapt(0, [=, freq = a.axis == ops::Axis::freq, kind = time_of(a.kind),
                   &pool = context.pool](const Args& args) {
    if (freq) {
      mean_over_freq_backward(pool, map, in(args, 1), out(args, 0));
    } else {
      reduce_time_backward(pool, kind, map, in(args, 0), in(args, 1), out(args, 0));
    }
  });
}

std::unique_ptr<Kernel> make_spec_augment(const NodeSpec& node, Context& context) {
  const auto& a = ops::as<ops::SpecAugmentAttrs>(node.attrs);
  const Map map = map_of(node.in[0]);
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    spec_augment(pool, {a.time_width, a.freq_width, random_stream(args, a.mask)}, map, in(args, 0),
                 out(args, 0));
  });
}

// (x, lambda)
std::unique_ptr<Kernel> make_mixup(const NodeSpec& node, Context& context) {
  const int64_t n = node.out[0].shape[0], sample = floats(node.out[0]) / n;
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    mixup(pool, n, sample, in(args, 0), in(args, 1), out(args, 0));
  });
}

// (dy, lambda)
std::unique_ptr<Kernel> make_mixup_backward(const NodeSpec& node, Context& context) {
  const int64_t n = node.in[0].shape[0], sample = floats(node.in[0]) / n;
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    mixup_backward(pool, n, sample, in(args, 0), in(args, 1), out(args, 0));
  });
}

}  // namespace panns::cpu
