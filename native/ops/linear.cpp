// linear: y = x W^T + b on (N, I) with W (O, I), as torch.nn.Linear; relu is set by fusion.
#include "ops/op.h"

namespace panns::ops {
namespace {

Cost cost(const Shape& w, int64_t n) {
  return {2.0 * static_cast<double>(w.size()) * static_cast<double>(n)};
}

}  // namespace

const OpDef linear_def = {
    .name = "linear",
    .infer = [](const Attrs& attrs, const Specs& in, const std::string& where) -> Specs {
      const auto& a = as<LinearAttrs>(attrs);
      expect_dense(in[0], 2, where);
      PANNS_CHECK((in[1].shape == Shape{a.out_features, in[0].shape[1]}), "ERR_PANNS_SHAPE", where,
                  "expected a weight of ", a.out_features, "x", in[0].shape[1], ", got ",
                  in[1].shape);
      return {{Shape{in[0].shape[0], a.out_features}, Form::dense}};
    },
    .params = [](const Attrs& attrs, const TensorSpec& x,
                 const std::string& where) -> std::vector<ParamSpec> {
      const auto& a = as<LinearAttrs>(attrs);
      expect_dense(x, 2, where);
      std::vector<ParamSpec> p{
          {"weight", {Shape{a.out_features, x.shape[1]}, Form::dense}, a.init, true}};
      if (a.bias) p.push_back({"bias", {Shape{a.out_features}, Form::dense}, Init::zeros, true});
      return p;
    },
    .grad =
        [](GradContext& g) {
          const auto& a = as<LinearAttrs>(g.attrs());
          if (g.wants(1)) {
            const auto out = g.emit(Op::linear_backward_weight, a, {g.input(0), g.grad()});
            g.add(1, out[0]);
            if (a.bias && g.wants(2)) g.add(2, out[1]);
          }
          if (g.wants(0)) {
            g.add(0, g.emit(Op::linear_backward_data, a, {g.grad(), g.input(1)})[0]);
          }
        },
    .cost = [](const Attrs&, const Specs& in, const Specs&) -> Cost {
      return cost(in[1].shape, in[0].shape[0]);
    },
    .parse = [](AttrMap& map) -> Attrs { return LinearAttrs::parse(map); },
};

const OpDef linear_backward_data_def = {
    .name = "linear_backward_data",
    .infer = [](const Attrs&, const Specs& in, const std::string&) -> Specs {
      return {{Shape{in[0].shape[0], in[1].shape[1]}, Form::dense}};
    },
    .cost = [](const Attrs&, const Specs& in, const Specs&) -> Cost {
      return cost(in[1].shape, in[0].shape[0]);
    },
};

const OpDef linear_backward_weight_def = {
    .name = "linear_backward_weight",
    .infer = [](const Attrs& attrs, const Specs& in, const std::string&) -> Specs {
      Specs out{{Shape{in[1].shape[1], in[0].shape[1]}, Form::dense}};
      if (as<LinearAttrs>(attrs).bias) out.push_back({Shape{in[1].shape[1]}, Form::dense});
      return out;
    },
    .cost = [](const Attrs&, const Specs& in, const Specs& out) -> Cost {
      return cost(out[0].shape, in[0].shape[0]);
    },
};

}  // namespace panns::ops
