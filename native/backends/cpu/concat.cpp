#include "backends/cpu/concat.h"

#include "backends/cpu/panel_gather.h"
#include "core/error.h"
#include "core/threads.h"

namespace panns::cpu {
namespace {

// Copies the channels from `first` on of a map to a map that has fewer.
void take_channels(ThreadPool& pool, const Map& from, int64_t first, const float* x, const Map& to,
                   float* y) {
  pool.run(to.n * to.f * to.blocks(), [&](int64_t unit, int) {
    const int64_t row = unit / to.blocks(), in = row / to.f, jf = row % to.f;
    gather_panel(to, in, jf, unit % to.blocks(), y,
                 [&](int64_t c) { return lane_of(from, x, in, first + c, jf); });
  });
}

}  // namespace

Map concat_output(const Map& a, const Map& b) {
  PANNS_CHECK(a.n == b.n && a.t == b.t && a.f == b.f, "ERR_PANNS_SHAPE", "concat",
              "expected two maps that differ in channels alone, got ", a.n, " x ", a.t, " x ", a.f,
              " and ", b.n, " x ", b.t, " x ", b.f, " clips, frames and bins");
  return {a.n, a.c + b.c, a.t, a.f};
}

void concat(ThreadPool& pool, const Map& a_map, const Map& b_map, const float* a, const float* b,
            float* y) {
  const Map out = concat_output(a_map, b_map);
  pool.run(out.n * out.f * out.blocks(), [&](int64_t unit, int) {
    const int64_t row = unit / out.blocks(), in = row / out.f, jf = row % out.f;
    gather_panel(out, in, jf, unit % out.blocks(), y, [&](int64_t c) {
      return c < a_map.c ? lane_of(a_map, a, in, c, jf) : lane_of(b_map, b, in, c - a_map.c, jf);
    });
  });
}

void concat_backward(ThreadPool& pool, const Map& a_map, const Map& b_map, const float* dy,
                     float* da, float* db) {
  const Map out = concat_output(a_map, b_map);
  if (da != nullptr) take_channels(pool, out, 0, dy, a_map, da);
  if (db != nullptr) take_channels(pool, out, a_map.c, dy, b_map, db);
}

}  // namespace panns::cpu
