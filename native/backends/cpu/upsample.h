// upsample: the map (N, K, S, 1) of segments to dense (N, T, K): frame t reads segment
// min(t / ratio, S - 1). Writes each float once.
#pragma once

#include "backends/cpu/layout.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

// Throws ERR_PANNS_SHAPE unless F is 1.
void upsample(ThreadPool& pool, const Map& map, int64_t ratio, int64_t frames, const float* x,
              float* y);

}  // namespace panns::cpu
