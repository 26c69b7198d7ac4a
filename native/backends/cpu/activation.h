// Elementwise ops over flat arrays: activations, their backward, the sum of two. Any output may be
// the same array as any input. Reads each input once, writes once: 8 bytes a float forward, 12
// backward.
#pragma once

#include <cstdint>

#include "backends/cpu/layout.h"
#include "backends/cpu/tier.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

// All let NaN through. sigmoid is within 3e-7 relative error down to its smallest value. hard_swish
// is x min(max(x + 3, 0), 6) / 6.
enum class Activation { relu, relu6, hard_swish, sigmoid };

// y = f(x), count floats.
void activation(ThreadPool& pool, Activation kind, int64_t count, const float* x, float* y,
                Tier t = tier());
// The same over a feature map; keeps the zeros of the padding lanes, where sigmoid(0) is not 0.
void activation(ThreadPool& pool, Activation kind, const Map& map, const float* x, float* y,
                Tier t = tier());
// dx = dy f'(x), with f' from y = f(x); from x itself for hard_swish, which is not monotonic.
void activation_backward(ThreadPool& pool, Activation kind, int64_t count, const float* from,
                         const float* dy, float* dx, Tier t = tier());

// y = a + b
void add(ThreadPool& pool, int64_t count, const float* a, const float* b, float* y,
         Tier t = tier());

struct ActivationKernels {
  void (*forward)(Activation kind, const float* x, float* y, int64_t count);
  void (*backward)(Activation kind, const float* from, const float* dy, float* dx, int64_t count);
  void (*add)(const float* a, const float* b, float* y, int64_t count);
};
PANNS_TIERED(ActivationKernels, activation_kernels)

}  // namespace panns::cpu
