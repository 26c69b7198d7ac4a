// What an op is: names, values' shapes, and the table of definitions. No arithmetic happens here.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/shape.h"
#include "ops/attrs.h"

namespace panns::ops {

enum class Op : uint8_t {
#define PANNS_OP(name, Attrs) name,
#include "ops/list.inc"
#undef PANNS_OP
};

// How a backend may store a value: `dense` is row-major everywhere; a feature `map` (N, C, T, F)
// and a conv `filter` (O, I, kT, kF) have each backend's own layout.
enum class Form : uint8_t { dense, map, filter };

struct TensorSpec {
  Shape shape;
  Form form = Form::dense;
};

// A parameter or buffer that a node owns, as PyTorch names it below the node's path.
struct ParamSpec {
  const char* suffix;
  TensorSpec tensor;
  Init init;
  bool trainable;  // false: a buffer, such as a running mean
};

using ValueId = int32_t;
constexpr ValueId kNoValue = -1;

// What a grad rule sees of the node it differentiates, and how it appends nodes.
class GradContext {
 public:
  virtual ~GradContext() = default;
  virtual const Attrs& attrs() const = 0;
  virtual ValueId input(int i) const = 0;
  virtual ValueId output(int i) const = 0;
  virtual const TensorSpec& spec(ValueId v) const = 0;
  // The gradient that arrived at output 0.
  virtual ValueId grad() const = 0;
  // Whether input i leads to anything trainable.
  virtual bool wants(int i) const = 0;
  // Appends a node and returns its outputs.
  virtual std::vector<ValueId> emit(Op op, Attrs attrs, std::vector<ValueId> inputs) = 0;
  // Adds to the gradient of input i.
  virtual void add(int i, ValueId gradient) = 0;
};

struct Cost {
  double flops = 0;  // a multiply-add counts as two
};

using Specs = std::vector<TensorSpec>;

struct OpDef {
  const char* name;
  // Output specs from input specs (parameters included); throws ERR_PANNS_SHAPE.
  std::function<Specs(const Attrs&, const Specs& in, const std::string& where)> infer;
  // The parameters of a node from its first input; null if the op has none.
  std::function<std::vector<ParamSpec>(const Attrs&, const TensorSpec& x, const std::string& where)>
      params = nullptr;
  // Null if nothing can be differentiated through the op.
  std::function<void(GradContext&)> grad = nullptr;
  std::function<Cost(const Attrs&, const Specs& in, const Specs& out)> cost = nullptr;
  // Reads the attributes of a spec's node; null if a spec may not name the op.
  std::function<Attrs(AttrMap&)> parse = nullptr;
  // How many inputs a spec's node has, parameters not counted.
  int inputs = 1;
  // Whether it writes its inputs, but for gradients (the second one), instead of making outputs.
  bool in_place = false;
};

#define PANNS_OP(name, Attrs) extern const OpDef name##_def;
#include "ops/list.inc"
#undef PANNS_OP

const OpDef& def(Op op);
// The op of that name; throws ERR_PANNS_SPEC naming the ops there are.
Op find(const std::string& name, const std::string& where);

// The attributes of an op whose list.inc line names that struct.
template <typename T>
const T& as(const Attrs& attrs) {
  return std::get<T>(attrs);
}

// Throws ERR_PANNS_SHAPE unless the spec is a feature map (N, C, T, F).
void expect_map(const TensorSpec& x, const std::string& where);
// Throws ERR_PANNS_SHAPE unless the spec is dense with that rank.
void expect_dense(const TensorSpec& x, int rank, const std::string& where);
// Throws ERR_PANNS_SHAPE unless the clips of x make pairs, with one weight a clip.
void expect_pairs(const Shape& x, const Shape& weights, const std::string& where);

}  // namespace panns::ops
