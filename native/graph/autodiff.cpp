// Reverse-mode differentiation: gradients are appended as ordinary nodes.
#include "graph/graph.h"

namespace panns::graph {
namespace {

class Context final : public ops::GradContext {
 public:
  Context(Graph& g, const Node& node, const std::vector<bool>& needed, std::vector<ValueId>& grads)
      : g_(g), node_(node), needed_(needed), grads_(grads) {}

  const ops::Attrs& attrs() const override { return node_.attrs; }
  ValueId input(int i) const override { return node_.in[static_cast<size_t>(i)]; }
  ValueId output(int i) const override { return node_.out[static_cast<size_t>(i)]; }
  const ops::TensorSpec& spec(ValueId v) const override { return g_.spec(v); }
  ValueId grad() const override { return grads_[static_cast<size_t>(node_.out[0])]; }
  bool wants(int i) const override { return needed_[static_cast<size_t>(input(i))]; }
  std::vector<ValueId> emit(ops::Op op, ops::Attrs attrs, std::vector<ValueId> inputs) override {
    return g_.add_node(op, std::move(attrs), node_.path, std::move(inputs)).out;
  }
  void add(int i, ValueId gradient) override {
    ValueId& sum = grads_[static_cast<size_t>(input(i))];
    sum = sum == kNoValue ? gradient : emit(ops::Op::add, ops::NoAttrs{}, {sum, gradient})[0];
  }

 private:
  Graph& g_;
  const Node& node_;
  const std::vector<bool>& needed_;
  std::vector<ValueId>& grads_;
};

}  // namespace

std::vector<bool> reached(const Graph& g, const std::vector<bool>& trainable) {
  std::vector<bool> found(g.values.size(), false);
  for (size_t v = 0; v < found.size(); ++v) found[v] = v < trainable.size() && trainable[v];
  for (const Node& n : g.nodes) {
    bool any = false;
    for (ValueId v : n.in) any = any || found[static_cast<size_t>(v)];
    if (any) {
      for (ValueId v : n.out) found[static_cast<size_t>(v)] = true;
    }
  }
  return found;
}

void mark_frozen(Graph& g, const std::vector<bool>& trainable) {
  const auto moves = reached(g, trainable);
  for (Node& n : g.nodes) {
    n.frozen = true;
    for (ValueId v : n.in) n.frozen = n.frozen && !moves[static_cast<size_t>(v)];
    if (auto* conv = std::get_if<ops::ConvAttrs>(&n.attrs)) conv->frozen = n.frozen;
  }
}

void autodiff(Graph& g, ValueId loss, const std::vector<bool>& trainable) {
  const size_t values = g.values.size(), nodes = g.nodes.size();
  // Nothing else is differentiated.
  const std::vector<bool> needed = reached(g, trainable);
  PANNS_CHECK(needed[static_cast<size_t>(loss)], "ERR_PANNS_SPEC", "training",
              "expected at least one trainable parameter that leads to the loss, got none");

  // Nodes may be appended while older ones are read: keep a copy of the forward part.
  const std::vector<Node> forward(g.nodes.begin(), g.nodes.begin() + static_cast<long>(nodes));
  std::vector<ValueId> grads(values, kNoValue);
  for (size_t i = nodes; i-- > 0;) {
    const Node& n = forward[i];
    const bool root = n.out.size() == 1 && n.out[0] == loss;
    if (n.out.empty() || (!root && grads[static_cast<size_t>(n.out[0])] == kNoValue)) continue;
    bool any = false;
    for (ValueId v : n.in) any = any || needed[static_cast<size_t>(v)];
    if (!any) continue;
    PANNS_CHECK(ops::def(n.op).grad != nullptr, "ERR_PANNS_UNSUPPORTED", n.path, "op ",
                ops::def(n.op).name, " has no gradient, so nothing before it can be trained");
    Context context(g, n, needed, grads);
    ops::def(n.op).grad(context);
  }
  for (size_t v = 0; v < values; ++v) {
    if (v < trainable.size() && trainable[v] && grads[v] != kNoValue) {
      g.gradients[static_cast<ValueId>(v)] = grads[v];
    }
  }
}

}  // namespace panns::graph
