#include "backends/cpu/optimizer.h"

#include <cmath>

#include "backends/cpu/chunks.h"

namespace panns::cpu {

void adam(ThreadPool& pool, const Adam& a, int64_t step, float grad_scale, int64_t count,
          const float* grad, float* weight, float* m, float* v, float* v_max, Tier t) {
  const auto& kernels = optimizer_kernels(t);
  const double power = static_cast<double>(step);
  const double correction1 = 1 - std::pow(a.beta1, power);
  const double correction2 = 1 - std::pow(a.beta2, power);
  AdamStep s{};
  s.grad_scale = grad_scale;
  s.weight_decay = static_cast<float>(a.decoupled ? 0 : a.weight_decay);
  s.weight_factor = static_cast<float>(a.decoupled ? 1 - a.lr * a.weight_decay : 1);
  s.one_minus_beta1 = static_cast<float>(1 - a.beta1);
  s.beta2 = static_cast<float>(a.beta2);
  s.one_minus_beta2 = static_cast<float>(1 - a.beta2);
  s.eps = static_cast<float>(a.eps);
  s.step_size = static_cast<float>(a.lr / correction1);
  s.inv_root_correction2 = static_cast<float>(1 / std::sqrt(correction2));
  s.amsgrad = a.amsgrad;
  for_chunks(pool, count, [&](int64_t begin, int64_t size, int64_t) {
    kernels.adam(s, grad + begin, weight + begin, m + begin, v + begin,
                 a.amsgrad ? v_max + begin : nullptr, size);
  });
}

void sgd(ThreadPool& pool, const Sgd& g, float grad_scale, int64_t count, const float* grad,
         float* weight, float* momentum_buffer, Tier t) {
  const auto& kernels = optimizer_kernels(t);
  const SgdStep s{grad_scale, static_cast<float>(g.lr), static_cast<float>(g.momentum),
                  static_cast<float>(g.weight_decay), g.nesterov};
  for_chunks(pool, count, [&](int64_t begin, int64_t size, int64_t) {
    kernels.sgd(s, grad + begin, weight + begin,
                g.momentum != 0 ? momentum_buffer + begin : nullptr, size);
  });
}

int64_t sum_of_squares_workspace(int64_t count) {
  return chunk_count(count) * static_cast<int64_t>(sizeof(double));
}

double sum_of_squares(ThreadPool& pool, int64_t count, const float* x, std::byte* workspace,
                      Tier t) {
  const auto& kernels = optimizer_kernels(t);
  auto* partial = reinterpret_cast<double*>(workspace);
  for_chunks(pool, count, [&](int64_t begin, int64_t size, int64_t index) {
    partial[index] = kernels.sum_of_squares(x + begin, size);
  });
  double sum = 0;
  for (int64_t i = 0; i < chunk_count(count); ++i) sum += partial[i];
  return sum;
}

float clip_scale(double norm, double max_norm) {
  const double scale = max_norm / (norm + 1e-6);
  return static_cast<float>(scale > 1 ? 1 : scale);  // NaN stays
}

}  // namespace panns::cpu
