// upsample: scores of segments, a map (N, K, S, 1), to scores of frames, dense (N, frames, K):
// frame t has those of segment min(t / ratio, S - 1).
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

void upsample(const Launch& launch, int64_t ratio, int64_t frames, const Map& map, const void* x,
              float* y);

}  // namespace panns::cuda
