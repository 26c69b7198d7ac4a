#include "backends/cpu/attention_pool.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/threads.h"

namespace panns::cpu {
namespace {

void check(const Map& map) {
  PANNS_CHECK(map.f == 1 && map.t > 0, "ERR_PANNS_SHAPE", "attention_pool",
              "expected maps with F = 1 and T >= 1, got T = ", map.t, ", F = ", map.f);
}

// C == 1: one class, in plain code (detection heads have hundreds).
struct RowSums {
  double weight = 0, value = 0;
};
double weight_of(float a) { return std::exp(std::clamp(double{a}, -10.0, 10.0)); }
RowSums sum_row(const float* a, const float* x, int64_t count) {
  RowSums sums;
  for (int64_t t = 0; t < count; ++t) {
    const double w = weight_of(a[t]);
    sums.weight += w;
    sums.value += w * x[t];
  }
  return sums;
}
void row_backward(const float* a, const float* x, double g, int64_t count, float* da, float* dx) {
  const RowSums sums = sum_row(a, x, count);
  const double y = sums.value / sums.weight;
  for (int64_t t = 0; t < count; ++t) {
    const double share = g * weight_of(a[t]) / sums.weight;
    if (dx != nullptr) dx[t] = static_cast<float>(share);
    if (da != nullptr) da[t] = std::fabs(a[t]) > 10 ? 0.0f : static_cast<float>(share * (x[t] - y));
  }
}

float* offset(float* p, int64_t count) { return p == nullptr ? nullptr : p + count; }

}  // namespace

void attention_pool(ThreadPool& pool, const Map& map, const float* a, const float* x, float* y,
                    Tier t) {
  check(map);
  const auto& kernels = attention_pool_kernels(t);
  const int64_t blocks = map.blocks();
  pool.run(map.n * blocks, [&](int64_t unit, int) {
    const int64_t at = unit * map.panel();
    if (map.c == 1) {
      const RowSums sums = sum_row(a + at, x + at, map.t);
      y[unit] = static_cast<float>(sums.value / sums.weight);
      return;
    }
    const int64_t in = unit / blocks, first = unit % blocks * kChannelBlock;
    float out[kChannelBlock];
    kernels.forward(a + at, x + at, map.t, out);
    std::copy_n(out, std::min(kChannelBlock, map.c - first), y + in * map.c + first);
  });
}

void attention_pool_backward(ThreadPool& pool, const Map& map, const float* a, const float* x,
                             const float* dy, float* da, float* dx, Tier t) {
  check(map);
  const auto& kernels = attention_pool_kernels(t);
  const int64_t blocks = map.blocks();
  pool.run(map.n * blocks, [&](int64_t unit, int) {
    const int64_t at = unit * map.panel();
    if (map.c == 1) {
      row_backward(a + at, x + at, dy[unit], map.t, offset(da, at), offset(dx, at));
      return;
    }
    const int64_t in = unit / blocks, first = unit % blocks * kChannelBlock;
    float g[kChannelBlock] = {};  // zeros for the padding lanes
    std::copy_n(dy + in * map.c + first, std::min(kChannelBlock, map.c - first), g);
    kernels.backward(a + at, x + at, g, map.t, offset(da, at), offset(dx, at));
  });
}

}  // namespace panns::cpu
