// Optimizers work in place on flat arenas: (parameters, gradients, slots...) and no outputs. A
// node covers one run of parameters that lie side by side.
#include "ops/op.h"

namespace panns::ops {
namespace {

Specs none(const Attrs&, const Specs&, const std::string&) { return {}; }

}  // namespace

// (gradients...) : writes the global 2-norm and the factor that clipping multiplies by into the
// step's state.
const OpDef grad_norm_def = {.name = "grad_norm", .infer = none};
// (parameters, gradients, m, v[, v_max])
const OpDef adam_def = {.name = "adam", .infer = none};
// (parameters, gradients[, momentum])
const OpDef sgd_def = {.name = "sgd", .infer = none};

}  // namespace panns::ops
