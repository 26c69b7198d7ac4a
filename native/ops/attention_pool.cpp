// attention_pool: two maps (N, K, T, 1), attention a and scores x, to (N, K): the mean of x over
// time, weighted by softmax over time of a clamped to -10..10 (the head of Cnn14_DecisionLevelAtt).
#include "ops/op.h"

namespace panns::ops {

const OpDef attention_pool_def = {
    .name = "attention_pool",
    .infer = [](const Attrs&, const Specs& in, const std::string& where) -> Specs {
      expect_map(in[0], where);
      const Shape& a = in[0].shape;
      PANNS_CHECK(a == in[1].shape && in[1].form == Form::map && a[3] == 1, "ERR_PANNS_SHAPE",
                  where, "expected two maps of one shape with one frequency bin, got ", a, " and ",
                  in[1].shape);
      return {{Shape{a[0], a[1]}, Form::dense}};
    },
    .grad =
        [](GradContext& g) {
          const auto out =
              g.emit(Op::attention_pool_backward, NoAttrs{}, {g.input(0), g.input(1), g.grad()});
          for (int i = 0; i < 2; ++i) {
            if (g.wants(i)) g.add(i, out[static_cast<size_t>(i)]);
          }
        },
    .parse = [](AttrMap& map) -> Attrs { return NoAttrs::parse(map); },
    .inputs = 2,
};

// (a, x, dy) to (da, dx); where a was clamped its gradient is 0.
const OpDef attention_pool_backward_def = {
    .name = "attention_pool_backward",
    .infer = [](const Attrs&, const Specs& in, const std::string&) -> Specs {
      return {in[0], in[1]};
    },
};

}  // namespace panns::ops
