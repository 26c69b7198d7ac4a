// mixup: out[i] = x[2i] lambda[2i] + x[2i + 1] lambda[2i + 1], i < n; samples of any shape and
// layout. 12 bytes a float of out either way.
#pragma once

#include <cstdint>

#include "backends/cpu/tier.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

// x: 2n samples of `sample` floats; lambda: 2n; out: n samples.
void mixup(ThreadPool& pool, int64_t n, int64_t sample, const float* x, const float* lambda,
           float* out, Tier t = tier());
// dx[i] = dout[i / 2] lambda[i], i < 2n
void mixup_backward(ThreadPool& pool, int64_t n, int64_t sample, const float* dout,
                    const float* lambda, float* dx, Tier t = tier());

struct MixupKernels {
  void (*forward)(const float* a, const float* b, float la, float lb, float* out, int64_t count);
  void (*backward)(const float* dout, float la, float lb, float* da, float* db, int64_t count);
};
PANNS_TIERED(MixupKernels, mixup_kernels)

}  // namespace panns::cpu
