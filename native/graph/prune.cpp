#include "graph/graph.h"

namespace panns::graph {

void prune(Graph& g) {
  std::vector<bool> used(g.values.size(), false);
  for (const auto& [name, v] : g.outputs) used[static_cast<size_t>(v)] = true;
  for (const auto& [p, v] : g.gradients) used[static_cast<size_t>(v)] = true;
  std::vector<Node> kept;
  for (size_t i = g.nodes.size(); i-- > 0;) {
    Node& n = g.nodes[i];
    // A node without outputs works in place (an optimizer): it stays.
    bool keep = n.out.empty();
    for (ValueId v : n.out) keep = keep || used[static_cast<size_t>(v)];
    if (!keep) continue;
    for (ValueId v : n.in) used[static_cast<size_t>(v)] = true;
    kept.push_back(std::move(n));
  }
  g.nodes.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
}

}  // namespace panns::graph
