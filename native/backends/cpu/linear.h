// linear: y (N, O) = x (N, I) W^T + b with W (O, I) dense, as in PyTorch; optionally followed by a
// relu. Each weight is read from memory once for the whole batch (forward and dx) and each dW
// written once: at the batch sizes of a head the weights are nearly all the traffic.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cpu/tier.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

struct Linear {
  int64_t n = 0, in = 0, out = 0;
  bool relu = false;
};

// b may be null: no bias.
void linear(ThreadPool& pool, const Linear& shape, const float* x, const float* w, const float* b,
            float* y, Tier t = tier());

// dx, db, or dw and db may be null where nothing needs them. y, the output, is read with relu only.
struct LinearBackward {
  const float *x, *w, *y, *dy;
  float *dx, *dw, *db;
};
// Bytes of scratch for the backward pass.
int64_t linear_workspace(const Linear& shape);
void linear_backward(ThreadPool& pool, const Linear& shape, const LinearBackward& a,
                     std::byte* workspace, Tier t = tier());

struct LinearKernels {
  // Outputs [first, first + count) of every row.
  void (*forward)(const Linear& shape, const float* x, const float* w, const float* b, float* y,
                  int64_t first, int64_t count);
  // Inputs [first, first + count) of every row of dx.
  void (*backward_data)(const Linear& shape, const float* dy, const float* w, float* dx,
                        int64_t first, int64_t count);
  // Rows [first, first + count) of dW.
  void (*backward_weight)(const Linear& shape, const float* dy, const float* x, float* dw,
                          int64_t first, int64_t count);
};
PANNS_TIERED(LinearKernels, linear_kernels)

}  // namespace panns::cpu
