// batch_norm: y = gamma * (x - mean) / sqrt(var + eps) + beta per channel, or per mel bin (axis
// freq: PANNs' bn0), with an optional epilogue relu, 2x2 average pool, dropout (fusion only).
// In training the node also yields the batch's mean and 1/sqrt(var + eps), which backward needs;
// the sums of x and of x^2 are inputs 5 and 6 where the node before has them.
#include "ops/op.h"

namespace panns::ops {
namespace {

int64_t features(const BatchNormAttrs& a, const Shape& x) {
  return a.axis == Axis::freq ? x[3] : x[1];
}

Specs infer(const Attrs& attrs, const Specs& in, const std::string& where) {
  const auto& a = as<BatchNormAttrs>(attrs);
  expect_map(in[0], where);
  const int64_t c = features(a, in[0].shape);
  PANNS_CHECK(a.axis == Axis::channel || in[0].shape[1] == 1, "ERR_PANNS_SHAPE", where,
              "expected one channel when the norm is over frequency, got ", in[0].shape);
  for (size_t i = 1; i < (a.from_sums ? 7 : 5); ++i) {
    PANNS_CHECK(in[i].shape == Shape{c}, "ERR_PANNS_SHAPE", where, "expected ", c,
                " features, got ", in[i].shape, " (x is ", in[0].shape, ")");
  }
  const int64_t count = in[0].shape.size() / c;
  PANNS_CHECK(!a.training || count > 1, "ERR_PANNS_SHAPE", where,
              "expected more than one value per channel in training, got ", in[0].shape);
  TensorSpec y = in[0];
  if (a.avg_pool_2x2) {
    y.shape[2] /= 2;
    y.shape[3] /= 2;
  }
  if (!a.training) return {y};
  return {y, {Shape{c}, Form::dense}, {Shape{c}, Form::dense}};
}

void grad(GradContext& g) {
  auto a = as<BatchNormAttrs>(g.attrs());
  // The sums lead back to x, whose gradient has their part in it.
  a.from_sums = false;
  // (x, gamma, beta, mean, invstd, dy) to (dx, dgamma, dbeta); of a norm that does not train the
  // running statistics are given, which are constants: dx = dy gamma / sqrt(var + eps).
  const ValueId mean = a.training ? g.output(1) : g.input(3);
  const ValueId deviation = a.training ? g.output(2) : g.input(4);
  const auto out = g.emit(Op::batch_norm_backward, a,
                          {g.input(0), g.input(1), g.input(2), mean, deviation, g.grad()});
  for (int i = 0; i < 3; ++i) {
    if (g.wants(i)) g.add(i, out[static_cast<size_t>(i)]);
  }
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
    .parse = [](AttrMap& map) -> Attrs { return BatchNormAttrs::parse(map); },
};

const OpDef batch_norm_backward_def = {
    .name = "batch_norm_backward",
    .infer = [](const Attrs&, const Specs& in, const std::string&) -> Specs {
      return {in[0], in[1], in[2]};
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
