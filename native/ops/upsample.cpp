// upsample: scores of segments (N, K, S, 1) to scores of frames (N, T, K), T being that of a second
// map: each segment stands for `ratio` frames, the last one for the rest too. For reading only:
// detection heads train on what they pool.
#include "ops/op.h"

namespace panns::ops {

const OpDef upsample_def = {
    .name = "upsample",
    .infer = [](const Attrs&, const Specs& in, const std::string& where) -> Specs {
      expect_map(in[0], where);
      expect_map(in[1], where);
      const Shape &x = in[0].shape, &like = in[1].shape;
      PANNS_CHECK(x[3] == 1 && x[0] == like[0], "ERR_PANNS_SHAPE", where,
                  "expected segments with one frequency bin and frames of as many clips, got ", x,
                  " and ", like);
      return {{Shape{x[0], like[2], x[1]}, Form::dense}};
    },
    .parse = [](AttrMap& map) -> Attrs { return UpsampleAttrs::parse(map); },
    .inputs = 2,
};

}  // namespace panns::ops
