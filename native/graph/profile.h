// Where a run's time goes: what each node has to do, how long it takes, and what the device can do.
#pragma once

#include <atomic>
#include <vector>

#include "graph/program.h"

namespace panns::graph {

// What a node has to do at the least.
struct Work {
  double flops = 0;  // a multiply-add counts as two; 0 where the op only moves values
  double bytes = 0;  // inputs and results, each once, as the device stores them
};

// Of the node as the program runs it.
Work work(const Program& program, const backends::Device& device, size_t node);

// Between one mark and the next; waits for the last one.
std::vector<double> seconds_between(backends::Stream& stream, const Program::Marks& marks);

// What a device reaches in a second, at best of some runs.
struct Rates {
  double flops = 0;  // by a product of large matrices, in the device's precision
  double bytes = 0;  // by adding two maps that no cache holds to a third
};

// Takes some tenths of a second. Throws ABORT_ERR once `cancel` is true.
Rates measure_rates(backends::Device& device, const std::atomic<bool>& cancel);

}  // namespace panns::graph
