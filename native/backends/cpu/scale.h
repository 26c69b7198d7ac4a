// scale: a map (N, C, T, F) times one factor a channel and clip, dense (N, C). 8 bytes a float
// forward; backward reads x and dy and writes dx, 12.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cpu/layout.h"
#include "backends/cpu/tier.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

// y may be x.
void scale(ThreadPool& pool, const Map& map, const float* x, const float* s, float* y,
           Tier t = tier());

// Bytes of scratch memory that backward needs.
size_t scale_workspace(const Map& map);
// dx = dy s, and ds = the sum of x dy over T and F. Either may be null; dx may be dy.
void scale_backward(ThreadPool& pool, const Map& map, const float* x, const float* s,
                    const float* dy, float* dx, float* ds, void* workspace, Tier t = tier());

struct ScaleKernels {
  // y[i] = x[i] s[i % 16]
  void (*forward)(const float* x, const float* s, float* y, int64_t count);
  // dx as y above, unless null; sum[l] = the sum of x[i] dy[i] over i % 16 == l, unless null.
  void (*backward)(const float* x, const float* s, const float* dy, float* dx, float* sum,
                   int64_t count);
};
PANNS_TIERED(ScaleKernels, scale_kernels)

}  // namespace panns::cpu
