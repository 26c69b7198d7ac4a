#include "backends/cpu/conv_plan.h"

#include <algorithm>

namespace panns::cpu {
namespace {

void set_range(GatherAxis& axis) {
  bool first = true;
  for (const auto& phase : axis.taps) {
    for (const AxisTap& tap : phase) {
      axis.low = first ? tap.offset : std::min(axis.low, tap.offset);
      axis.high = first ? tap.offset : std::max(axis.high, tap.offset);
      first = false;
    }
  }
}

}  // namespace

void GatherAxis::valid(int64_t phase, int64_t q, int64_t* first, int64_t* second) const {
  const auto& list = taps[static_cast<size_t>(phase)];
  int64_t a = 0, b = static_cast<int64_t>(list.size());
  while (a < b && q * step + list[static_cast<size_t>(a)].offset < 0) ++a;
  while (b > a && q * step + list[static_cast<size_t>(b - 1)].offset >= src) --b;
  *first = a;
  *second = b;
}

bool GatherAxis::reads(int64_t q_begin, int64_t q_end, int64_t source) const {
  for (const auto& phase : taps) {
    for (const AxisTap& tap : phase) {
      const int64_t at = source - tap.offset;
      if (at % step == 0 && at >= q_begin * step && at < q_end * step) return true;
    }
  }
  return false;
}

GatherAxis forward_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                        int64_t dilation) {
  GatherAxis axis{.dst = out, .src = in, .phases = 1, .step = stride, .taps = {{}}};
  for (int64_t k = 0; k < kernel; ++k) axis.taps[0].push_back({k, k * dilation - pad});
  set_range(axis);
  return axis;
}

GatherAxis backward_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                         int64_t dilation) {
  GatherAxis axis{.dst = in, .src = out, .phases = stride, .step = 1, .taps = {}};
  axis.taps.resize(static_cast<size_t>(stride));
  for (int64_t phase = 0; phase < stride; ++phase) {
    for (int64_t k = kernel - 1; k >= 0; --k) {
      const int64_t at = phase + pad - k * dilation;
      if (at % stride == 0) axis.taps[static_cast<size_t>(phase)].push_back({k, at / stride});
    }
  }
  set_range(axis);
  return axis;
}

}  // namespace panns::cpu
