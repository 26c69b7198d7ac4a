// Optimizers work in place on flat arenas: (parameters, gradients, slots...) and no outputs. A
// node covers one run of parameters that lie side by side. The gate, where there is one, is a value
// that must be finite: else everything stays as it is.
#include "ops/op.h"

namespace panns::ops {
namespace {

Specs none(const Attrs&, const Specs&, const std::string&) { return {}; }

}  // namespace

// (gradients...) : writes the global 2-norm and the factor that clipping multiplies by into the
// step's state.
const OpDef grad_norm_def = {.name = "grad_norm", .infer = none};
// (parameters, gradients, m, v[, v_max][, gate])
const OpDef adam_def = {.name = "adam", .infer = none, .in_place = true};
// (parameters, gradients[, momentum][, gate])
const OpDef sgd_def = {.name = "sgd", .infer = none, .in_place = true};

}  // namespace panns::ops
