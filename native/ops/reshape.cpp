// unsqueeze: samples (N, S) to a feature map (N, 1, S, 1), for networks that read the waveform.
// fold: a map (N, G * bins, T, 1) to (N, G, T, bins); channel g * bins + f becomes bin f of channel
// g, as Wavegram arranges its learned features like a spectrogram.
#include "ops/op.h"

namespace panns::ops {

const OpDef unsqueeze_def = {
    .name = "unsqueeze",
    .infer = [](const Attrs&, const Specs& in, const std::string& where) -> Specs {
      expect_dense(in[0], 2, where);
      return {{Shape{in[0].shape[0], 1, in[0].shape[1], 1}, Form::map}};
    },
    .parse = [](AttrMap& map) -> Attrs { return NoAttrs::parse(map); },
};

const OpDef fold_def = {
    .name = "fold",
    .infer = [](const Attrs& attrs, const Specs& in, const std::string& where) -> Specs {
      const int64_t bins = as<BinsAttrs>(attrs).bins;
      expect_map(in[0], where);
      const Shape& x = in[0].shape;
      PANNS_CHECK(x[3] == 1 && x[1] % bins == 0, "ERR_PANNS_SHAPE", where,
                  "expected one frequency bin and channels that ", bins, " divides, got ", x);
      return {{Shape{x[0], x[1] / bins, x[2], bins}, Form::map}};
    },
    .grad =
        [](GradContext& g) {
          g.add(0, g.emit(Op::fold_backward, as<BinsAttrs>(g.attrs()), {g.grad()})[0]);
        },
    .parse = [](AttrMap& map) -> Attrs { return BinsAttrs::parse(map); },
};

const OpDef fold_backward_def = {
    .name = "fold_backward",
    .infer = [](const Attrs&, const Specs& in, const std::string&) -> Specs {
      const Shape& y = in[0].shape;
      return {{Shape{y[0], y[1] * y[3], y[2], 1}, Form::map}};
    },
};

}  // namespace panns::ops
