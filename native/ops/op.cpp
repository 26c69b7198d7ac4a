#include "ops/op.h"

namespace panns::ops {

const OpDef& def(Op op) {
  switch (op) {
#define PANNS_OP(name, Attrs) \
  case Op::name:              \
    return name##_def;
#include "ops/list.inc"
#undef PANNS_OP
  }
  throw Error("ERR_PANNS_INTERNAL", "ops::def", "expected an op of list.inc");
}

Op find(const std::string& name, const std::string& where) {
  std::string known;
#define PANNS_OP(op, Attrs)                                    \
  if (name == #op && op##_def.parse != nullptr) return Op::op; \
  if (op##_def.parse != nullptr) known += (known.empty() ? "" : ", ") + std::string(#op);
#include "ops/list.inc"
#undef PANNS_OP
  throw Error("ERR_PANNS_SPEC", where, cat("unknown op '", name, "'; expected one of ", known));
}

void expect_map(const TensorSpec& x, const std::string& where) {
  PANNS_CHECK(x.form == Form::map && x.shape.rank() == 4, "ERR_PANNS_SHAPE", where,
              "expected a feature map (N, C, T, F), got ", x.shape);
}

void expect_dense(const TensorSpec& x, int rank, const std::string& where) {
  PANNS_CHECK(x.form == Form::dense && x.shape.rank() == rank, "ERR_PANNS_SHAPE", where,
              "expected a dense tensor of ", rank, " dimensions, got ", x.shape,
              x.form == Form::map ? " (a feature map)" : "");
}

void expect_pairs(const Shape& x, const Shape& weights, const std::string& where) {
  PANNS_CHECK(x[0] % 2 == 0, "ERR_PANNS_SHAPE", where,
              "expected an even number of clips to mix in pairs, got ", x[0]);
  PANNS_CHECK(weights == Shape{x[0]}, "ERR_PANNS_SHAPE", where, "expected one weight a clip, got ",
              weights, " for ", x);
}

}  // namespace panns::ops
