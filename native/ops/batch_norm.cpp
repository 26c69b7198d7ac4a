// batch_norm: y = gamma * (x - mean) / sqrt(var + eps) + beta per channel, or per mel bin (axis
// freq: PANNs' bn0), with an optional epilogue relu, 2x2 average pool, dropout, or spec_augment and
// mixup with the clips' weights as input 5 (fusion only).
// In training the node also yields the batch's mean and 1/sqrt(var + eps), which backward needs;
// the sums of x and of x^2 are inputs 5 and 6 where the node before has them.
// A norm of a convolution of one channel (of_conv, whose weight is input 5) also yields the moments
// of x's patches, those k values that make one of the convolution's: (1 + k, k), the mean and below
// it the covariance. The statistics follow from them, and so do the gradients, with no need of the
// convolution's result: with p a patch and w a filter, mean = w . E[p], var = w . Cov[p] w.
#include "ops/op.h"

namespace panns::ops {
namespace {

int64_t features(const BatchNormAttrs& a, const Shape& x) {
  return a.axis == Axis::freq ? x[3] : x[1];
}

// Values that make one of the convolution's, of one channel.
int64_t taps(const TensorSpec& weight) { return weight.shape[2] * weight.shape[3]; }

// What a convolution in these strides makes of x, with padding of half of its odd kernel.
Shape convolved(const Pair& stride, Shape x, int64_t channels) {
  x[1] = channels;
  for (int i = 0; i < 2; ++i) x[2 + i] = (x[2 + i] - 1) / stride[i] + 1;
  return x;
}

// Of what is normalised.
Shape normalised(const BatchNormAttrs& a, const Specs& in, const std::string& where) {
  const Shape& x = in[0].shape;
  if (!a.of_conv) return x;
  const Shape& w = in[5].shape;
  PANNS_CHECK(a.axis == Axis::channel && x[1] == 1 && w.rank() == 4 && w[1] == 1 && w[2] % 2 == 1 &&
                  w[3] % 2 == 1,
              "ERR_PANNS_SHAPE", where,
              "expected one channel and a weight of it with an odd kernel, got ", x, " and ", w);
  return convolved(*a.of_conv, x, w[0]);
}

Specs infer(const Attrs& attrs, const Specs& in, const std::string& where) {
  const auto& a = as<BatchNormAttrs>(attrs);
  expect_map(in[0], where);
  const Shape x = normalised(a, in, where);
  const int64_t c = features(a, x);
  PANNS_CHECK(a.axis == Axis::channel || in[0].shape[1] == 1, "ERR_PANNS_SHAPE", where,
              "expected one channel when the norm is over frequency, got ", x);
  for (size_t i = 1; i < (a.from_sums ? 7 : 5); ++i) {
    PANNS_CHECK(in[i].shape == Shape{c}, "ERR_PANNS_SHAPE", where, "expected ", c,
                " features, got ", in[i].shape, " (x is ", x, ")");
  }
  const int64_t count = x.size() / c;
  PANNS_CHECK(!a.training || count > 1, "ERR_PANNS_SHAPE", where,
              "expected more than one value per channel in training, got ", x);
  TensorSpec y{x, Form::map};
  if (a.avg_pool_2x2) {
    y.shape[2] /= 2;
    y.shape[3] /= 2;
  }
  if (a.mixup) {
    expect_pairs(in[0].shape, in[5].shape, where);
    y.shape[0] /= 2;
  }
  if (!a.training) return {y};
  const TensorSpec row{Shape{c}, Form::dense};
  if (!a.of_conv) return {y, row, row};
  const int64_t k = taps(in[5]);
  return {y, row, row, {Shape{1 + k, k}, Form::dense}};
}

void grad(GradContext& g) {
  auto a = as<BatchNormAttrs>(g.attrs());
  // The sums lead back to x, whose gradient has their part in it.
  a.from_sums = false;
  // (x, gamma, beta, mean, invstd, dy) to (dx, dgamma, dbeta); of a norm that does not train the
  // running statistics are given, which are constants: dx = dy gamma / sqrt(var + eps).
  const ValueId mean = a.training ? g.output(1) : g.input(3);
  const ValueId deviation = a.training ? g.output(2) : g.input(4);
  std::vector<ValueId> from{g.input(0), g.input(1), g.input(2), mean, deviation, g.grad()};
  if (a.mixup) from.push_back(g.input(5));
  // Of a convolution's norm (w, moments) too, to dw.
  if (a.of_conv) from.insert(from.end(), {g.input(5), g.output(3)});
  const auto out = g.emit(Op::batch_norm_backward, a, from);
  for (int i = 0; i < 3; ++i) {
    if (g.wants(i)) g.add(i, out[static_cast<size_t>(i)]);
  }
  if (a.of_conv && g.wants(5)) g.add(5, out[3]);
}

// That of the convolution inside: `passes` times as many multiply-adds as forward.
Cost conv_cost(const BatchNormAttrs& a, const Specs& in, size_t weight, double passes) {
  if (!a.of_conv) return {};
  const Shape& w = in[weight].shape;
  return {2.0 * passes * static_cast<double>(convolved(*a.of_conv, in[0].shape, w[0]).size()) *
          static_cast<double>(taps(in[weight]))};
}

}  // namespace

const OpDef batch_norm_def = {
    .name = "batch_norm",
    .infer = infer,
    .params = [](const Attrs& attrs, const TensorSpec& x,
                 const std::string& where) -> std::vector<ParamSpec> {
      const auto& a = as<BatchNormAttrs>(attrs);
      expect_map(x, where);
      const TensorSpec c{Shape{features(a, x.shape)}, Form::dense};
      return {{"weight", c, a.zero_gamma ? Init::zeros : Init::ones, true},
              {"bias", c, Init::zeros, true},
              {"running_mean", c, Init::zeros, false},
              {"running_var", c, Init::ones, false}};
    },
    .grad = grad,
    .cost = [](const Attrs& attrs, const Specs& in, const Specs&) -> Cost {
      return conv_cost(as<BatchNormAttrs>(attrs), in, 5, 1);
    },
    .parse = [](AttrMap& map) -> Attrs { return BatchNormAttrs::parse(map); },
};

const OpDef batch_norm_backward_def = {
    .name = "batch_norm_backward",
    .infer = [](const Attrs& attrs, const Specs& in, const std::string&) -> Specs {
      if (as<BatchNormAttrs>(attrs).of_conv) return {in[0], in[1], in[2], in[6]};
      return {in[0], in[1], in[2]};
    },
    .cost = [](const Attrs& attrs, const Specs& in, const Specs&) -> Cost {
      // A strided one has no gradient of x.
      const auto& a = as<BatchNormAttrs>(attrs);
      return conv_cost(a, in, 6, a.of_conv == Pair{1, 1} ? 2 : 1);
    },
};

// (w, gamma, beta, running_mean, running_var) to the weight and bias of conv followed by norm.
const OpDef fold_batch_norm_def = {
    .name = "fold_batch_norm",
    .infer = [](const Attrs&, const Specs& in, const std::string&) -> Specs {
      return {in[0], in[2]};
    },
    .inputs = 5,
};

}  // namespace panns::ops
