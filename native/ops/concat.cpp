// concat: the channels of two feature maps one after the other.
#include "ops/op.h"

namespace panns::ops {

const OpDef concat_def = {
    .name = "concat",
    .infer = [](const Attrs&, const Specs& in, const std::string& where) -> Specs {
      expect_map(in[0], where);
      expect_map(in[1], where);
      const Shape &a = in[0].shape, &b = in[1].shape;
      PANNS_CHECK(a[0] == b[0] && a[2] == b[2] && a[3] == b[3], "ERR_PANNS_SHAPE", where,
                  "expected two maps that differ in channels alone, got ", a, " and ", b);
      return {{Shape{a[0], a[1] + b[1], a[2], a[3]}, Form::map}};
    },
    .grad =
        [](GradContext& g) {
          const ConcatAttrs a{{g.spec(g.input(0)).shape[1], g.spec(g.input(1)).shape[1]}};
          const auto out = g.emit(Op::concat_backward, a, {g.grad()});
          for (int i = 0; i < 2; ++i) {
            if (g.wants(i)) g.add(i, out[static_cast<size_t>(i)]);
          }
        },
    .parse = [](AttrMap& map) -> Attrs { return ConcatAttrs::parse(map); },
    .inputs = 2,
};

// dy to the gradients of both maps.
const OpDef concat_backward_def = {
    .name = "concat_backward",
    .infer = [](const Attrs& attrs, const Specs& in, const std::string&) -> Specs {
      const Pair& c = as<ConcatAttrs>(attrs).channels;
      const Shape& y = in[0].shape;
      return {{Shape{y[0], c[0], y[2], y[3]}, Form::map},
              {Shape{y[0], c[1], y[2], y[3]}, Form::map}};
    },
};

}  // namespace panns::ops
