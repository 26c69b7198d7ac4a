// dropout: y = x * keep / (1 - p), keep drawn from Philox(seed, step, mask, element); its gradient
// is the same op on dy. Training only: parse leaves it out at inference.
#include "ops/op.h"

namespace panns::ops {

const OpDef dropout_def = {
    .name = "dropout",
    .infer = [](const Attrs&, const Specs& in, const std::string&) -> Specs { return {in[0]}; },
    .grad =
        [](GradContext& g) {
          g.add(0, g.emit(Op::dropout, as<DropoutAttrs>(g.attrs()), {g.grad()})[0]);
        },
    .parse = [](AttrMap& map) -> Attrs { return DropoutAttrs::parse(map); },
};

}  // namespace panns::ops
