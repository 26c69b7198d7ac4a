#include "backends/cpu/softmax.h"

#include "backends/cpu/activation_exp.h"

namespace panns::cpu::PANNS_TIER {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();

// A NaN may be lost here; exp of it then brings it back.
float maximum(const float* x, int64_t k) {
  V best = set1(kMinusInfinity);
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) best = vmax(best, load(x + i));
  if (i < k) best = vmax(best, load_part(x + i, k - i, kMinusInfinity));
  float m = best[0];
  for (int j = 1; j < kLanes; ++j) m = best[j] > m ? best[j] : m;
  return m;
}

// The sum of term(i, count) over the vectors of a row; each vector's lanes go to double.
template <typename F>
PANNS_INLINE double sum_of(int64_t k, F term) {
  double total = 0;
  V sum{};
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) sum += term(i, (int64_t)kLanes);
  if (i < k) sum += term(i, k - i);
  for (int j = 0; j < kLanes; ++j) total += (double)sum[j];
  return total;
}

PANNS_INLINE V take(const float* p, int64_t count) {
  return count == kLanes ? load(p) : load_part(p, count);
}

void exp_sum(const float* x, int64_t k, float* out_maximum, double* out_sum) {
  const float m = maximum(x, k);
  *out_maximum = m;
  *out_sum = sum_of(k, [&](int64_t i, int64_t count) {
    return vexp((count == kLanes ? load(x + i) : load_part(x + i, count, kMinusInfinity)) - m);
  });
}

void forward(const float* x, float* y, int64_t k) {
  float m;
  double sum;
  exp_sum(x, k, &m, &sum);
  const float share = (float)(1.0 / sum);
  map1(x, y, k, [&](V v) { return vexp(v - m) * share; });
}

void backward(const float* y, const float* dy, float* dx, int64_t k) {
  const float dot = (float)sum_of(
      k, [&](int64_t i, int64_t count) { return take(y + i, count) * take(dy + i, count); });
  map2(y, dy, dx, k, [&](V v, V g) { return v * (g - dot); });
}

void subtract(const float* x, float shift, float* y, int64_t k) {
  map1(x, y, k, [&](V v) { return v - shift; });
}

void log_backward(const float* y, const float* dy, float* dx, int64_t k) {
  const float sum = (float)sum_of(k, [&](int64_t i, int64_t count) { return take(dy + i, count); });
  map2(y, dy, dx, k, [&](V v, V g) { return g - vexp(v) * sum; });
}

}  // namespace

const SoftmaxKernels softmax_kernels = {forward, backward, exp_sum, subtract, log_backward};

}  // namespace panns::cpu::PANNS_TIER
