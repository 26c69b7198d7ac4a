// Ops that join, rearrange or weigh feature maps.
#include "backends/cpu/attention_pool.h"
#include "backends/cpu/concat.h"
#include "backends/cpu/nodes/adapter.h"
#include "backends/cpu/reshape.h"
#include "backends/cpu/scale.h"
#include "backends/cpu/upsample.h"

namespace panns::cpu {

std::unique_ptr<Kernel> make_concat(const NodeSpec& node, Context& context) {
  const Map a = map_of(node.in[0]), b = map_of(node.in[1]);
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    concat(pool, a, b, in(args, 0), in(args, 1), out(args, 0));
  });
}

// dy to (da, db)
std::unique_ptr<Kernel> make_concat_backward(const NodeSpec& node, Context& context) {
  const Map a = map_of(node.out[0]), b = map_of(node.out[1]);
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    concat_backward(pool, a, b, in(args, 0), out(args, 0), out(args, 1));
  });
}

// (x, s)
std::unique_ptr<Kernel> make_scale(const NodeSpec& node, Context& context) {
  const Map map = map_of(node.in[0]);
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    scale(pool, map, in(args, 0), in(args, 1), out(args, 0));
  });
}

// (x, s, dy) to (dx, ds)
std::unique_ptr<Kernel> make_scale_backward(const NodeSpec& node, Context& context) {
  const Map map = map_of(node.in[0]);
  return adapt(scale_workspace(map), [=, &pool = context.pool](const Args& args) {
    scale_backward(pool, map, in(args, 0), in(args, 1), in(args, 2), out(args, 0), out(args, 1),
                   args.workspace);
  });
}

std::unique_ptr<Kernel> make_unsqueeze(const NodeSpec& node, Context& context) {
  const int64_t count = floats(node.in[0]);
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    copy(pool, count, in(args, 0), out(args, 0));
  });
}

std::unique_ptr<Kernel> make_fold(const NodeSpec& node, Context& context) {
  const Map map = map_of(node.in[0]);
  const int64_t bins = ops::as<ops::BinsAttrs>(node.attrs).bins;
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    fold(pool, map, bins, in(args, 0), out(args, 0));
  });
}

// dy to dx
std::unique_ptr<Kernel> make_fold_backward(const NodeSpec& node, Context& context) {
  const Map map = map_of(node.out[0]);
  const int64_t bins = ops::as<ops::BinsAttrs>(node.attrs).bins;
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    fold_backward(pool, map, bins, in(args, 0), out(args, 0));
  });
}

// (a, x)
std::unique_ptr<Kernel> make_attention_pool(const NodeSpec& node, Context& context) {
  const Map map = map_of(node.in[0]);
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    attention_pool(pool, map, in(args, 0), in(args, 1), out(args, 0));
  });
}

// (a, x, dy) to (da, dx)
std::unique_ptr<Kernel> make_attention_pool_backward(const NodeSpec& node, Context& context) {
  const Map map = map_of(node.in[0]);
  return adapt(0, [=, &pool = context.pool](const Args& args) {
    attention_pool_backward(pool, map, in(args, 0), in(args, 1), in(args, 2), out(args, 0),
                            out(args, 1));
  });
}

// (x, like), of which only the shape is read
std::unique_ptr<Kernel> make_upsample(const NodeSpec& node, Context& context) {
  const Map map = map_of(node.in[0]);
  const int64_t ratio = ops::as<ops::UpsampleAttrs>(node.attrs).ratio;
  return adapt(0, [=, frames = node.out[0].shape[1], &pool = context.pool](const Args& args) {
    upsample(pool, map, ratio, frames, in(args, 0), out(args, 0));
  });
}

}  // namespace panns::cpu
