// Which gradients can be taken at once, and when: to be averaged, or by the optimizer.
#pragma once

#include <vector>

#include "graph/graph.h"
#include "graph/parameters.h"

namespace panns::train {

// A run of gradients, in the order of the parameters' bytes.
struct Bucket {
  size_t begin = 0, end = 0;  // as Parameters::Entry::offset
  size_t node = 0;            // of the graph: after it all of them are ready
};

enum class Ready : uint8_t {
  made,  // the gradients are there
  free   // and nothing reads their parameters any more: these may change
};

// The gradients of a differentiated graph, each once, in the order in which they come to be ready:
// the last layers' first. Neighbours share a bucket of at most that many bytes; what lies between
// trained parameters and has no gradient is in none.
std::vector<Bucket> gradient_buckets(const graph::Graph& graph,
                                     const std::vector<graph::Parameters::Entry>& entries,
                                     size_t most_bytes, Ready when = Ready::made);

}  // namespace panns::train
