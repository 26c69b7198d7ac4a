// mixup: clips 2i and 2i + 1 to their weighted sum, lambda[2i] x[2i] + lambda[2i + 1] x[2i + 1].
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

// (2n clips of `clip` stored elements) and lambda (2n) to n clips. `clip` is a run of one clip: a
// map's with its padding, or a row of targets.
void mixup(const Launch& launch, int64_t n, const Run& clip, const void* x, const float* lambda,
           void* y);
// dx[j] = lambda[j] dy[j / 2]
void mixup_backward(const Launch& launch, int64_t n, const Run& clip, const void* dy,
                    const float* lambda, void* dx);

}  // namespace panns::cuda
