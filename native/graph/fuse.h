// Fusion: a node takes the next one into its epilogue, where the device has a kernel for both at
// once. The table of rows is in fuse.cpp; a row that does not apply leaves the chain as it is.
#pragma once

#include <string>
#include <vector>

#include "backends/backend.h"
#include "graph/graph.h"

namespace panns::graph {

// Applies every row but those named in `off`. Returns how many nodes were taken in.
int fuse(Graph& graph, const backends::Device& device, const std::vector<std::string>& off = {});

// The rows' names, for options and tests.
std::vector<std::string> fusion_names();
// Throws ERR_PANNS_OPTION unless every name is a pass or a row of the table.
void check_passes(const std::vector<std::string>& names);

backends::NodeSpec node_spec(const Graph& graph, const Node& node);

}  // namespace panns::graph
