// A convolution over a map of two bins, of kernel (any) x 3 with a padding of 1, as one over pairs
// of bins: [N][T][2][C] is [N][T][1][2 C] in memory. Either bin meets only two of the three taps
// along frequency, so that the pairs' kernel of (any) x 1 has 4 products of channels for each of
// its taps where the bins' has 6, with
//
//   paired[(bo, o)][kt][(bi, i)] = w[o][kt][bi - bo + 1][i]        bo, bi: bin of y, of x
//   dw[o][kt][kf][i] = sum of dpaired[(bo, o)][kt][(bi, i)] over bi - bo + 1 = kf
//
// the same sums but for their order. Channels are multiples of 8.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

// Elements of the paired filter of one of three taps along frequency.
constexpr int64_t paired_size(const Filter& f) {
  return 4 * f.out_channels() * f.kt * f.in_channels();
}

// Rounds to the type of the paired filter, as a cast does.
void pair_filter(const Launch& launch, const Filter& filter, Storage from, const void* w,
                 Storage to, void* paired);

// The gradient in float, of a paired filter's.
void unpair_gradient(const Launch& launch, const Filter& filter, Storage from, const void* gradient,
                     float* dw);

}  // namespace panns::cuda
