#include <cstdio>

#include "graph/graph.h"
#include "graph/plan.h"
#include "graph/program.h"

namespace panns::graph {
namespace {

std::string column(std::string s, size_t width) {
  if (s.size() < width) s.append(width - s.size(), ' ');
  return s;
}

std::string name(const Graph& g, ValueId v) {
  const Value& value = g.values[static_cast<size_t>(v)];
  if (value.kind == Kind::input) return value.name;
  if (value.kind != Kind::activation) return value.name.substr(value.name.rfind('.') + 1);
  return "%" + std::to_string(v);
}

std::string mib(size_t bytes) {
  char s[32];
  std::snprintf(s, sizeof(s), "%.2f MiB", static_cast<double>(bytes) / (1 << 20));
  return s;
}

std::string line(const Graph& g, const Node& n, const Plan* plan) {
  std::string out;
  for (ValueId v : n.out) out += (out.empty() ? "" : ", ") + name(g, v);
  std::string in;
  for (ValueId v : n.in) in += (in.empty() ? "" : ", ") + name(g, v);
  std::string shape = n.out.empty() ? "" : g.spec(n.out[0]).shape.text();
  std::string s =
      column(n.path, 26) +
      column(out + (out.empty() ? "" : " = ") + ops::def(n.op).name + "(" + in + ")", 56) + " " +
      column(shape, 18) + ops::text(n.attrs);
  if (n.constant) s += " [once]";
  if (plan != nullptr) {
    for (ValueId v : n.out) {
      const size_t at = plan->offset[static_cast<size_t>(v)];
      if (at == Plan::kNowhere) continue;
      s += " @" + std::to_string(at) + "+" + std::to_string(plan->bytes[static_cast<size_t>(v)]);
    }
  }
  return s;
}

}  // namespace

std::string text(const Graph& g) {
  std::string s;
  for (const Node& n : g.nodes) s += line(g, n, nullptr) + "\n";
  for (const auto& [output, v] : g.outputs) {
    s += column("output", 26) + output + " = " + name(g, v) + " " + g.spec(v).shape.text() + "\n";
  }
  return s;
}

std::string Program::text() const {
  std::string s;
  for (const Node& n : graph_.nodes) s += line(graph_, n, &plan_) + "\n";
  for (const auto& [output, v] : graph_.outputs) {
    s += column("output", 26) + output + " = " + name(graph_, v) + " " +
         graph_.spec(v).shape.text() + "\n";
  }
  char work[64];
  std::snprintf(work, sizeof(work), "%.3f GFLOP", flops_ * 1e-9);
  s += cat("nodes ", graph_.nodes.size(), ", ", work, ", arena ", mib(plan_.arena_bytes), " (",
           mib(plan_.sum_bytes), " without reuse), scratch ", mib(workspace_), "\n");
  return s;
}

}  // namespace panns::graph
