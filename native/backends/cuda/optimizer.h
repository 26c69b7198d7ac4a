// Optimizers over flat float32 arrays, PyTorch's arithmetic: one pass, each state read and written
// once. What changes from step to step is read from the state in device memory. Layout does not
// matter; padding (zero weight, zero gradient) stays zero.
#pragma once

#include <cstdint>

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::backends {
struct StepState;
}

namespace panns::cuda {

struct Adam {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool decoupled = false;  // AdamW: the decay acts on the weights, not on the gradient
  bool amsgrad = false;
  double rate = 1;  // multiplies the state's lr
};

// A copy of the weights in 16 bits that the update writes beside them; null data: none.
struct WeightCopy {
  Storage type = Storage::bf16;
  void* data = nullptr;
};

// The step counts from state->step + 1; lr and grad_scale are the state's, and a grad_scale of 0
// leaves everything as it is, as does a gate that is not finite; null for none. v_max is read and
// written with amsgrad only.
void adam(const Launch& launch, const Adam& adam, const backends::StepState* state, int64_t count,
          const float* grad, float* weight, float* m, float* v, float* v_max,
          const WeightCopy& copy, const float* gate = nullptr);

struct Sgd {
  double momentum = 0, weight_decay = 0;
  bool nesterov = false;
  double rate = 1;
};

// momentum_buffer starts as zeros, and is touched only where momentum is not 0.
void sgd(const Launch& launch, const Sgd& sgd, const backends::StepState* state, int64_t count,
         const float* grad, float* weight, float* momentum_buffer, const WeightCopy& copy,
         const float* gate = nullptr);

// What a float16 backward pass multiplies the loss by, so that small gradients are not lost, in
// device memory. It doubles after kSteps steps without an overflow; a step that overflows is left
// out and halves it, as torch.amp.GradScaler does. Gradients that overflow with kLeast, fairseq's
// bound too, would do so with any scale: they have grown without end, or are infinite or NaN by
// themselves.
struct LossScale {
  static constexpr uint32_t kSteps = 2000;
  static constexpr float kFirst = 65536, kLeast = 1e-4f;

  float scale = kFirst;
  uint32_t good_steps = 0;
};

// The 2-norm of all gradients together, in two stages. First each array leaves its partial sums,
// `first` of them lying in the workspace already; then one launch writes grad_norm and grad_scale =
// min(1, max_norm / (norm + 1e-6)) into the state. Without clipping (max_norm not above 0)
// grad_scale is 1 and the gradients are not read.
// With a loss scale, null for none, they always are: norm and grad_scale are those of the gradients
// divided by it, and grad_scale is 0 when they overflowed.
// Where the state's gate is closed, grad_scale is 0 and nothing else is written. A norm that is not
// finite closes it: of gradients that are clipped, or if there is a loss scale, where that has
// fallen below its least, and is then the first again.
int64_t grad_norm_partials(int64_t count);  // doubles that an array leaves
void grad_norm_add(const Launch& launch, const backends::StepState* state, int64_t count,
                   const float* grad, int64_t first, void* workspace,
                   const LossScale* loss = nullptr);
void grad_norm_finish(const Launch& launch, int64_t partials, backends::StepState* state,
                      const void* workspace, LossScale* loss = nullptr);

}  // namespace panns::cuda
