#include "backends/cpu/optimizer.h"

#include "backends/cpu/lanes.h"

namespace panns::cpu::PANNS_TIER {
namespace {

struct AdamLanes {
  V weight, m, v, v_max;
};

template <bool kAmsgrad>
PANNS_INLINE AdamLanes update(const AdamStep& s, V grad, AdamLanes a) {
  const V g = grad * s.grad_scale + a.weight * s.weight_decay;
  a.m += (g - a.m) * s.one_minus_beta1;
  a.v = a.v * s.beta2 + g * g * s.one_minus_beta2;
  if (kAmsgrad) a.v_max = vmax(a.v_max, a.v);
  const V root = vsqrt(kAmsgrad ? a.v_max : a.v) * s.inv_root_correction2 + s.eps;
  a.weight = a.weight * s.weight_factor - a.m * s.step_size / root;
  return a;
}

template <bool kAmsgrad>
void adam_of(const AdamStep& s, const float* grad, float* weight, float* m, float* v, float* v_max,
             int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const AdamLanes a = update<kAmsgrad>(
        s, load(grad + i),
        {load(weight + i), load(m + i), load(v + i), kAmsgrad ? load(v_max + i) : zero()});
    store(weight + i, a.weight);
    store(m + i, a.m);
    store(v + i, a.v);
    if (kAmsgrad) store(v_max + i, a.v_max);
  }
  const int64_t rest = count - i;
  if (rest == 0) return;
  const AdamLanes a =
      update<kAmsgrad>(s, load_part(grad + i, rest),
                       {load_part(weight + i, rest), load_part(m + i, rest), load_part(v + i, rest),
                        kAmsgrad ? load_part(v_max + i, rest) : zero()});
  store_part(weight + i, a.weight, rest);
  store_part(m + i, a.m, rest);
  store_part(v + i, a.v, rest);
  if (kAmsgrad) store_part(v_max + i, a.v_max, rest);
}

void adam(const AdamStep& s, const float* grad, float* weight, float* m, float* v, float* v_max,
          int64_t count) {
  s.amsgrad ? adam_of<true>(s, grad, weight, m, v, v_max, count)
            : adam_of<false>(s, grad, weight, m, v, v_max, count);
}

struct SgdLanes {
  V weight, buffer;
};

template <bool kMomentum>
PANNS_INLINE SgdLanes update(const SgdStep& s, V grad, SgdLanes a) {
  V d = grad * s.grad_scale + a.weight * s.weight_decay;
  if (kMomentum) {
    a.buffer = a.buffer * s.momentum + d;
    d = s.nesterov ? d + a.buffer * s.momentum : a.buffer;
  }
  a.weight -= d * s.lr;
  return a;
}

template <bool kMomentum>
void sgd_of(const SgdStep& s, const float* grad, float* weight, float* buffer, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const SgdLanes a = update<kMomentum>(s, load(grad + i),
                                         {load(weight + i), kMomentum ? load(buffer + i) : zero()});
    store(weight + i, a.weight);
    if (kMomentum) store(buffer + i, a.buffer);
  }
  const int64_t rest = count - i;
  if (rest == 0) return;
  const SgdLanes a = update<kMomentum>(
      s, load_part(grad + i, rest),
      {load_part(weight + i, rest), kMomentum ? load_part(buffer + i, rest) : zero()});
  store_part(weight + i, a.weight, rest);
  if (kMomentum) store_part(buffer + i, a.buffer, rest);
}

void sgd(const SgdStep& s, const float* grad, float* weight, float* buffer, int64_t count) {
  s.momentum != 0 ? sgd_of<true>(s, grad, weight, buffer, count)
                  : sgd_of<false>(s, grad, weight, buffer, count);
}

// Squares of large gradients overflow a float, so they are taken in double.
double sum_of_squares(const float* x, int64_t count) {
  typedef float Half __attribute__((vector_size(PANNS_LANES * 2), aligned(4), may_alias));
  typedef double D __attribute__((vector_size(PANNS_LANES * 4)));
  constexpr int kHalf = kLanes / 2;
  D sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * kHalf <= count; i += 4 * kHalf) {
    for (int j = 0; j < 4; ++j) {
      const D d = __builtin_convertvector(*(const Half*)(x + i + j * kHalf), D);
      sum[j] += d * d;
    }
  }
  const D all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  double total = 0;
  for (int j = 0; j < kHalf; ++j) total += all[j];
  for (; i < count; ++i) total += (double)x[i] * (double)x[i];
  return total;
}

}  // namespace

const OptimizerKernels optimizer_kernels = {adam, sgd, sum_of_squares};

}  // namespace panns::cpu::PANNS_TIER
