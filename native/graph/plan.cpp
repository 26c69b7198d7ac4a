#include "graph/plan.h"

#include <algorithm>
#include <numeric>

namespace panns::graph {

Plan plan(const Graph& g, size_t alignment,
          const std::function<size_t(const ops::TensorSpec&)>& bytes,
          const std::vector<bool>& elsewhere, bool reuse) {
  const size_t values = g.values.size();
  const int end = static_cast<int>(g.nodes.size());
  Plan p;
  p.offset.assign(values, Plan::kNowhere);
  p.bytes.assign(values, 0);
  p.first.assign(values, end + 1);
  p.last.assign(values, -2);
  const auto uses = g.uses();
  for (size_t v = 0; v < values; ++v) {
    if (g.values[v].kind == Kind::input && uses[v] > 0) p.first[v] = p.last[v] = -1;
  }
  for (int i = 0; i < end; ++i) {
    const Node& n = g.nodes[static_cast<size_t>(i)];
    for (ValueId v : n.in) p.last[static_cast<size_t>(v)] = i;
    for (ValueId v : n.out) {
      p.first[static_cast<size_t>(v)] = i;
      p.last[static_cast<size_t>(v)] = i;
      // A constant is made once and read on every run.
      if (n.constant) p.first[static_cast<size_t>(v)] = -1;
    }
  }
  for (const Node& n : g.nodes) {
    if (!n.constant) continue;
    for (ValueId v : n.out) p.last[static_cast<size_t>(v)] = end;
  }
  for (const auto& [name, v] : g.outputs) p.last[static_cast<size_t>(v)] = end;
  for (const auto& [param, v] : g.gradients) p.last[static_cast<size_t>(v)] = end;

  std::vector<size_t> order;
  for (size_t v = 0; v < values; ++v) {
    if (elsewhere[v] || uses[v] == 0 || p.first[v] > end) continue;
    p.bytes[v] = (bytes(g.values[v].spec) + alignment - 1) / alignment * alignment;
    p.sum_bytes += p.bytes[v];
    order.push_back(v);
  }
  // Big values first, each at the lowest place free for the whole of its life.
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return p.bytes[a] > p.bytes[b]; });
  std::vector<size_t> placed;
  for (size_t v : order) {
    std::vector<std::pair<size_t, size_t>> taken;  // [begin, end) of values alive at the same time
    for (size_t o : placed) {
      const bool apart = reuse && (p.last[o] < p.first[v] || p.last[v] < p.first[o]);
      if (!apart) taken.emplace_back(p.offset[o], p.offset[o] + p.bytes[o]);
    }
    std::sort(taken.begin(), taken.end());
    size_t at = 0;
    for (const auto& [begin, stop] : taken) {
      if (begin >= at + p.bytes[v]) break;
      at = std::max(at, stop);
    }
    p.offset[v] = at;
    p.arena_bytes = std::max(p.arena_bytes, at + p.bytes[v]);
    placed.push_back(v);
  }
  return p;
}

}  // namespace panns::graph
