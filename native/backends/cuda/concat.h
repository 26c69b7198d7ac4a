// concat: the channels of two feature maps one after the other.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

// Two maps that differ in channels alone, `out` having those of both. Either may have one channel,
// and then is float32 whatever the others are.
void concat(const Launch& launch, const Map& a, const Map& b, const void* xa, const void* xb,
            void* y);
// da and db may each be null where nothing needs them.
void concat_backward(const Launch& launch, const Map& a, const Map& b, const void* dy, void* da,
                     void* db);

}  // namespace panns::cuda
