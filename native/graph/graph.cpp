#include "graph/graph.h"

namespace panns::graph {

ValueId Graph::add_value(Value value) {
  values.push_back(std::move(value));
  return static_cast<ValueId>(values.size() - 1);
}

Node& Graph::add_node(ops::Op op, ops::Attrs attrs, std::string path, std::vector<ValueId> in) {
  ops::Specs specs;
  for (ValueId v : in) specs.push_back(spec(v));
  const auto outs = ops::def(op).infer(attrs, specs, path);
  Node node{op, std::move(attrs), std::move(path), std::move(in), {}};
  for (size_t i = 0; i < outs.size(); ++i) {
    node.out.push_back(add_value({"v" + std::to_string(values.size()), outs[i]}));
  }
  nodes.push_back(std::move(node));
  return nodes.back();
}

std::vector<int> Graph::uses() const {
  std::vector<int> count(values.size(), 0);
  for (const Node& n : nodes) {
    for (ValueId v : n.in) ++count[static_cast<size_t>(v)];
  }
  for (const auto& [name, v] : outputs) ++count[static_cast<size_t>(v)];
  for (const auto& [p, g] : gradients) ++count[static_cast<size_t>(g)];
  return count;
}

void Graph::verify() const {
  std::vector<bool> made(values.size(), false);
  for (size_t v = 0; v < values.size(); ++v) made[v] = values[v].kind != Kind::activation;
  for (const Node& n : nodes) {
    for (ValueId v : n.in) {
      PANNS_CHECK(made[static_cast<size_t>(v)], "ERR_PANNS_INTERNAL", n.path, "node ",
                  ops::def(n.op).name, " reads value ", v, " before it is made");
    }
    for (ValueId v : n.out) {
      PANNS_CHECK(!made[static_cast<size_t>(v)], "ERR_PANNS_INTERNAL", n.path, "value ", v,
                  " is made twice");
      made[static_cast<size_t>(v)] = true;
    }
  }
  for (const auto& [name, v] : outputs) {
    PANNS_CHECK(made[static_cast<size_t>(v)], "ERR_PANNS_INTERNAL", name, "output is never made");
  }
}

}  // namespace panns::graph
