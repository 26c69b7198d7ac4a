// dropout: y = x / (1 - p) where the element's word reaches the threshold, 0 elsewhere
// (core/philox.h). The backward pass is the same function of dy with the same stream. A dropped
// NaN becomes 0. 8 bytes a float, and about 2 cycles a float for the random words.
#pragma once

#include <cstdint>

#include "backends/cpu/layout.h"
#include "backends/cpu/tier.h"
#include "core/philox.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

struct Dropout {
  float p = 0.0f;  // 0 ... 1; 0 is no dropout
  RandomStream random;

  constexpr bool active() const { return p > 0.0f; }
  // p = 1 drops everything, as in PyTorch.
  constexpr float scale() const { return p < 1.0f ? 1.0f / (1.0f - p) : 0.0f; }
};

// y may be x.
void dropout(ThreadPool& pool, const Dropout& drop, const Map& map, const float* x, float* y,
             Tier t = tier());
// A dense array: element = flat index.
void dropout(ThreadPool& pool, const Dropout& drop, int64_t count, const float* x, float* y,
             Tier t = tier());

// Blocks of 16 consecutive elements, or fewer in the last: block i takes the random calls
// first_call + i * call_stride ... + 3, and lies at x + 16 i.
struct DropoutRun {
  RandomStream random;
  uint64_t first_call = 0;
  uint64_t call_stride = 4;
  uint32_t threshold = 0;
  float scale = 1.0f;
};

struct DropoutKernels {
  void (*apply)(const DropoutRun& run, const float* x, float* y, int64_t count);
  // The 16 words of four consecutive calls.
  void (*words)(const RandomStream& random, uint64_t call, uint32_t* out);
};
PANNS_TIERED(DropoutKernels, dropout_kernels)

}  // namespace panns::cpu
