// pool: mean, maximum, or both summed, over windows of kt x kf (time x frequency), any stride, with
// PyTorch's rules: floor; padding counts as zeros in the mean, as -infinity in the maximum; the
// maximum lets NaN through, and sends its gradient to the first one in (t, f) order.
#pragma once

#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"

namespace panns::cuda {

enum class PoolKind : uint8_t { mean, max, mean_max };

struct Pool {
  PoolKind kind = PoolKind::mean;
  int64_t kt = 2, kf = 2;  // window
  int64_t st = 2, sf = 2;  // stride
  int64_t pt = 0, pf = 0;  // padding on each side, at most half the window
};

Map pool_output(const Pool& pool, const Map& map);

void pool(const Launch& launch, const Pool& pool, const Map& map, const void* x, void* y);
// x is read by max and mean_max only.
void pool_backward(const Launch& launch, const Pool& pool, const Map& map, const void* x,
                   const void* dy, void* dx);

}  // namespace panns::cuda
