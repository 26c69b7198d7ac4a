// What computing needs of a device's memory, known before any of it is taken; and which batch fits.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "backends/backend.h"

namespace panns::graph {

// Bytes.
struct Need {
  size_t weights = 0;      // parameters and running statistics: the model's own
  size_t gradients = 0;    // of training
  size_t optimizer = 0;    // its state
  size_t activations = 0;  // inputs, and what nodes pass on: the arena of the plan
  size_t scratch = 0;      // of kernels while they run
  size_t kernels = 0;      // what kernels keep: packed weights, tables, the step's state

  // Beside the weights, which are there already.
  size_t added() const { return gradients + optimizer + activations + scratch + kernels; }
  size_t total() const { return weights + added(); }
  Need& operator+=(const Need& other);
};

// Builds on the device, which only counts (backends/dry_device.h), what a batch of that size takes.
using NeedOf = std::function<Need(backends::Device& dry, int64_t batch)>;

struct Fit {
  Need need;            // of the batch that was asked for
  size_t free = 0;      // for all but the weights; MemoryState::kUnknown where nobody says
  int64_t largest = 0;  // the largest batch that fits, 0: not even one clip; at most kMostClips
};

// Where a search for the largest batch ends.
constexpr int64_t kMostClips = 1 << 16;

// What a batch needs, and, where `search` says so, the largest that fits. Where kernels take long
// to make, the search takes what they need for the batch that was asked for.
Fit examine(backends::Device& device, int64_t batch, const NeedOf& need, bool search);

struct FitOptions {
  std::string where;                    // of the error
  size_t reserve = 0;                   // bytes that must stay free beside it
  std::string reserved = "other work";  // what for, in errors
  // Frees what can be made again, some at a time; false when there is nothing left.
  std::function<bool()> make_room = [] { return false; };
};

// Throws ERR_PANNS_OUT_OF_MEMORY, naming the need, what is free and the largest batch that fits,
// unless this batch does. Takes no memory.
void require_fit(backends::Device& device, int64_t batch, const NeedOf& need,
                 const FitOptions& options);

// Makes what needs that memory. Another process may be faster: then the error is the same.
template <typename Make>
auto make_fitting(backends::Device& device, int64_t batch, const NeedOf& need,
                  const FitOptions& options, Make&& make) {
  require_fit(device, batch, need, options);
  try {
    return make();
  } catch (const Error& e) {
    if (e.code() == "ERR_PANNS_OUT_OF_MEMORY") require_fit(device, batch, need, options);
    throw;
  }
}

}  // namespace panns::graph
