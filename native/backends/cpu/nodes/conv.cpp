#include "backends/cpu/conv.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "backends/cpu/nodes/adapter.h"

namespace panns::cpu {
namespace {

ConvShape shape_of(const ops::ConvAttrs& a, const Shape& x) {
  ConvShape s;
  s.n = x[0];
  s.in_c = x[1];
  s.in_t = x[2];
  s.in_f = x[3];
  s.out_c = a.out_channels;
  s.kernel_t = a.kernel[0];
  s.kernel_f = a.kernel[1];
  s.stride_t = a.stride[0];
  s.stride_f = a.stride[1];
  s.pad_t = a.padding[0];
  s.pad_f = a.padding[1];
  s.dilation_t = a.dilation[0];
  s.dilation_f = a.dilation[1];
  s.groups = a.groups;
  return s;
}

ConvOptions options_of(const ops::ConvAttrs& a, Context& context) {
  ConvOptions o;
  o.threads = context.pool.size();
  o.frozen = a.frozen;
  return o;
}

// (x, w[, bias]) to y. A frozen weight is packed when it changes, into memory of the kernel's own.
class Forward final : public Kernel {
 public:
  Forward(const NodeSpec& node, Context& context)
      : attrs_(ops::as<ops::ConvAttrs>(node.attrs)),
        context_(context),
        pool_(context.pool),
        conv_(shape_of(attrs_, node.in[0].shape), ConvPass::forward, options_of(attrs_, context)) {}
  size_t workspace() const override { return conv_.workspace(); }
  size_t keeps() const override { return conv_.packed_size(); }
  void prepare(Stream&, const Args& args) override {
    if (keeps() == 0) return;
    if (packed_ == nullptr) packed_ = make_cpu_memory(keeps(), context_);
    conv_.prepare_weights(pool_, in(args, 1), packed());
  }
  void enqueue(Stream&, const Args& args) override {
    ConvEpilogue epilogue;
    if (attrs_.bias) epilogue.bias = in(args, 2);
    epilogue.relu = attrs_.relu;
    epilogue.avg_pool_2x2 = attrs_.avg_pool_2x2;
    conv_.forward(pool_, in(args, 0), packed_ != nullptr ? packed() : in(args, 1), out(args, 0),
                  epilogue, args.workspace);
  }

 private:
  float* packed() const { return reinterpret_cast<float*>(packed_->data()); }

  ops::ConvAttrs attrs_;
  const Context& context_;
  ThreadPool& pool_;
  Conv conv_;
  std::unique_ptr<backends::Memory> packed_;
};

// db[c] = sum of dy over all but c, each channel in one fixed order.
void bias_gradient(ThreadPool& pool, const Map& map, const float* dy, float* db) {
  pool.run(map.blocks(), [&](int64_t block, int) {
    const int64_t lanes = map.block();
    double sum[kChannelBlock] = {};
    for (int64_t n = 0; n < map.n; ++n) {
      for (int64_t f = 0; f < map.f; ++f) {
        const float* p = dy + map.at(n, block * lanes, 0, f);
        for (int64_t t = 0; t < map.t; ++t) {
          for (int64_t l = 0; l < lanes; ++l) sum[l] += p[t * lanes + l];
        }
      }
    }
    for (int64_t l = 0; l < lanes && block * lanes + l < map.c; ++l) {
      db[block * lanes + l] = static_cast<float>(sum[l]);
    }
  });
}

}  // namespace

std::unique_ptr<Kernel> make_conv(const NodeSpec& node, Context& context) {
  return std::make_unique<Forward>(node, context);
}

// (dy, w) to dx
std::unique_ptr<Kernel> make_conv_backward_data(const NodeSpec& node, Context& context) {
  const auto& a = ops::as<ops::ConvAttrs>(node.attrs);
  auto conv = std::make_shared<Conv>(shape_of(a, node.out[0].shape), ConvPass::backward_data,
                                     options_of(a, context));
  return adapt(conv->workspace(), [conv, &pool = context.pool](const Args& args) {
    conv->backward_data(pool, in(args, 0), in(args, 1), out(args, 0), args.workspace);
  });
}

// (x, dy) to (dw[, db])
std::unique_ptr<Kernel> make_conv_backward_weight(const NodeSpec& node, Context& context) {
  const auto& a = ops::as<ops::ConvAttrs>(node.attrs);
  auto conv = std::make_shared<Conv>(shape_of(a, node.in[0].shape), ConvPass::backward_weight,
                                     options_of(a, context));
  const Map map = map_of(node.in[1]);
  return adapt(
      conv->workspace(), [conv, map, bias = a.bias, &pool = context.pool](const Args& args) {
        conv->backward_weight(pool, in(args, 0), in(args, 1), out(args, 0), args.workspace);
        if (bias && args.out[1] != nullptr) bias_gradient(pool, map, in(args, 1), out(args, 1));
      });
}

// (w, gamma, beta, mean, var) to (w gamma / sqrt(var + eps), beta - mean gamma / sqrt(var + eps))
std::unique_ptr<Kernel> make_fold_batch_norm(const NodeSpec& node, Context& context) {
  const Shape& w = node.in[0].shape;
  const Filter filter{w[0], w[1], w[2], w[3]};
  const double eps = ops::as<ops::FoldAttrs>(node.attrs).eps;
  return adapt(0, [filter, eps, &pool = context.pool](const Args& args) {
    const float *weight = in(args, 0), *gamma = in(args, 1), *beta = in(args, 2),
                *mean = in(args, 3), *var = in(args, 4);
    float *folded = out(args, 0), *bias = out(args, 1);
    const int64_t per_block = filter.size() / filter.out_blocks();
    pool.run(filter.out_blocks(), [&](int64_t block, int) {
      float scale[kChannelBlock] = {};  // padding lanes stay zero
      for (int64_t l = 0; l < kChannelBlock && block * kChannelBlock + l < filter.o; ++l) {
        const int64_t c = block * kChannelBlock + l;
        const double s = gamma[c] / std::sqrt(static_cast<double>(var[c]) + eps);
        scale[l] = static_cast<float>(s);
        bias[c] = static_cast<float>(beta[c] - mean[c] * s);
      }
      const float* from = weight + block * per_block;
      float* to = folded + block * per_block;
      for (int64_t i = 0; i < per_block; i += kChannelBlock) {
        for (int64_t l = 0; l < kChannelBlock; ++l) to[i + l] = from[i + l] * scale[l];
      }
    });
  });
}

}  // namespace panns::cpu
