#include "backends/cpu/upsample.h"

#include <algorithm>

#include "core/error.h"
#include "core/threads.h"

namespace panns::cpu {
namespace {

// Frames a unit writes: 64 of them times 527 classes are 130 KB.
constexpr int64_t kFrameChunk = 64;

}  // namespace

void upsample(ThreadPool& pool, const Map& map, int64_t ratio, int64_t frames, const float* x,
              float* y) {
  PANNS_CHECK(map.f == 1 && map.t > 0 && ratio > 0, "ERR_PANNS_SHAPE", "upsample",
              "expected segments with F = 1 and a positive ratio, got F = ", map.f, ", S = ", map.t,
              ", ratio ", ratio);
  const int64_t chunks = (frames + kFrameChunk - 1) / kFrameChunk;
  pool.run(map.n * chunks, [&](int64_t unit, int) {
    const int64_t in = unit / chunks, begin = unit % chunks * kFrameChunk;
    const int64_t end = std::min(begin + kFrameChunk, frames);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t segment = std::min(t / ratio, map.t - 1);
      float* row = y + (in * frames + t) * map.c;
      for (int64_t c = 0; c < map.c; c += map.block()) {
        std::copy_n(x + map.at(in, c, segment, 0), std::min(map.block(), map.c - c), row + c);
      }
    }
  });
}

}  // namespace panns::cpu
