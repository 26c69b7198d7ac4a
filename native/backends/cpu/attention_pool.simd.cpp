#include "backends/cpu/attention_pool.h"

#include "backends/cpu/activation_exp.h"

namespace panns::cpu::PANNS_TIER {
namespace {

PANNS_INLINE V weight_of(V a) { return vexp(vmin(set1(10.0f), vmax(set1(-10.0f), a))); }

struct Sums {
  V weight, value;
};

// The weights, and the weighted x - from, over T frames. Runs of 64 keep the error of a long clip
// near that of one run.
PANNS_INLINE Sums sum_over_time(const float* a, const float* x, V from, int64_t rows) {
  Sums total{};
  for (int64_t begin = 0; begin < rows; begin += 64) {
    const int64_t end = begin + 64 < rows ? begin + 64 : rows;
    Sums run{};
    for (int64_t t = begin; t < end; ++t) {
      const V w = weight_of(load(a + t * kBlock));
      run.weight += w;
      run.value += w * (load(x + t * kBlock) - from);
    }
    total.weight += run.weight;
    total.value += run.value;
  }
  return total;
}

void forward(const float* a, const float* x, int64_t rows, float* y) {
  for (int c = 0; c < kBlock; c += kLanes) {
    const Sums sums = sum_over_time(a + c, x + c, zero(), rows);
    store(y + c, sums.value / sums.weight);
  }
}

void backward(const float* a, const float* x, const float* dy, int64_t rows, float* da, float* dx) {
  for (int c = 0; c < kBlock; c += kLanes) {
    const Sums sums = sum_over_time(a + c, x + c, zero(), rows);
    const V y = sums.value / sums.weight, share = load(dy + c) / sums.weight;
    // What rounding left out of y: where one frame has all the weight, x - y is little else.
    const V rest = sum_over_time(a + c, x + c, y, rows).value / sums.weight;
    for (int64_t t = 0; t < rows; ++t) {
      const int64_t at = t * kBlock + c;
      const V logit = load(a + at), g = share * weight_of(logit);
      if (dx != nullptr) store(dx + at, g);
      if (da == nullptr) continue;
      const I clamped = (logit > 10.0f) | (logit < -10.0f);
      store(da + at, where(~clamped, g * ((load(x + at) - y) - rest)));
    }
  }
}

}  // namespace

const AttentionPoolKernels attention_pool_kernels = {forward, backward};

}  // namespace panns::cpu::PANNS_TIER
