// The memory plan: every value's lifetime, and its place in one arena.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "graph/graph.h"

namespace panns::graph {

struct Plan {
  static constexpr size_t kNowhere = ~size_t{0};
  std::vector<size_t> offset;  // of each value; kNowhere if it lives elsewhere or is unused
  std::vector<size_t> bytes;
  std::vector<int> first, last;  // nodes that make and last read it; -1 for inputs
  size_t arena_bytes = 0;
  size_t sum_bytes = 0;  // what it would take if nothing were reused
};

// `elsewhere` says which values already have a home (parameters, gradients). With reuse off every
// value has its own place.
Plan plan(const Graph& graph, size_t alignment,
          const std::function<size_t(const ops::TensorSpec&)>& bytes,
          const std::vector<bool>& elsewhere, bool reuse = true);

}  // namespace panns::graph
