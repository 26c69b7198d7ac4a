// pool: mean, max, or mean + max over windows of kt x kf (time x frequency), any stride, with
// PyTorch's rules: floor; padding counts as zeros in the mean, as -infinity in the max; the max
// lets NaN through and sends its gradient to the first maximum in (t, f) order.
// Maps of any C. Forward reads x once for each window that covers it; backward recomputes maxima
// from x.
#pragma once

#include <cstdint>

#include "backends/cpu/layout.h"
#include "backends/cpu/tier.h"

namespace panns {
class ThreadPool;
}

namespace panns::cpu {

enum class PoolKind { mean, max, mean_max };

struct Pool {
  PoolKind kind = PoolKind::mean;
  int64_t kt = 2, kf = 2;  // window
  int64_t st = 2, sf = 2;  // stride
  int64_t pt = 0, pf = 0;  // padding on each side, at most half the window
};

// The shape of y; throws ERR_PANNS_SHAPE where a window does not fit.
Map pool_output(const Pool& pool, const Map& map);

void pool(ThreadPool& threads, const Pool& pool, const Map& map, const float* x, float* y,
          Tier t = tier());
// x is read by max and mean_max only.
void pool_backward(ThreadPool& threads, const Pool& pool, const Map& map, const float* x,
                   const float* dy, float* dx, Tier t = tier());

struct PoolRun {
  Pool pool;
  Map in, out;
};

struct PoolKernels {
  // Frames [begin, end) of one output column: x = the (n, block) at column 0, y = its panel.
  void (*forward)(const PoolRun& run, const float* x, float* y, int64_t column, int64_t begin,
                  int64_t end);
  // Adds one output column's gradient into dx, the (n, block) at column 0.
  void (*backward)(const PoolRun& run, const float* x, const float* dy, float* dx, int64_t column);
};
PANNS_TIERED(PoolKernels, pool_kernels)

}  // namespace panns::cpu
