// softmax over the last dimension of dense (rows, k).
#pragma once

#include <cstdint>

#include "backends/cuda/launch.h"

namespace panns::cuda {

void softmax(const Launch& launch, int64_t rows, int64_t k, const float* x, float* y);

}  // namespace panns::cuda
