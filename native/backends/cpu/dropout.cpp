#include "backends/cpu/dropout.h"

#include <algorithm>

#include "backends/cpu/chunks.h"

namespace panns::cpu {
namespace {

DropoutRun run_of(const Dropout& drop) {
  return {drop.random, 0, 4, drop_threshold(drop.p), drop.scale()};
}

// Channels that do not fill whole calls: one call an element. Rare and small (C == 1, C == 7).
void dropout_by_element(const DropoutRun& run, const Map& map, int64_t in, int64_t jf,
                        const float* x, float* y) {
  for (int64_t ic = 0; ic < map.blocks() * map.block(); ++ic) {
    for (int64_t it = 0; it < map.t; ++it) {
      const int64_t at = map.at(in, ic, it, jf);
      const auto element = static_cast<uint64_t>(((in * map.t + it) * map.f + jf) * map.c + ic);
      const bool kept = ic < map.c && random_word(run.random, element) >= run.threshold;
      y[at] = kept ? x[at] * run.scale : 0.0f;
    }
  }
}

}  // namespace

void dropout(ThreadPool& pool, const Dropout& drop, const Map& map, const float* x, float* y,
             Tier t) {
  const auto& kernels = dropout_kernels(t);
  const DropoutRun base = run_of(drop);
  const int64_t stride = map.f * map.c / 4;
  // As many neighbouring panels a unit as make up a chunk.
  const int64_t group = std::clamp<int64_t>(kChunk / map.panel(), 1, map.blocks());
  const int64_t groups = (map.blocks() + group - 1) / group;
  pool.run(map.n * map.f * groups, [&](int64_t unit, int) {
    const int64_t in = unit / groups / map.f, jf = unit / groups % map.f;
    if (map.c % 4 != 0) {
      if (unit % groups == 0) dropout_by_element(base, map, in, jf, x, y);
      return;
    }
    const int64_t first = unit % groups * group;
    const int64_t last = std::min(first + group, map.blocks());
    for (int64_t block = first; block < last; ++block) {
      DropoutRun run = base;
      run.first_call =
          static_cast<uint64_t>(((in * map.t * map.f + jf) * map.c + block * kChannelBlock) / 4);
      run.call_stride = static_cast<uint64_t>(stride);
      const int64_t at = map.at(in, block * kChannelBlock, 0, jf);
      kernels.apply(run, x + at, y + at, map.panel());
    }
  });
}

void dropout(ThreadPool& pool, const Dropout& drop, int64_t count, const float* x, float* y,
             Tier t) {
  const auto& kernels = dropout_kernels(t);
  const DropoutRun base = run_of(drop);
  for_chunks(pool, count, [&](int64_t begin, int64_t size, int64_t) {
    DropoutRun run = base;
    run.first_call = static_cast<uint64_t>(begin / 4);
    kernels.apply(run, x + begin, y + begin, size);
  });
}

}  // namespace panns::cpu
