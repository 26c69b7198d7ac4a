// conv: cross-correlation of (N, C, T, F) with (O, C / groups, kT, kF), as torch.nn.Conv2d; a 1-d
// network is the same with F = 1. The epilogue (bias, relu, 2x2 average pool, sums) is set by
// fusion.
#include "ops/op.h"

namespace panns::ops {
namespace {

int64_t extent(const ConvAttrs& a, int64_t in, int axis) {
  return (in + 2 * a.padding[axis] - a.dilation[axis] * (a.kernel[axis] - 1) - 1) / a.stride[axis] +
         1;
}

Shape filter(const ConvAttrs& a, int64_t channels) {
  return {a.out_channels, channels / a.groups, a.kernel[0], a.kernel[1]};
}

Specs infer(const Attrs& attrs, const Specs& in, const std::string& where) {
  const auto& a = as<ConvAttrs>(attrs);
  expect_map(in[0], where);
  const Shape& x = in[0].shape;
  PANNS_CHECK(in[1].shape == filter(a, x[1]), "ERR_PANNS_SHAPE", where, "expected a weight of ",
              filter(a, x[1]), ", got ", in[1].shape, " (x is ", x, ")");
  for (int i = 0; i < 2; ++i) {
    PANNS_CHECK(x[2 + i] + 2 * a.padding[i] >= a.dilation[i] * (a.kernel[i] - 1) + 1,
                "ERR_PANNS_SHAPE", where, "expected at least ",
                a.dilation[i] * (a.kernel[i] - 1) + 1 - 2 * a.padding[i],
                i == 0 ? " frames" : " frequency bins", ", got ", x[2 + i], " (x is ", x, ")");
  }
  Shape y{x[0], a.out_channels, extent(a, x[2], 0), extent(a, x[3], 1)};
  if (a.avg_pool_2x2) {
    y[2] /= 2;
    y[3] /= 2;
  }
  if (!a.statistics) return {{y, Form::map}};
  const TensorSpec sums{Shape{a.out_channels}, Form::dense};
  return {{y, Form::map}, sums, sums};
}

void grad(GradContext& g) {
  auto a = as<ConvAttrs>(g.attrs());
  const Shape& x = g.spec(g.input(0)).shape;
  a.in_extent = {x[2], x[3]};
  a.in_channels = x[1];
  a.statistics = false;
  if (g.wants(1)) {
    const auto out = g.emit(Op::conv_backward_weight, a, {g.input(0), g.grad()});
    g.add(1, out[0]);
    if (a.bias && g.wants(2)) g.add(2, out[1]);
  }
  if (g.wants(0)) g.add(0, g.emit(Op::conv_backward_data, a, {g.grad(), g.input(1)})[0]);
}

// Every pass does as many multiply-adds as forward; y is what the convolution itself makes.
Cost cost(const ConvAttrs& a, const Shape& y, int64_t in_channels) {
  return {2.0 * static_cast<double>(y.size()) * static_cast<double>(in_channels / a.groups) *
          static_cast<double>(a.kernel[0] * a.kernel[1])};
}

}  // namespace

const OpDef conv_def = {
    .name = "conv",
    .infer = infer,
    .params = [](const Attrs& attrs, const TensorSpec& x,
                 const std::string& where) -> std::vector<ParamSpec> {
      const auto& a = as<ConvAttrs>(attrs);
      expect_map(x, where);
      const int64_t c = x.shape[1];
      PANNS_CHECK(c % a.groups == 0 && a.out_channels % a.groups == 0, "ERR_PANNS_SHAPE", where,
                  "expected channels that ", a.groups, " groups divide, got ", c, " in and ",
                  a.out_channels, " out");
      std::vector<ParamSpec> p{{"weight", {filter(a, c), Form::filter}, a.init, true}};
      if (a.bias) p.push_back({"bias", {Shape{a.out_channels}, Form::dense}, Init::zeros, true});
      return p;
    },
    .grad = grad,
    .cost = [](const Attrs& attrs, const Specs& in, const Specs&) -> Cost {
      const auto& a = as<ConvAttrs>(attrs);
      // A pool behind it drops an odd row or column, which is computed all the same.
      const Shape& x = in[0].shape;
      return cost(a, {x[0], a.out_channels, extent(a, x[2], 0), extent(a, x[3], 1)}, x[1]);
    },
    .parse = [](AttrMap& map) -> Attrs { return ConvAttrs::parse(map); },
};

const OpDef conv_backward_data_def = {
    .name = "conv_backward_data",
    .infer = [](const Attrs& attrs, const Specs& in, const std::string&) -> Specs {
      const auto& a = as<ConvAttrs>(attrs);
      return {{Shape{in[0].shape[0], a.in_channels, a.in_extent[0], a.in_extent[1]}, Form::map}};
    },
    .cost = [](const Attrs& attrs, const Specs& in, const Specs&) -> Cost {
      return cost(as<ConvAttrs>(attrs), in[0].shape, as<ConvAttrs>(attrs).in_channels);
    },
};

const OpDef conv_backward_weight_def = {
    .name = "conv_backward_weight",
    .infer = [](const Attrs& attrs, const Specs& in, const std::string&) -> Specs {
      const auto& a = as<ConvAttrs>(attrs);
      Specs out{{filter(a, in[0].shape[1]), Form::filter}};
      if (a.bias) out.push_back({Shape{a.out_channels}, Form::dense});
      return out;
    },
    .cost = [](const Attrs& attrs, const Specs& in, const Specs&) -> Cost {
      return cost(as<ConvAttrs>(attrs), in[1].shape, in[0].shape[1]);
    },
};

}  // namespace panns::ops
