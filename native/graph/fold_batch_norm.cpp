// With running statistics conv and the norm behind it are one affine map: w' = w * gamma / sqrt(var
// + eps), b' = beta - mean * gamma / sqrt(var + eps). The folding itself is a constant node: it
// runs when the parameters change, not with every clip.
#include "graph/graph.h"

namespace panns::graph {

void fold_batch_norm(Graph& g) {
  const auto uses = g.uses();
  std::map<ValueId, size_t> conv_of;      // value to the conv that makes it
  std::map<size_t, const Node*> norm_of;  // conv to the norm that it takes in
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    const Node& n = g.nodes[i];
    if (n.op == ops::Op::conv) conv_of[n.out[0]] = i;
    if (n.op != ops::Op::batch_norm || !conv_of.count(n.in[0])) continue;
    const size_t conv = conv_of[n.in[0]];
    const auto& norm = ops::as<ops::BatchNormAttrs>(n.attrs);
    const bool plain = !ops::as<ops::ConvAttrs>(g.nodes[conv].attrs).bias;
    const bool affine = !norm.training && norm.axis == ops::Axis::channel && n.frozen;
    if (plain && affine && uses[static_cast<size_t>(n.in[0])] == 1) norm_of[conv] = &n;
  }
  if (norm_of.empty()) return;

  std::vector<Node> old = g.nodes;
  std::map<const Node*, const Node*> copy;
  for (size_t i = 0; i < old.size(); ++i) copy[&g.nodes[i]] = &old[i];
  std::map<size_t, const Node*> folds;
  std::map<const Node*, bool> folded;
  for (const auto& [conv, norm] : norm_of) {
    folds[conv] = copy[norm];
    folded[copy[norm]] = true;
  }
  std::map<ValueId, ValueId> replaced;
  g.nodes.clear();
  for (size_t i = 0; i < old.size(); ++i) {
    if (folded.count(&old[i])) continue;
    Node n = old[i];
    for (ValueId& v : n.in) {
      if (replaced.count(v)) v = replaced[v];
    }
    if (folds.count(i)) {
      const Node& norm = *folds[i];
      const ops::FoldAttrs fold{ops::as<ops::BatchNormAttrs>(norm.attrs).eps};
      Node& f = g.add_node(ops::Op::fold_batch_norm, fold, norm.path,
                           {n.in[1], norm.in[1], norm.in[2], norm.in[3], norm.in[4]});
      f.constant = f.frozen = true;
      n.in = {n.in[0], f.out[0], f.out[1]};
      std::get<ops::ConvAttrs>(n.attrs).bias = true;
      replaced[norm.out[0]] = n.out[0];
    }
    g.nodes.push_back(std::move(n));
  }
  for (auto& [name, v] : g.outputs) {
    if (replaced.count(v)) v = replaced[v];
  }
}

}  // namespace panns::graph
