// The stripes that spec_augment blanks in a clip (spec_augment.h says how they are drawn).
#pragma once

#include "backends/cuda/device/random.cuh"
#include "backends/cuda/spec_augment.h"

namespace panns::cuda {

struct Stripe {
  uint32_t begin = 0, width = 0;
  PANNS_DEVICE bool covers(uint32_t i) const { return i - begin < width; }
};

PANNS_DEVICE Stripe stripe(uint32_t width_word, uint32_t start_word, uint32_t limit,
                           uint32_t total) {
  const uint32_t width = smaller(random_below(width_word, limit), total - 1);
  return {random_below(start_word, total - width), width};
}

// Two of time and two of frequency.
struct Stripes {
  Stripe time[2], freq[2];

  Stripes() = default;
  PANNS_DEVICE Stripes(const SpecAugment& augment, const backends::StepState* state, uint32_t clip,
                       uint32_t frames, uint32_t bins) {
    const RandomStream random = stream_of(state, augment.mask);
    const PhiloxWords t = random_words(random, 2 * uint64_t{clip});
    const PhiloxWords f = random_words(random, 2 * uint64_t{clip} + 1);
    const auto time_width = static_cast<uint32_t>(augment.time_width);
    const auto freq_width = static_cast<uint32_t>(augment.freq_width);
    time[0] = stripe(t.word[0], t.word[1], time_width, frames);
    time[1] = stripe(t.word[2], t.word[3], time_width, frames);
    freq[0] = stripe(f.word[0], f.word[1], freq_width, bins);
    freq[1] = stripe(f.word[2], f.word[3], freq_width, bins);
  }
  PANNS_DEVICE bool cover_frame(uint32_t t) const { return time[0].covers(t) || time[1].covers(t); }
  PANNS_DEVICE bool cover_bin(uint32_t f) const { return freq[0].covers(f) || freq[1].covers(f); }
};

}  // namespace panns::cuda
