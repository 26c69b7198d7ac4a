// Ops on feature maps and on flat arrays whose adapters are one call each.
#include "backends/cuda/activation.h"
#include "backends/cuda/concat.h"
#include "backends/cuda/dropout.h"
#include "backends/cuda/fold_batch_norm.h"
#include "backends/cuda/mixup.h"
#include "backends/cuda/nodes/adapter.h"
#include "backends/cuda/pool.h"
#include "backends/cuda/reduce.h"
#include "backends/cuda/reshape.h"
#include "backends/cuda/scale.h"
#include "backends/cuda/spec_augment.h"
#include "backends/cuda/upsample.h"

namespace panns::cuda {
namespace {

bool is_map(const ops::TensorSpec& v) { return v.form == ops::Form::map; }

using Unary = void (*)(const Launch&, const Run&, const void*, void*);
using Binary = void (*)(const Launch&, const Run&, const void*, const void*, void*);

std::unique_ptr<Kernel> elementwise(Unary f, const NodeSpec& node, Context& context) {
  return adapt(0, context,
               [f, run = run_of(node.in[0], context)](const Launch& launch, const Args& a) {
                 f(launch, run, a.in[0], a.out[0]);
               });
}

std::unique_ptr<Kernel> elementwise(Binary f, const NodeSpec& node, Context& context) {
  return adapt(0, context,
               [f, run = run_of(node.in[0], context)](const Launch& launch, const Args& a) {
                 f(launch, run, a.in[0], a.in[1], a.out[0]);
               });
}

Pool pool_of(const NodeSpec& node) {
  const auto& a = ops::as<ops::PoolAttrs>(node.attrs);
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

// What one clip of a value is made of.
Run clip_of(const ops::TensorSpec& v, const Context& context) {
  const Run whole = run_of(v, context);
  return Run(whole.count / v.shape[0], whole.type);
}

}  // namespace

std::unique_ptr<Kernel> make_relu(const NodeSpec& node, Context& context) {
  return elementwise(relu, node, context);
}
std::unique_ptr<Kernel> make_relu_backward(const NodeSpec& node, Context& context) {
  return elementwise(relu_backward, node, context);
}
std::unique_ptr<Kernel> make_relu6(const NodeSpec& node, Context& context) {
  return elementwise(relu6, node, context);
}
std::unique_ptr<Kernel> make_relu6_backward(const NodeSpec& node, Context& context) {
  return elementwise(relu6_backward, node, context);
}
std::unique_ptr<Kernel> make_hard_swish(const NodeSpec& node, Context& context) {
  return elementwise(hard_swish, node, context);
}
std::unique_ptr<Kernel> make_hard_swish_backward(const NodeSpec& node, Context& context) {
  return elementwise(hard_swish_backward, node, context);
}
std::unique_ptr<Kernel> make_sigmoid(const NodeSpec& node, Context& context) {
  if (is_map(node.in[0])) {
    return adapt(0, context,
                 [map = map_of(node.in[0], context)](const Launch& launch, const Args& a) {
                   sigmoid(launch, map, a.in[0], a.out[0]);
                 });
  }
  return adapt(0, context, [count = node.in[0].shape.size()](const Launch& launch, const Args& a) {
    sigmoid(launch, count, floats_in(a, 0), floats_out(a, 0));
  });
}
std::unique_ptr<Kernel> make_sigmoid_backward(const NodeSpec& node, Context& context) {
  return elementwise(sigmoid_backward, node, context);
}
std::unique_ptr<Kernel> make_add(const NodeSpec& node, Context& context) {
  return elementwise(add, node, context);
}

std::unique_ptr<Kernel> make_dropout(const NodeSpec& node, Context& context) {
  const auto& attrs = ops::as<ops::DropoutAttrs>(node.attrs);
  const Dropout drop{attrs.p, attrs.mask};
  if (is_map(node.in[0])) {
    return adapt(0, context,
                 [drop, map = map_of(node.in[0], context)](const Launch& launch, const Args& a) {
                   dropout(launch, drop, map, a.state, a.in[0], a.out[0]);
                 });
  }
  return adapt(0, context,
               [drop, count = node.in[0].shape.size()](const Launch& launch, const Args& a) {
                 dropout(launch, drop, count, a.state, floats_in(a, 0), floats_out(a, 0));
               });
}

std::unique_ptr<Kernel> make_pool(const NodeSpec& node, Context& context) {
  return adapt(
      0, context,
      [p = pool_of(node), map = map_of(node.in[0], context)](const Launch& launch, const Args& a) {
        pool(launch, p, map, a.in[0], a.out[0]);
      });
}

// (x, dy) to dx
std::unique_ptr<Kernel> make_pool_backward(const NodeSpec& node, Context& context) {
  return adapt(
      0, context,
      [p = pool_of(node), map = map_of(node.in[0], context)](const Launch& launch, const Args& a) {
        pool_backward(launch, p, map, a.in[0], a.in[1], a.out[0]);
      });
}

// Over frequency only the mean has a kernel: no published model takes another.
std::unique_ptr<Kernel> make_reduce(const NodeSpec& node, Context& context) {
  const auto& attrs = ops::as<ops::ReduceAttrs>(node.attrs);
  const Map map = map_of(node.in[0], context);
  if (attrs.axis == ops::Axis::time) {
    return adapt(0, context,
                 [kind = time_of(attrs.kind), map](const Launch& launch, const Args& a) {
                   reduce_time(launch, kind, map, a.in[0], floats_out(a, 0));
                 });
  }
  PANNS_CHECK(attrs.kind == ops::ReduceKind::mean, "ERR_PANNS_UNSUPPORTED", node.path,
              "over frequency only the mean is supported, got ", attrs.text());
  return adapt(0, context, [map](const Launch& launch, const Args& a) {
    mean_over_freq(launch, map, a.in[0], a.out[0]);
  });
}

// (x, dy) to dx
std::unique_ptr<Kernel> make_reduce_backward(const NodeSpec& node, Context& context) {
  const auto& attrs = ops::as<ops::ReduceAttrs>(node.attrs);
  const Map map = map_of(node.in[0], context);
  if (attrs.axis == ops::Axis::time) {
    return adapt(0, context,
                 [kind = time_of(attrs.kind), map](const Launch& launch, const Args& a) {
                   reduce_time_backward(launch, kind, map, a.in[0], floats_in(a, 1), a.out[0]);
                 });
  }
  return adapt(0, context, [map](const Launch& launch, const Args& a) {
    mean_over_freq_backward(launch, map, a.in[1], a.out[0]);
  });
}

std::unique_ptr<Kernel> make_spec_augment(const NodeSpec& node, Context& context) {
  const auto& attrs = ops::as<ops::SpecAugmentAttrs>(node.attrs);
  const SpecAugment augment{attrs.time_width, attrs.freq_width, attrs.mask};
  return adapt(0, context,
               [augment, map = map_of(node.in[0], context)](const Launch& launch, const Args& a) {
                 spec_augment(launch, augment, map, a.state, floats_in(a, 0), floats_out(a, 0));
               });
}

// (x, lambda)
std::unique_ptr<Kernel> make_mixup(const NodeSpec& node, Context& context) {
  return adapt(0, context,
               [n = node.out[0].shape[0], clip = clip_of(node.out[0], context)](
                   const Launch& launch, const Args& a) {
                 mixup(launch, n, clip, a.in[0], floats_in(a, 1), a.out[0]);
               });
}

// (dy, lambda)
std::unique_ptr<Kernel> make_mixup_backward(const NodeSpec& node, Context& context) {
  return adapt(0, context,
               [n = node.in[0].shape[0], clip = clip_of(node.in[0], context)](const Launch& launch,
                                                                              const Args& a) {
                 mixup_backward(launch, n, clip, a.in[0], floats_in(a, 1), a.out[0]);
               });
}

std::unique_ptr<Kernel> make_concat(const NodeSpec& node, Context& context) {
  return adapt(0, context,
               [one = map_of(node.in[0], context), two = map_of(node.in[1], context)](
                   const Launch& launch, const Args& a) {
                 concat(launch, one, two, a.in[0], a.in[1], a.out[0]);
               });
}

// dy to the gradients of both maps
std::unique_ptr<Kernel> make_concat_backward(const NodeSpec& node, Context& context) {
  return adapt(0, context,
               [one = map_of(node.out[0], context), two = map_of(node.out[1], context)](
                   const Launch& launch, const Args& a) {
                 concat_backward(launch, one, two, a.in[0], a.out[0], a.out[1]);
               });
}

std::unique_ptr<Kernel> make_scale(const NodeSpec& node, Context& context) {
  return adapt(0, context,
               [map = map_of(node.in[0], context)](const Launch& launch, const Args& a) {
                 scale(launch, map, a.in[0], floats_in(a, 1), a.out[0]);
               });
}

// (x, s, dy) to (dx, ds)
std::unique_ptr<Kernel> make_scale_backward(const NodeSpec& node, Context& context) {
  const Map map = map_of(node.in[0], context);
  return adapt(scale_backward_workspace(map), context, [map](const Launch& launch, const Args& a) {
    scale_backward(launch, map, a.in[0], floats_in(a, 1), a.in[2], a.out[0], floats_out(a, 1),
                   a.workspace);
  });
}

std::unique_ptr<Kernel> make_unsqueeze(const NodeSpec& node, Context& context) {
  return adapt(0, context, [count = node.in[0].shape.size()](const Launch& launch, const Args& a) {
    unsqueeze(launch, count, floats_in(a, 0), floats_out(a, 0));
  });
}

std::unique_ptr<Kernel> make_fold(const NodeSpec& node, Context& context) {
  return adapt(0, context,
               [folded = map_of(node.out[0], context)](const Launch& launch, const Args& a) {
                 fold(launch, folded, a.in[0], a.out[0]);
               });
}
std::unique_ptr<Kernel> make_fold_backward(const NodeSpec& node, Context& context) {
  return adapt(0, context,
               [folded = map_of(node.in[0], context)](const Launch& launch, const Args& a) {
                 fold_backward(launch, folded, a.in[0], a.out[0]);
               });
}

// (x, like) to the scores of like's frames
std::unique_ptr<Kernel> make_upsample(const NodeSpec& node, Context& context) {
  const int64_t ratio = ops::as<ops::UpsampleAttrs>(node.attrs).ratio;
  return adapt(0, context,
               [ratio, frames = node.out[0].shape[1], map = map_of(node.in[0], context)](
                   const Launch& launch, const Args& a) {
                 upsample(launch, ratio, frames, map, a.in[0], floats_out(a, 0));
               });
}

// (w, gamma, beta, mean, var) to (w gamma / sqrt(var + eps), beta - mean gamma / sqrt(var + eps))
std::unique_ptr<Kernel> make_fold_batch_norm(const NodeSpec& node, Context& context) {
  const double eps = ops::as<ops::FoldAttrs>(node.attrs).eps;
  return adapt(0, context,
               [eps, filter = filter_of(node.in[0])](const Launch& launch, const Args& a) {
                 fold_batch_norm(launch, filter, eps,
                                 {floats_in(a, 0),
                                  floats_in(a, 1),
                                  floats_in(a, 2),
                                  floats_in(a, 3),
                                  floats_in(a, 4),
                                  floats_out(a, 0),
                                  floats_out(a, 1),
                                  {}});
               });
}

}  // namespace panns::cuda
