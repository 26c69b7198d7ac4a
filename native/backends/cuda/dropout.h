// dropout: y = x / (1 - p) where the element's random word reaches the threshold, 0 elsewhere
// (core/philox.h). Its backward is the same function of dy. y may be x.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::backends {
struct StepState;
}

namespace panns::cuda {

struct Dropout {
  float p = 0;       // 0 ... 1; 0 is no dropout
  int32_t mask = 0;  // the node of the random stream
};

// `state`, in device memory, gives the seed and the step.
void dropout(const Launch& launch, const Dropout& dropout, const Map& map,
             const backends::StepState* state, const void* x, void* y);
// A dense array: element = flat index.
void dropout(const Launch& launch, const Dropout& dropout, int64_t count,
             const backends::StepState* state, const float* x, float* y);

}  // namespace panns::cuda
