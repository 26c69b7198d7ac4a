// spec_augment (training only): zeroes two stripes of time and two of frequency in each sample of
// a map (N, 1, T, F), as torchlibrosa's SpecAugmentation does (the numbers drawn are our own).
//
// A stripe's width is uniform in [0, width), at most total - 1; its start is uniform in
// [0, total - width). Sample i's draws are elements 8 i ... 8 i + 7 of the node's random stream:
// time width, time start, time width, time start, then the same for frequency.
#pragma once

#include <cstdint>

#include "backends/cpu/layout.h"
#include "core/philox.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

struct SpecAugment {
  int64_t time_width = 64, freq_width = 8;
  RandomStream random;
};

struct Stripe {
  int64_t begin = 0, end = 0;
};
struct Stripes {
  Stripe time[2], freq[2];
};
Stripes spec_augment_stripes(const SpecAugment& augment, int64_t sample, int64_t t, int64_t f);

// y may be x. The backward pass is the same function of dy. Throws ERR_PANNS_SHAPE unless C is 1.
void spec_augment(ThreadPool& pool, const SpecAugment& augment, const Map& map, const float* x,
                  float* y);

}  // namespace panns::cpu
