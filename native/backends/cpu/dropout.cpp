#include "backends/cpu/dropout.h"

#include <algorithm>

#include "backends/cpu/chunks.h"

namespace panns::cpu {
namespace {

DropoutRun run_of(const Dropout& drop) {
  return {drop.random, 0, 4, drop_threshold(drop.p), drop.scale()};
}

// Frames a unit takes where channels do not fill whole calls: whole cache lines of a map with
// C == 1, so that no two threads write to one.
constexpr int64_t kFrameChunk = 16;

// The words of consecutive elements.
class WordReader {
 public:
  WordReader(const DropoutKernels& kernels, const RandomStream& random, uint64_t element)
      : kernels_(kernels), random_(random), call_(element / 4), used_(element % 4) {
    kernels_.words(random_, call_, words_);
  }
  uint32_t next() {
    if (used_ == kChannelBlock) {
      call_ += kChannelBlock / 4;
      kernels_.words(random_, call_, words_);
      used_ = 0;
    }
    return words_[used_++];
  }

 private:
  const DropoutKernels& kernels_;
  RandomStream random_;
  uint64_t call_, used_;
  uint32_t words_[kChannelBlock];
};

// Channels that do not fill whole calls (C == 1, C == 7): element by element, in the order of
// their words.
void dropout_frame(const DropoutKernels& kernels, const DropoutRun& run, const Map& map, int64_t in,
                   int64_t it, const float* x, float* y) {
  WordReader words(kernels, run.random, static_cast<uint64_t>((in * map.t + it) * map.f * map.c));
  for (int64_t jf = 0; jf < map.f; ++jf) {
    for (int64_t first = 0; first < map.c; first += map.block()) {
      const int64_t at = map.at(in, first, it, jf), used = std::min(map.block(), map.c - first);
      for (int64_t l = 0; l < used; ++l) {
        y[at + l] = words.next() >= run.threshold ? x[at + l] * run.scale : 0.0f;
      }
      std::fill_n(y + at + used, map.block() - used, 0.0f);
    }
  }
}

}  // namespace

void dropout(ThreadPool& pool, const Dropout& drop, const Map& map, const float* x, float* y,
             Tier t) {
  const auto& kernels = dropout_kernels(t);
  const DropoutRun base = run_of(drop);
  if (map.c % 4 != 0) {
    const int64_t chunks = (map.t + kFrameChunk - 1) / kFrameChunk;
    pool.run(map.n * chunks, [&](int64_t unit, int) {
      const int64_t begin = unit % chunks * kFrameChunk;
      const int64_t end = std::min(begin + kFrameChunk, map.t);
      for (int64_t it = begin; it < end; ++it) {
        dropout_frame(kernels, base, map, unit / chunks, it, x, y);
      }
    });
    return;
  }
  const int64_t stride = map.f * map.c / 4;
  // As many neighbouring panels a unit as make up a chunk.
  const int64_t group = std::clamp<int64_t>(kChunk / map.panel(), 1, map.blocks());
  const int64_t groups = (map.blocks() + group - 1) / group;
  pool.run(map.n * map.f * groups, [&](int64_t unit, int) {
    const int64_t in = unit / groups / map.f, jf = unit / groups % map.f;
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
