// Losses: predictions (N, K) and targets (N, K) to one number.
// bce: binary cross-entropy on probabilities, mean over N * K, its logarithms clamped at -100 as
// PyTorch does and PANNs train with. cross_entropy: on logits, with target distributions, mean
// over N.
#include "ops/op.h"

namespace panns::ops {
namespace {

Specs infer(const Attrs&, const Specs& in, const std::string& where) {
  expect_dense(in[0], 2, where);
  PANNS_CHECK(in[0].shape == in[1].shape, "ERR_PANNS_SHAPE", where, "expected targets of ",
              in[0].shape, ", got ", in[1].shape);
  return {{Shape{1}, Form::dense}};
}

// The loss is the root of differentiation: its own gradient is one.
template <Op backward>
void grad(GradContext& g) {
  g.add(0, g.emit(backward, NoAttrs{}, {g.input(0), g.input(1)})[0]);
}

Specs same(const Attrs&, const Specs& in, const std::string&) { return {in[0]}; }

}  // namespace

const OpDef bce_def = {.name = "bce", .infer = infer, .grad = grad<Op::bce_backward>, .inputs = 2};
const OpDef bce_backward_def = {.name = "bce_backward", .infer = same, .inputs = 2};
const OpDef cross_entropy_def = {
    .name = "cross_entropy", .infer = infer, .grad = grad<Op::cross_entropy_backward>, .inputs = 2};
const OpDef cross_entropy_backward_def = {
    .name = "cross_entropy_backward", .infer = same, .inputs = 2};

}  // namespace panns::ops
