// batch_norm: y = (x - mean) / sqrt(var + eps) * gamma + beta, with PyTorch's semantics (biased
// variance to normalise, unbiased for running_var), and what follows it in a network, fused:
//
//   y = dropout(avg_pool2x2(relu(batch_norm(x))))      relu, pool and dropout each optional
//   y = mixup(spec_augment(batch_norm(x)))             with `freq`, each optional, in training
//
// One pair of statistics a channel, or with `freq` a mel bin of a map (N, 1, T, F). The pool
// floors: an odd last row or column takes part in the statistics and has a gradient, but is not in
// y. Backward needs only x, the saved statistics and dy: it recomputes the relu and dropout masks.
// gamma, beta, statistics and their gradients are float32 arrays of C (or F).
#pragma once

#include <functional>
#include <optional>

#include "backends/cuda/dropout.h"
#include "backends/cuda/spec_augment.h"

namespace panns::cuda {

struct BatchNorm {
  bool freq = false;
  bool relu = false;
  bool avg_pool_2x2 = false;
  double eps = 1e-5, momentum = 0.1;
  Dropout dropout{};
  bool over_processes = false;  // training: the rows of several processes are one batch
  std::optional<SpecAugment> spec_augment{};
  bool mixup = false;  // y has half of x's clips: sums of pairs by their weights
  bool augments() const { return spec_augment.has_value() || mixup; }
};

// The processes of such a batch, which have as many rows each.
struct BatchNormProcesses {
  int count;
  // Enqueues the sum over all of them, in place.
  std::function<void(double* values, int64_t count)> sum;
};

Map batch_norm_output(const BatchNorm& norm, const Map& map);
// Whether these functions take this map: freq needs C = 1, pool and dropout C > 1, the pool at
// least two frames and bins; augmentation needs freq and none of the others, mixup pairs of clips.
bool batch_norm_supported(const BatchNorm& norm, const Map& map);
// Bytes of scratch for any of the functions below.
int64_t batch_norm_workspace(const BatchNorm& norm, const Map& map);

// Writes y and the statistics of this batch; moves the running ones in place. mean and invstd may
// be null where backward never comes. With the sums of x and of x^2 over the rows, by feature, x is
// read once and not twice; a mean far from 0 then costs the variance low bits: (mean / deviation)^2
// of a float's rounding.
struct BatchNormTrain {
  const void* x;
  const float *gamma, *beta;
  float *running_mean, *running_var;
  void* y;
  float *mean, *invstd;
  const float *sum = nullptr, *sum_of_squares = nullptr;
  const BatchNormProcesses* processes = nullptr;  // null: this one alone
  const float* clip_weights = nullptr;            // of mixup
  const float* gate = nullptr;  // while it is not finite the running statistics stay; null: none
};
void batch_norm_train(const Launch& launch, const BatchNorm& norm, const Map& map,
                      const backends::StepState* state, const BatchNormTrain& a, void* workspace);

// With the running statistics. The state is read only where there is something to be drawn.
struct BatchNormEval {
  const void* x;
  const float *gamma, *beta, *running_mean, *running_var;
  void* y;
  const float* clip_weights = nullptr;
};
void batch_norm_eval(const Launch& launch, const BatchNorm& norm, const Map& map,
                     const backends::StepState* state, const BatchNormEval& a, void* workspace);

// dx, dgamma and dbeta may each be null where nothing needs them; the last two are of this
// process's rows.
struct BatchNormBackward {
  const void* x;
  const float *gamma, *beta, *mean, *invstd;
  const void* dy;
  void* dx;
  float *dgamma, *dbeta;
  const BatchNormProcesses* processes = nullptr;  // null: this one alone
  const float* clip_weights = nullptr;
};
void batch_norm_backward(const Launch& launch, const BatchNorm& norm, const Map& map,
                         const backends::StepState* state, const BatchNormBackward& a,
                         void* workspace);

// Backward of the eval form: the statistics are constants. dx, dgamma and dbeta may each be null;
// without the last two the sums are left out.
struct BatchNormEvalBackward {
  const void* x;
  const float *gamma, *beta, *running_mean, *running_var;
  const void* dy;
  void* dx;
  float *dgamma, *dbeta;
  const float* clip_weights = nullptr;
};
void batch_norm_eval_backward(const Launch& launch, const BatchNorm& norm, const Map& map,
                              const backends::StepState* state, const BatchNormEvalBackward& a,
                              void* workspace);

}  // namespace panns::cuda
