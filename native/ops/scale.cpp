// scale: a feature map (N, C, T, F) times one factor a channel and clip (N, C): the last step of
// squeeze-and-excitation.
#include "ops/op.h"

namespace panns::ops {

const OpDef scale_def = {
    .name = "scale",
    .infer = [](const Attrs&, const Specs& in, const std::string& where) -> Specs {
      expect_map(in[0], where);
      const Shape& x = in[0].shape;
      PANNS_CHECK((in[1].shape == Shape{x[0], x[1]}), "ERR_PANNS_SHAPE", where,
                  "expected one factor a channel, ", Shape({x[0], x[1]}), ", got ", in[1].shape,
                  " (x is ", x, ")");
      return {in[0]};
    },
    .grad =
        [](GradContext& g) {
          const auto out =
              g.emit(Op::scale_backward, NoAttrs{}, {g.input(0), g.input(1), g.grad()});
          for (int i = 0; i < 2; ++i) {
            if (g.wants(i)) g.add(i, out[static_cast<size_t>(i)]);
          }
        },
    .parse = [](AttrMap& map) -> Attrs { return NoAttrs::parse(map); },
    .inputs = 2,
};

// (x, s, dy) to (dx, ds)
const OpDef scale_backward_def = {
    .name = "scale_backward",
    .infer = [](const Attrs&, const Specs& in, const std::string&) -> Specs {
      return {in[0], in[1]};
    },
};

}  // namespace panns::ops
