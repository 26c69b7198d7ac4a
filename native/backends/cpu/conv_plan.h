// One axis of a convolution seen as a gather, so that forward and backward_data share their code:
// element q * phases + phase of the destination reads elements q * step + offset of the source.
// Forward has one phase and steps by the stride; backward_data has as many phases as the stride,
// each meeting every stride-th tap, and steps by one.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/cpu/conv.h"

namespace panns::cpu {

struct AxisTap {
  int64_t k;  // kernel position
  int64_t offset;
};

struct GatherAxis {
  int64_t dst = 0, src = 0, phases = 1, step = 1;
  std::vector<std::vector<AxisTap>> taps;  // for each phase, offsets ascending
  int64_t low = 0, high = 0;               // the least and the greatest offset

  int64_t count() const { return (dst + phases - 1) / phases; }  // of q
  // How many q in [begin, end) give an element of the destination in this phase.
  int64_t inside(int64_t phase, int64_t begin, int64_t end) const {
    const int64_t last = (dst - phase + phases - 1) / phases;
    return (end < last ? end : last) - begin;
  }
  // The taps of a phase that meet the source at q: [first, second).
  void valid(int64_t phase, int64_t q, int64_t* first, int64_t* second) const;
  bool reads(int64_t q_begin, int64_t q_end, int64_t source) const;
};

GatherAxis forward_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                        int64_t dilation);
GatherAxis backward_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                         int64_t dilation);

}  // namespace panns::cpu
