#include "backends/cpu/pool.h"

#include <algorithm>

#include "core/error.h"
#include "core/threads.h"

namespace panns::cpu {
namespace {

// Output frames a unit takes: more than a spectrogram of 10 s has, so that only long lines of a
// single bin, as waveform networks have, are cut.
constexpr int64_t kFrameChunk = 1024;

int64_t out_size(int64_t in, int64_t window, int64_t stride, int64_t padding) {
  return (in + 2 * padding - window) / stride + 1;
}

}  // namespace

Map pool_output(const Pool& p, const Map& map) {
  PANNS_CHECK(p.kt > 0 && p.kf > 0 && p.st > 0 && p.sf > 0 && p.pt >= 0 && p.pf >= 0 &&
                  2 * p.pt <= p.kt && 2 * p.pf <= p.kf,
              "ERR_PANNS_SHAPE", "pool",
              "expected a positive window and stride and a padding of at most half the window, got "
              "window ",
              p.kt, " x ", p.kf, ", stride ", p.st, " x ", p.sf, ", padding ", p.pt, " x ", p.pf);
  PANNS_CHECK(map.t + 2 * p.pt >= p.kt && map.f + 2 * p.pf >= p.kf, "ERR_PANNS_SHAPE", "pool",
              "expected at least ", p.kt - 2 * p.pt, " frames and ", p.kf - 2 * p.pf,
              " bins for one window, got ", map.t, " and ", map.f, "; use longer clips");
  return {map.n, map.c, out_size(map.t, p.kt, p.st, p.pt), out_size(map.f, p.kf, p.sf, p.pf)};
}

void pool(ThreadPool& threads, const Pool& p, const Map& map, const float* x, float* y, Tier t) {
  const auto& kernels = pool_kernels(t);
  const PoolRun run{p, map, pool_output(p, map)};
  const int64_t blocks = map.blocks(), chunks = (run.out.t + kFrameChunk - 1) / kFrameChunk;
  threads.run(map.n * run.out.f * blocks * chunks, [&](int64_t unit, int) {
    const int64_t panel = unit / chunks, begin = unit % chunks * kFrameChunk;
    const int64_t block = panel % blocks * map.block(), column = panel / blocks % run.out.f;
    const int64_t in = panel / blocks / run.out.f;
    kernels.forward(run, x + map.at(in, block, 0, 0), y + run.out.at(in, block, 0, column), column,
                    begin, std::min(begin + kFrameChunk, run.out.t));
  });
}

void pool_backward(ThreadPool& threads, const Pool& p, const Map& map, const float* x,
                   const float* dy, float* dx, Tier t) {
  const auto& kernels = pool_kernels(t);
  const PoolRun run{p, map, pool_output(p, map)};
  const int64_t blocks = map.blocks();
  // Where windows overlap along frequency, one unit does all columns of a channel block; otherwise
  // a unit owns one output column and the input columns from its window to the next.
  const int64_t per_unit = p.kf > p.sf ? run.out.f : 1;
  const int64_t groups = run.out.f / per_unit;
  threads.run(map.n * groups * blocks, [&](int64_t unit, int) {
    const int64_t block = unit % blocks * map.block(), group = unit / blocks % groups;
    const int64_t in = unit / blocks / groups;
    const int64_t begin = group == 0 ? 0 : group * p.sf - p.pf;
    const int64_t end = group + 1 == groups ? map.f : (group + 1) * p.sf - p.pf;
    for (int64_t jf = begin; jf < end; ++jf) {
      std::fill_n(dx + map.at(in, block, 0, jf), map.panel(), 0.0f);
    }
    const int64_t at = map.at(in, block, 0, 0);
    for (int64_t column = group * per_unit; column < (group + 1) * per_unit; ++column) {
      kernels.backward(run, x + at, dy + run.out.at(in, block, 0, column), dx + at, column);
    }
  });
}

}  // namespace panns::cpu
