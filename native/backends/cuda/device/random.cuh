// Random words for eight neighbouring elements. The bits are those of core/philox.h for the logical
// element, so a mask does not depend on the layout or the backend.
#pragma once

#include "backends/backend.h"
#include "backends/cuda/device/pack.cuh"
#include "core/philox.h"

namespace panns::cuda {

PANNS_DEVICE RandomStream stream_of(const backends::StepState* state, int32_t node) {
  return {state->seed, state->step, static_cast<uint32_t>(node)};
}

// How to drop: an element whose word is below the threshold becomes 0, others are scaled.
struct Drop {
  uint32_t threshold = 0;
  float scale = 1;
  int32_t node = 0;

  Drop() = default;
  Drop(float p, int32_t node)
      : threshold(drop_threshold(p)), scale(p < 1 ? 1 / (1 - p) : 0), node(node) {}
};

// The words of elements first ... first + 7.
PANNS_DEVICE void random8(const RandomStream& random, uint64_t first, uint32_t* words) {
  const uint64_t call = first / 4;
  const uint32_t rest = static_cast<uint32_t>(first % 4);
  const PhiloxWords a = random_words(random, call), b = random_words(random, call + 1);
  PANNS_UNROLL
  for (int i = 0; i < 4; ++i) {
    words[i] = a.word[i];
    words[i + 4] = b.word[i];
  }
  if (rest == 0) return;
  // Channels that four does not divide begin within a call. The words move down by selects, which
  // stay in registers where an index would not.
  const PhiloxWords c = random_words(random, call + 2);
  uint32_t all[12];
  PANNS_UNROLL
  for (int i = 0; i < 12; ++i) all[i] = i < 8 ? words[i] : c.word[i - 8];
  PANNS_UNROLL
  for (int i = 0; i < 8; ++i) {
    words[i] = rest == 1 ? all[i + 1] : rest == 2 ? all[i + 2] : all[i + 3];
  }
}

// The word of one element, by selects likewise.
PANNS_DEVICE uint32_t one_word(const RandomStream& random, uint64_t element) {
  const PhiloxWords w = random_words(random, element / 4);
  const uint32_t low = element % 2 == 0 ? w.word[0] : w.word[1];
  const uint32_t high = element % 2 == 0 ? w.word[2] : w.word[3];
  return element % 4 < 2 ? low : high;
}

// x times the factor where the element is kept, 0 where it is dropped, were it NaN.
template <int W>
PANNS_DEVICE Pack<W> dropped(const Pack<W>& x, const Drop& drop, const RandomStream& random,
                             uint64_t first, float factor) {
  Pack<W> y;
  if constexpr (W == 1) {
    y.v[0] = one_word(random, first) < drop.threshold ? 0.0f : x.v[0] * factor;
  } else {
    static_assert(W == 8);
    uint32_t words[8];
    random8(random, first, words);
    PANNS_UNROLL
    for (int i = 0; i < 8; ++i) y.v[i] = words[i] < drop.threshold ? 0.0f : x.v[i] * factor;
  }
  return y;
}

}  // namespace panns::cuda
