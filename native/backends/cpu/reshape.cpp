#include "backends/cpu/reshape.h"

#include <algorithm>

#include "backends/cpu/chunks.h"
#include "backends/cpu/panel_gather.h"
#include "core/error.h"

namespace panns::cpu {
namespace {

Map folded(const Map& x, int64_t bins) {
  PANNS_CHECK(bins > 0 && x.f == 1 && x.c % bins == 0, "ERR_PANNS_SHAPE", "fold",
              "expected one frequency bin and channels that ", bins, " divides, got ", x.f,
              " bins and ", x.c, " channels");
  return {x.n, x.c / bins, x.t, bins};
}

}  // namespace

void copy(ThreadPool& pool, int64_t count, const float* x, float* y) {
  for_chunks(pool, count, [&](int64_t begin, int64_t size, int64_t) {
    std::copy_n(x + begin, size, y + begin);
  });
}

void fold(ThreadPool& pool, const Map& x_map, int64_t bins, const float* x, float* y) {
  const Map out = folded(x_map, bins);
  pool.run(out.n * out.f * out.blocks(), [&](int64_t unit, int) {
    const int64_t row = unit / out.blocks(), in = row / bins, jf = row % bins;
    gather_panel(out, in, jf, unit % out.blocks(), y,
                 [&](int64_t g) { return lane_of(x_map, x, in, g * bins + jf, 0); });
  });
}

void fold_backward(ThreadPool& pool, const Map& x_map, int64_t bins, const float* dy, float* dx) {
  const Map out = folded(x_map, bins);
  pool.run(x_map.n * x_map.blocks(), [&](int64_t unit, int) {
    const int64_t in = unit / x_map.blocks();
    gather_panel(x_map, in, 0, unit % x_map.blocks(), dx,
                 [&](int64_t c) { return lane_of(out, dy, in, c / bins, c % bins); });
  });
}

}  // namespace panns::cpu
