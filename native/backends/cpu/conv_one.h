// backward_data into a single channel: the gradient of a network's first convolution, which bn0
// in front of it needs. No block of input channels to vectorise over, so the 16 lanes run over
// output channels and are summed at the end.
#pragma once

#include <stdint.h>

#include "backends/cpu/tier.h"

namespace panns::cpu {

// One row of dy (frequency) with the taps that reach from it.
struct ConvOneRow {
  const float* dy;  // [block][time][16]
  const float* w;   // of block 0: [kernel_t][16]
};

// dx[t] = sum over rows, blocks, kt and lanes of dy[block][t + pad - kt][lane] w[block][kt][lane]
// for t in [begin, end).
struct ConvOne {
  const ConvOneRow* rows;
  int64_t row_count;
  int64_t blocks, dy_block, w_block;  // floats from one block to the next
  int64_t kernel_t, pad_t, out_t;
  float* dx;
  int64_t begin, end;
};

struct ConvOneKernels {
  void (*run)(const ConvOne&);
};
PANNS_TIERED(ConvOneKernels, conv_one_kernels)

}  // namespace panns::cpu
