// spec_augment: blanks stripes of a normalised log-mel, drawn per clip (PANNs' SpecAugmentation);
// its gradient blanks the same ones. mixup: (2N, ...) and weights (2N) to (N, ...).
#include "ops/op.h"

namespace panns::ops {

const OpDef spec_augment_def = {
    .name = "spec_augment",
    .infer = [](const Attrs&, const Specs& in, const std::string& where) -> Specs {
      expect_map(in[0], where);
      PANNS_CHECK(in[0].shape[1] == 1, "ERR_PANNS_SHAPE", where, "expected one channel, got ",
                  in[0].shape);
      return {in[0]};
    },
    .grad =
        [](GradContext& g) {
          g.add(0, g.emit(Op::spec_augment, as<SpecAugmentAttrs>(g.attrs()), {g.grad()})[0]);
        },
    .parse = [](AttrMap& map) -> Attrs { return SpecAugmentAttrs::parse(map); },
};

const OpDef mixup_def = {
    .name = "mixup",
    .infer = [](const Attrs&, const Specs& in, const std::string& where) -> Specs {
      expect_pairs(in[0].shape, in[1].shape, where);
      TensorSpec y = in[0];
      y.shape[0] /= 2;
      return {y};
    },
    .grad =
        [](GradContext& g) {
          if (g.wants(0))
            g.add(0, g.emit(Op::mixup_backward, NoAttrs{}, {g.grad(), g.input(1)})[0]);
        },
    .parse = [](AttrMap& map) -> Attrs { return NoAttrs::parse(map); },
    .inputs = 2,
};

const OpDef mixup_backward_def = {
    .name = "mixup_backward",
    .infer = [](const Attrs&, const Specs& in, const std::string&) -> Specs {
      TensorSpec x = in[0];
      x.shape[0] *= 2;
      return {x};
    },
};

}  // namespace panns::ops
