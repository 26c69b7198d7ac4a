// Ops that move values and change none.
#pragma once

#include "backends/cpu/layout.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

// y = x, count floats: samples (N, S) are already a map of one channel.
void copy(ThreadPool& pool, int64_t count, const float* x, float* y);

// The map (N, G * bins, T, 1) to (N, G, T, bins): channel g * bins + f becomes bin f of channel g.
// A gather: reads and writes each float once, and writes padding lanes where 16 does not divide G.
void fold(ThreadPool& pool, const Map& x_map, int64_t bins, const float* x, float* y);
// dy (N, G, T, bins) to dx of x_map.
void fold_backward(ThreadPool& pool, const Map& x_map, int64_t bins, const float* dy, float* dx);

}  // namespace panns::cpu
