// reduce: over frequency (N, C, T, F) to (N, C, T, 1), or over time (N, C, T, 1) to (N, C). The
// PANNs head is the mean over frequency, then maximum plus mean over time, in this order.
#include "ops/op.h"

namespace panns::ops {

const OpDef reduce_def = {
    .name = "reduce",
    .infer = [](const Attrs& attrs, const Specs& in, const std::string& where) -> Specs {
      const auto& a = as<ReduceAttrs>(attrs);
      expect_map(in[0], where);
      const Shape& x = in[0].shape;
      if (a.axis == Axis::freq) return {{Shape{x[0], x[1], x[2], 1}, Form::map}};
      PANNS_CHECK(x[3] == 1, "ERR_PANNS_SHAPE", where,
                  "expected frequency to be reduced before time, got ", x);
      return {{Shape{x[0], x[1]}, Form::dense}};
    },
    .grad =
        [](GradContext& g) {
          g.add(0,
                g.emit(Op::reduce_backward, as<ReduceAttrs>(g.attrs()), {g.input(0), g.grad()})[0]);
        },
    .parse = [](AttrMap& map) -> Attrs { return ReduceAttrs::parse(map); },
};

const OpDef reduce_backward_def = {
    .name = "reduce_backward",
    .infer = [](const Attrs&, const Specs& in, const std::string&) -> Specs { return {in[0]}; },
};

}  // namespace panns::ops
