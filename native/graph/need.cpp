#include "graph/need.h"

#include <algorithm>
#include <cstdio>

#include "backends/dry_device.h"

namespace panns::graph {
namespace {

using backends::Device;
using backends::DryDevice;
using backends::MemoryState;

constexpr const char* kOutOfMemory = "ERR_PANNS_OUT_OF_MEMORY";

Need count(Device& device, int64_t batch, const NeedOf& need_of, DryDevice::Kernels kernels) {
  DryDevice dry(device, kernels);
  return need_of(dry, batch);
}

// By bisection, as need grows with the batch but not in proportion to it.
class Search {
 public:
  // `kernels`: what kernels need in all batches, where they are not made for each of them.
  Search(Device& device, const NeedOf& need_of, size_t free, const Need* kernels)
      : device_(device), need_of_(need_of), free_(free), kernels_(kernels) {}

  // Of 0..most; 0 when not even one clip fits.
  int64_t largest(int64_t most) const {
    int64_t fits = 0, beyond = 1;
    while (beyond <= most && enough(beyond)) {
      fits = beyond;
      beyond *= 2;
    }
    beyond = std::min(beyond, most + 1);
    while (beyond - fits > 1) {
      const int64_t middle = fits + (beyond - fits) / 2;
      (enough(middle) ? fits : beyond) = middle;
    }
    return fits;
  }

 private:
  bool enough(int64_t batch) const {
    try {
      const auto kernels =
          kernels_ != nullptr ? DryDevice::Kernels::left_out : DryDevice::Kernels::made;
      Need n = count(device_, batch, need_of_, kernels);
      if (kernels_ != nullptr) {
        n.scratch = kernels_->scratch;
        n.kernels = kernels_->kernels;
      }
      return n.added() <= free_;
    } catch (const Error& e) {
      if (e.code() != kOutOfMemory) throw;
      return false;  // a tensor of a size that no memory has
    }
  }

  Device& device_;
  const NeedOf& need_of_;
  size_t free_;
  const Need* kernels_;
};

std::string size_text(size_t bytes) {
  constexpr size_t kGiB = size_t{1} << 30;
  char text[32];
  const bool large = bytes >= kGiB;
  std::snprintf(text, sizeof(text), large ? "%.2f GiB" : "%.1f MiB",
                static_cast<double>(bytes) / static_cast<double>(large ? kGiB : 1 << 20));
  return text;
}

std::string parts_text(const Need& n) {
  std::string s;
  const auto add = [&](const char* name, size_t bytes) {
    if (bytes > 0) s += cat(s.empty() ? "" : ", ", name, " ", size_text(bytes));
  };
  add("gradients", n.gradients);
  add("optimizer", n.optimizer);
  add("activations", n.activations);
  add("scratch", n.scratch);
  add("kernels", n.kernels);
  return s;
}

// The largest batch of 0..most that fits for certain. Where kernels are compiled, the search takes
// what they need for the batches that were looked at, `known` first, and compiles for its result.
int64_t largest_fitting(Device& device, const NeedOf& need_of, size_t free, int64_t most,
                        Need known) {
  if (!device.compiles()) return Search(device, need_of, free, nullptr).largest(most);
  for (;;) {
    const int64_t batch = Search(device, need_of, free, &known).largest(most);
    if (batch == 0) return 0;
    known = count(device, batch, need_of, DryDevice::Kernels::made);
    if (known.added() <= free) return batch;
    most = batch - 1;
  }
}

std::string way_out(int64_t largest) {
  return largest > 0 ? cat("the largest batch that fits is ", largest)
                     : "not even a batch of 1 fits: shorter clips need less";
}

}  // namespace

Need& Need::operator+=(const Need& o) {
  weights += o.weights;
  gradients += o.gradients;
  optimizer += o.optimizer;
  activations += o.activations;
  scratch += o.scratch;
  kernels += o.kernels;
  return *this;
}

Fit examine(Device& device, int64_t batch, const NeedOf& need_of, bool search) {
  Fit fit;
  fit.need = count(device, batch, need_of, DryDevice::Kernels::made);
  fit.free = device.memory().free;
  if (!search) return fit;
  const Need* kernels = device.compiles() ? &fit.need : nullptr;
  fit.largest = fit.free == MemoryState::kUnknown
                    ? kMostClips
                    : Search(device, need_of, fit.free, kernels).largest(kMostClips);
  return fit;
}

void require_fit(Device& device, int64_t batch, const NeedOf& need_of, const FitOptions& options) {
  // Asked at each attempt: others take and free memory meanwhile.
  const auto free = [&] {
    const size_t all = device.memory().free;
    if (all == MemoryState::kUnknown) return all;
    return all > options.reserve ? all - options.reserve : 0;
  };
  if (free() == MemoryState::kUnknown) return;
  const std::string kept =
      options.reserve > 0 ? cat(" beside ", size_text(options.reserve), " for ", options.reserved)
                          : "";
  const auto largest = [&](const Need& known) {
    return largest_fitting(device, need_of, free(), batch - 1, known);
  };
  const auto require = [&](DryDevice::Kernels kernels) {
    Need need;
    try {
      need = count(device, batch, need_of, kernels);
    } catch (const Error& e) {
      if (e.code() != kOutOfMemory) throw;
      throw Error(e.code(), options.where, cat(e.what(), "; ", way_out(largest({}))));
    }
    while (need.added() > free()) {
      if (options.make_room()) continue;
      throw Error(kOutOfMemory, options.where,
                  cat("expected ", kernels == DryDevice::Kernels::made ? "" : "at least ",
                      size_text(need.added()), " of memory on ", device.info().kind,
                      " for a batch of ", batch, " (", parts_text(need), "), ", size_text(free()),
                      " are free", kept, "; ", way_out(largest(need))));
    }
  };
  // Kernels for a batch that has no chance would be compiled for minutes.
  if (device.compiles()) require(DryDevice::Kernels::left_out);
  require(DryDevice::Kernels::made);
}

}  // namespace panns::graph
