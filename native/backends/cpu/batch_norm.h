// batch_norm: y = (x - mean) / sqrt(var + eps) * gamma + beta, with PyTorch's semantics (biased
// variance to normalise, unbiased for running_var), and what follows it in a network, fused:
//
//   y = dropout(avg_pool2x2(relu(batch_norm(x))))      relu, pool and dropout each optional
//
// Axis channel works on any map; axis freq on (N, 1, T, F), one pair of statistics a mel bin.
// Pooling floors: an odd last row or column takes part in the statistics, not in y.
// Backward needs only x, the saved statistics and dy: it recomputes the relu and dropout masks.
//
// Bytes a float of x: train 8 read (statistics, then apply) + 4 written (1 with the pool),
// backward 8 read (+ 8, or 2, of dy) + 4 written.
// Statistics: float sums of (x - shift) over at most 128 rows, shift being the mean of a chunk's
// first rows, then double, then Chan's combination in a fixed order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cpu/dropout.h"
#include "backends/cpu/layout.h"
#include "backends/cpu/tier.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

enum class NormAxis { channel, freq };

struct BatchNorm {
  NormAxis axis = NormAxis::channel;
  bool relu = false;
  bool pool = false;  // mean over 2 x 2
  double eps = 1e-5;
  double momentum = 0.1;
  Dropout dropout{};
  bool over_processes = false;  // training: the rows of several processes are one batch
};

// The processes of such a batch, which have as many rows each.
struct BatchNormProcesses {
  int count;
  // Adds up over all of them, in place; `context` is handed on.
  void (*sum)(void* context, double* values, int64_t count);
  void* context;
};

// How many gammas: C, or F.
int64_t batch_norm_params(const BatchNorm& norm, const Map& map);
// The shape of y.
Map batch_norm_output(const BatchNorm& norm, const Map& map);
// Whether these functions take this map; otherwise run the unfused chain. pool and dropout need
// C > 1, dropout also C % 4 == 0.
bool batch_norm_supported(const BatchNorm& norm, const Map& map);
// Bytes of scratch for any of the functions below, 64-byte aligned.
int64_t batch_norm_workspace(const BatchNorm& norm, const Map& map);

// Writes y, mean, invstd (of this batch, for the backward pass); updates the running pair in place.
// Needs at least two values a parameter (ERR_PANNS_SHAPE).
struct BatchNormTrain {
  const float *x, *gamma, *beta;
  float *running_mean, *running_var;
  float *mean, *invstd;
  float* y;
  const BatchNormProcesses* processes = nullptr;  // null: this one alone
};
void batch_norm_train(ThreadPool& pool, const BatchNorm& norm, const Map& map,
                      const BatchNormTrain& a, std::byte* workspace, Tier t = tier());

// With the running statistics. y may be x when there is no pool.
struct BatchNormEval {
  const float *x, *gamma, *beta, *running_mean, *running_var;
  float* y;
};
void batch_norm_eval(ThreadPool& pool, const BatchNorm& norm, const Map& map,
                     const BatchNormEval& a, std::byte* workspace, Tier t = tier());

// dx may be x, and may be null where nothing needs it. dgamma and dbeta are of this process's rows.
struct BatchNormBackward {
  const float *x, *gamma, *beta, *mean, *invstd, *dy;
  float *dx, *dgamma, *dbeta;
  const BatchNormProcesses* processes = nullptr;  // null: this one alone
};
void batch_norm_backward(ThreadPool& pool, const BatchNorm& norm, const Map& map,
                         const BatchNormBackward& a, std::byte* workspace, Tier t = tier());

// Backward of the eval form: the statistics are constants. dx, dgamma and dbeta may each be null;
// without the last two the sums are left out, and x is read once.
struct BatchNormEvalBackward {
  const float *x, *gamma, *beta, *running_mean, *running_var, *dy;
  float *dx, *dgamma, *dbeta;
};
void batch_norm_eval_backward(ThreadPool& pool, const BatchNorm& norm, const Map& map,
                              const BatchNormEvalBackward& a, std::byte* workspace,
                              Tier t = tier());

// ---- kernels, on panels of rows of 16 floats; a map with C == 1 is seen as such rows too ----

// Coefficients of 16 lanes. y = (x - mean) scale + beta; dx = scale g + c0 + c1 (x - mean).
// Padding lanes hold zeros.
struct BatchNormLanes {
  float mean[kChannelBlock], scale[kChannelBlock], beta[kChannelBlock];
  float c0[kChannelBlock], c1[kChannelBlock];
};

// Sums over 16 lanes: of x and its squared deviations, or of g and g (x - mean).
struct BatchNormSums {
  double a[kChannelBlock], b[kChannelBlock];
};

// One panel, or with the pool the two panels that make one.
struct BatchNormPanel {
  const float* x = nullptr;
  int64_t rows = 0;           // of x
  int64_t column = 0;         // floats from x to its neighbour in frequency (pool)
  const float* dy = nullptr;  // null in backward_apply: gradient 0 (a column the pool dropped)
  float* out = nullptr;       // y or dx
  const BatchNormLanes* lanes = nullptr;
  DropoutRun drop{};
};

struct BatchNormKernels {
  // a = mean, b = sum of squared deviations, over `panels` panels of `rows` rows.
  void (*statistics)(const float* x, int64_t rows, int64_t panels, int64_t stride,
                     BatchNormSums* sums);
  void (*forward)(const BatchNorm& norm, const BatchNormPanel& panel);
  void (*backward_sums)(const BatchNorm& norm, const BatchNormPanel& panel, BatchNormSums* sums);
  void (*backward_apply)(const BatchNorm& norm, const BatchNormPanel& panel);
};
PANNS_TIERED(BatchNormKernels, batch_norm_kernels)

}  // namespace panns::cpu
