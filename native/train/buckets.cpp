#include "train/buckets.h"

#include <algorithm>
#include <map>
#include <string>

namespace panns::train {

std::vector<Bucket> gradient_buckets(const graph::Graph& graph,
                                     const std::vector<graph::Parameters::Entry>& entries,
                                     size_t most_bytes, Ready when) {
  std::vector<size_t> made(graph.values.size(), 0), read(graph.values.size(), 0);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const graph::ValueId v : graph.nodes[i].in) read[static_cast<size_t>(v)] = i;
    for (const graph::ValueId v : graph.nodes[i].out) made[static_cast<size_t>(v)] = i;
  }
  std::map<std::string, size_t> ready;
  for (const auto& [parameter, gradient] : graph.gradients) {
    size_t& node = ready[graph.values[static_cast<size_t>(parameter)].name];
    node = made[static_cast<size_t>(gradient)];
    if (when == Ready::free) node = std::max(node, read[static_cast<size_t>(parameter)]);
  }
  // From the last parameter on, which is about as the backward pass goes.
  std::vector<Bucket> buckets;
  for (auto e = entries.rbegin(); e != entries.rend(); ++e) {
    const auto found = ready.find(e->name);
    if (found == ready.end()) continue;
    const size_t end = e->offset + e->bytes;
    const bool joins = !buckets.empty() && buckets.back().begin == end &&
                       buckets.back().end - e->offset <= most_bytes;
    if (!joins) buckets.push_back({e->offset, end, 0});
    buckets.back().begin = e->offset;
    buckets.back().node = std::max(buckets.back().node, found->second);
  }
  std::stable_sort(buckets.begin(), buckets.end(),
                   [](const Bucket& a, const Bucket& b) { return a.node < b.node; });
  return buckets;
}

}  // namespace panns::train
