// Optimizers over flat arrays, PyTorch's arithmetic: one pass, each state read and written once.
// Layout does not matter; padding lanes (zero weight, zero gradient) stay zero.
// Bytes a float: adam 16 read + 12 written (amsgrad 20 + 16), sgd 12 + 8.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cpu/tier.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

struct Adam {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool decoupled = false;  // AdamW: the decay acts on the weights, not on the gradient
  bool amsgrad = false;
};

// step counts from 1. The gradient is multiplied by grad_scale first (clip_scale below). v_max is
// read and written with amsgrad only.
void adam(ThreadPool& pool, const Adam& adam, int64_t step, float grad_scale, int64_t count,
          const float* grad, float* weight, float* m, float* v, float* v_max, Tier t = tier());

struct Sgd {
  double lr = 1e-3, momentum = 0, weight_decay = 0;
  bool nesterov = false;
};

// momentum_buffer starts as zeros (dampening is 0, so PyTorch's first step is the same), and is
// touched only where momentum is not 0.
void sgd(ThreadPool& pool, const Sgd& sgd, float grad_scale, int64_t count, const float* grad,
         float* weight, float* momentum_buffer, Tier t = tier());

// The sum of squares of one array, in double. Add those of all parameters in their order; the
// square root is the norm of torch.nn.utils.clip_grad_norm_.
int64_t sum_of_squares_workspace(int64_t count);  // bytes
double sum_of_squares(ThreadPool& pool, int64_t count, const float* x, std::byte* workspace,
                      Tier t = tier());
// min(1, max_norm / (norm + 1e-6))
float clip_scale(double norm, double max_norm);

// The constants of one step, rounded to float once.
struct AdamStep {
  float grad_scale, weight_decay, weight_factor;  // gradient += decay * weight; weight *= factor
  float one_minus_beta1, beta2, one_minus_beta2, eps;
  float step_size, inv_root_correction2;  // lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
  bool amsgrad;
};
struct SgdStep {
  float grad_scale, lr, momentum, weight_decay;
  bool nesterov;
};

struct OptimizerKernels {
  void (*adam)(const AdamStep& step, const float* grad, float* weight, float* m, float* v,
               float* v_max, int64_t count);
  void (*sgd)(const SgdStep& step, const float* grad, float* weight, float* buffer, int64_t count);
  double (*sum_of_squares)(const float* x, int64_t count);
};
PANNS_TIERED(OptimizerKernels, optimizer_kernels)

}  // namespace panns::cpu
