// The graph: values in single assignment and the nodes that make them, in the order they run.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "ops/op.h"

namespace panns::graph {

using ops::kNoValue;
using ops::ValueId;

enum class Kind : uint8_t {
  input,      // given for each run: waveform, target, mixup_lambda
  parameter,  // trainable, lives in the model
  buffer,     // not trainable, lives in the model; batch_norm moves it in training
  activation  // made by a node
};

struct Value {
  std::string name;
  ops::TensorSpec spec;
  Kind kind = Kind::activation;
  ops::Init init = ops::Init::zeros;  // of parameters and buffers
};

struct Node {
  ops::Op op;
  ops::Attrs attrs;
  std::string path;  // of the module, as PyTorch prefixes its parameters
  std::vector<ValueId> in, out;
  bool constant = false;  // depends on parameters alone: run when they change, not on every run
  bool frozen = false;    // nothing at or before it trains: it may run as at inference
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::map<std::string, ValueId> outputs;  // named results that must be kept
  std::map<ValueId, ValueId> gradients;    // of parameters, after autodiff
  bool training = false;

  const ops::TensorSpec& spec(ValueId v) const { return values[static_cast<size_t>(v)].spec; }
  ValueId add_value(Value value);
  // Infers the output specs and appends the node.
  Node& add_node(ops::Op op, ops::Attrs attrs, std::string path, std::vector<ValueId> in);
  // How often each value is read, outputs and gradients counted.
  std::vector<int> uses() const;
  // Throws ERR_PANNS_INTERNAL unless every value is made once and before it is read.
  void verify() const;
};

// ---- parse: a model's spec to a graph

// A node of a spec; inputs index the spec's earlier nodes, or name graph inputs.
struct SpecNode {
  std::string op, path;
  std::vector<std::string> inputs;  // "#3" for node 3, else an input's name
  ops::AttrMap attrs;
};

struct Spec {
  std::string name;
  std::vector<SpecNode> nodes;
  std::map<std::string, int> outputs;
};

struct ParseOptions {
  int64_t batch = 1, samples = 0;
  bool training = false;
  bool mixup = false;  // training: the input holds 2 * batch clips
  // Of a spec's node: its result (batch, samples) is the graph's input, "features", and what it is
  // made of is left out, with the outputs that need that. Negative: none, the input is a waveform.
  int from = -1;
  // training: whether a parameter of that name stays as it is. A norm whose gamma and beta do uses
  // its running statistics, as at inference. Null: none.
  std::function<bool(const std::string&)> still;
  bool sync_norms = false;  // training: norms see the rows of all processes
};

// Training-only ops (dropout, spec_augment, mixup) are left out at inference, and mixup unless it
// is asked for. Throws ERR_PANNS_SPEC or ERR_PANNS_SHAPE, naming the node.
Graph parse(const Spec& spec, const ParseOptions& options);

// ---- passes; each leaves a graph that computes the same

// Appends the gradient of the loss with respect to every parameter in `trainable`.
void autodiff(Graph& graph, ValueId loss, const std::vector<bool>& trainable);
// Drops nodes whose outputs nobody uses.
void prune(Graph& graph);
// By value: whether a trainable one leads to it.
std::vector<bool> reached(const Graph& graph, const std::vector<bool>& trainable);
// Marks the nodes that no value in `trainable` leads to: they are never differentiated.
void mark_frozen(Graph& graph, const std::vector<bool>& trainable);
// A frozen conv followed by a norm with running statistics becomes one conv with bias.
void fold_batch_norm(Graph& graph);

// ---- text

// One line a node, as legible as a hand-written forward pass, then the totals.
std::string text(const Graph& graph);

}  // namespace panns::graph
