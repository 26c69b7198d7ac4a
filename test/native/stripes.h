// Where spec_augment of the CUDA backend blanks a map, by its documented draw.
#pragma once

#include <algorithm>

#include "backends/cuda/spec_augment.h"
#include "cuda_values.h"

namespace test {

// Element 8 clip + k of the node's stream, width first; `first`: 0 of time, 4 of frequency.
inline bool covered(const panns::RandomStream& random, int64_t clip, int64_t at, int64_t limit,
                    int64_t total, int first) {
  for (int k = first; k < first + 4; k += 2) {
    const auto draw = [&](int word, int64_t range) {
      const uint64_t w = panns::random_word(random, static_cast<uint64_t>(8 * clip + word));
      return static_cast<int64_t>(static_cast<double>(w) * static_cast<double>(range) / 0x1p32);
    };
    const int64_t width = std::min(draw(k, limit), total - 1);
    const int64_t start = draw(k + 1, total - width);
    if (at >= start && at < start + width) return true;
  }
  return false;
}

inline bool blank(const panns::backends::StepState& state, const panns::cuda::SpecAugment& augment,
                  const panns::cuda::Map& map, int64_t n, int64_t t, int64_t f) {
  const panns::RandomStream random{state.seed, state.step, static_cast<uint32_t>(augment.mask)};
  return covered(random, n, t, augment.time_width, map.t, 0) ||
         covered(random, n, f, augment.freq_width, map.f, 4);
}

}  // namespace test
