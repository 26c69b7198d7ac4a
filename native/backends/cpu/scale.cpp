#include "backends/cpu/scale.h"

#include <algorithm>

#include "backends/cpu/chunks.h"
#include "core/threads.h"

namespace panns::cpu {
namespace {

struct Factors {
  alignas(64) float lane[kChannelBlock];
};

// The factors of a block's 16 lanes: zero in the padding, one and the same where C == 1.
Factors factors_of(const Map& map, const float* s, int64_t in, int64_t block) {
  Factors f{};
  if (map.c == 1) {
    std::fill_n(f.lane, kChannelBlock, s[in]);
  } else {
    const int64_t first = block * kChannelBlock;
    std::copy_n(s + in * map.c + first, std::min(kChannelBlock, map.c - first), f.lane);
  }
  return f;
}

// Calls body(in, jf, block) for every panel; a unit is as many neighbours as make up a chunk.
template <typename Body>
void for_panels(ThreadPool& pool, const Map& map, Body&& body) {
  const int64_t panels = map.n * map.f * map.blocks();
  const int64_t group = std::max<int64_t>(kChunk / std::max<int64_t>(map.panel(), 1), 1);
  pool.run((panels + group - 1) / group, [&](int64_t unit, int) {
    const int64_t end = std::min((unit + 1) * group, panels);
    for (int64_t p = unit * group; p < end; ++p) {
      const int64_t row = p / map.blocks();
      body(row / map.f, row % map.f, p % map.blocks());
    }
  });
}

// ds from the 16 sums of each panel: over bins, in order.
void sum_panels(const Map& map, int64_t in, const float* sums, float* ds) {
  for (int64_t c = 0; c < map.c; ++c) {
    const int64_t block = c / kChannelBlock;
    double total = 0;
    for (int64_t jf = 0; jf < map.f; ++jf) {
      const float* panel = sums + ((in * map.f + jf) * map.blocks() + block) * kChannelBlock;
      // A lane is a channel, or a sixteenth of the only one.
      if (map.c > 1) total += panel[c % kChannelBlock];
      for (int64_t l = 0; map.c == 1 && l < kChannelBlock; ++l) total += panel[l];
    }
    ds[in * map.c + c] = static_cast<float>(total);
  }
}

}  // namespace

void scale(ThreadPool& pool, const Map& map, const float* x, const float* s, float* y, Tier t) {
  const auto& kernels = scale_kernels(t);
  for_panels(pool, map, [&](int64_t in, int64_t jf, int64_t block) {
    const int64_t at = map.at(in, block * map.block(), 0, jf);
    kernels.forward(x + at, factors_of(map, s, in, block).lane, y + at, map.panel());
  });
}

size_t scale_workspace(const Map& map) {
  return static_cast<size_t>(map.n * map.f * map.blocks() * kChannelBlock) * sizeof(float);
}

void scale_backward(ThreadPool& pool, const Map& map, const float* x, const float* s,
                    const float* dy, float* dx, float* ds, void* workspace, Tier t) {
  if (dx == nullptr && ds == nullptr) return;
  const auto& kernels = scale_kernels(t);
  auto* sums = static_cast<float*>(workspace);
  for_panels(pool, map, [&](int64_t in, int64_t jf, int64_t block) {
    const int64_t at = map.at(in, block * map.block(), 0, jf);
    const int64_t panel = (in * map.f + jf) * map.blocks() + block;
    kernels.backward(x + at, factors_of(map, s, in, block).lane, dy + at,
                     dx == nullptr ? nullptr : dx + at,
                     ds == nullptr ? nullptr : sums + panel * kChannelBlock, map.panel());
  });
  if (ds == nullptr) return;
  pool.run(map.n, [&](int64_t in, int) { sum_panels(map, in, sums, ds); });
}

}  // namespace panns::cpu
