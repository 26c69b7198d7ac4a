// fold_batch_norm: the weight and bias of a convolution with the norm behind it folded in.
#pragma once

#include "backends/cuda/optimizer.h"

namespace panns::cuda {

// w' = w gamma / sqrt(var + eps) a row, b' = beta - mean gamma / sqrt(var + eps). `folded` has the
// filter's layout, `bias` (O) is dense; the copy, if wanted, has the filter's layout in 16 bits.
struct FoldBatchNorm {
  const float *weight, *gamma, *beta, *mean, *var;
  float *folded, *bias;
  WeightCopy copy;
};
void fold_batch_norm(const Launch& launch, const Filter& filter, double eps,
                     const FoldBatchNorm& a);

}  // namespace panns::cuda
