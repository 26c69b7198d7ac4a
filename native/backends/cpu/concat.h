// concat: the channels of two maps (N, Ca, T, F) and (N, Cb, T, F) one after the other. Reads and
// writes each float once; where 16 divides Ca and Cb it is a copy by panels.
#pragma once

#include "backends/cpu/layout.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

// Throws ERR_PANNS_SHAPE unless the maps differ in channels alone.
Map concat_output(const Map& a, const Map& b);

void concat(ThreadPool& pool, const Map& a_map, const Map& b_map, const float* a, const float* b,
            float* y);
// Splits dy into da and db; either may be null.
void concat_backward(ThreadPool& pool, const Map& a_map, const Map& b_map, const float* dy,
                     float* da, float* db);

}  // namespace panns::cpu
