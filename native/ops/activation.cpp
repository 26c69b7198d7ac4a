// Elementwise ops and softmax. Backward reads the output, which forward keeps anyway, unless said.
#include "ops/op.h"

namespace panns::ops {
namespace {

Specs same(const Attrs&, const Specs& in, const std::string&) { return {in[0]}; }

Attrs no_attrs(AttrMap& map) { return NoAttrs::parse(map); }

}  // namespace

const OpDef relu_def = {
    .name = "relu",
    .infer = same,
    .grad =
        [](GradContext& g) {
          g.add(0, g.emit(Op::relu_backward, NoAttrs{}, {g.output(0), g.grad()})[0]);
        },
    .parse = no_attrs,
};
const OpDef relu_backward_def = {.name = "relu_backward", .infer = same};

// min(max(x, 0), 6)
const OpDef relu6_def = {
    .name = "relu6",
    .infer = same,
    .grad =
        [](GradContext& g) {
          g.add(0, g.emit(Op::relu6_backward, NoAttrs{}, {g.output(0), g.grad()})[0]);
        },
    .parse = no_attrs,
};
const OpDef relu6_backward_def = {.name = "relu6_backward", .infer = same};

// x * min(max(x + 3, 0), 6) / 6; not monotonic, so backward reads the input.
const OpDef hard_swish_def = {
    .name = "hard_swish",
    .infer = same,
    .grad =
        [](GradContext& g) {
          g.add(0, g.emit(Op::hard_swish_backward, NoAttrs{}, {g.input(0), g.grad()})[0]);
        },
    .parse = no_attrs,
};
const OpDef hard_swish_backward_def = {.name = "hard_swish_backward", .infer = same};

const OpDef sigmoid_def = {
    .name = "sigmoid",
    .infer = same,
    .grad =
        [](GradContext& g) {
          g.add(0, g.emit(Op::sigmoid_backward, NoAttrs{}, {g.output(0), g.grad()})[0]);
        },
    .parse = no_attrs,
};
const OpDef sigmoid_backward_def = {.name = "sigmoid_backward", .infer = same};

// Over the last dimension of (N, K). Training goes through cross_entropy on the logits instead.
const OpDef softmax_def = {
    .name = "softmax",
    .infer = [](const Attrs&, const Specs& in, const std::string& where) -> Specs {
      expect_dense(in[0], 2, where);
      return {in[0]};
    },
    .parse = no_attrs,
};

const OpDef add_def = {
    .name = "add",
    .infer = [](const Attrs&, const Specs& in, const std::string& where) -> Specs {
      PANNS_CHECK(in[0].shape == in[1].shape, "ERR_PANNS_SHAPE", where,
                  "expected two tensors of one shape, got ", in[0].shape, " and ", in[1].shape);
      return {in[0]};
    },
    .grad =
        [](GradContext& g) {
          for (int i = 0; i < 2; ++i) {
            if (g.wants(i)) g.add(i, g.grad());
          }
        },
    .parse = no_attrs,
    .inputs = 2,
};

}  // namespace panns::ops
