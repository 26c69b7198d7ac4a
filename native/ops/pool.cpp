// pool: mean, maximum or both summed over windows of T x F. Rounds as PyTorch does: floor, padding
// counted in the mean, never the maximum.
#include "ops/op.h"

namespace panns::ops {

const OpDef pool_def = {
    .name = "pool",
    .infer = [](const Attrs& attrs, const Specs& in, const std::string& where) -> Specs {
      const auto& a = as<PoolAttrs>(attrs);
      expect_map(in[0], where);
      TensorSpec y = in[0];
      for (int i = 0; i < 2; ++i) {
        const int64_t span = in[0].shape[2 + i] + 2 * a.padding[i] - a.kernel[i];
        PANNS_CHECK(span >= 0, "ERR_PANNS_SHAPE", where, "expected at least ",
                    a.kernel[i] - 2 * a.padding[i], i == 0 ? " frames" : " frequency bins",
                    " to pool over, got ", in[0].shape[2 + i], " (x is ", in[0].shape, ")");
        y.shape[2 + i] = span / a.stride[i] + 1;
      }
      return {y};
    },
    .grad =
        [](GradContext& g) {
          g.add(0, g.emit(Op::pool_backward, as<PoolAttrs>(g.attrs()), {g.input(0), g.grad()})[0]);
        },
    .parse = [](AttrMap& map) -> Attrs { return PoolAttrs::parse(map); },
};

const OpDef pool_backward_def = {
    .name = "pool_backward",
    .infer = [](const Attrs&, const Specs& in, const std::string&) -> Specs { return {in[0]}; },
};

}  // namespace panns::ops
