#include "backends/cpu/spec_augment.h"

#include <algorithm>

#include "core/error.h"
#include "core/threads.h"

namespace panns::cpu {
namespace {

Stripe stripe(uint32_t width_word, uint32_t start_word, int64_t width_limit, int64_t total) {
  const int64_t width =
      std::min<int64_t>(random_below(width_word, static_cast<uint32_t>(width_limit)), total - 1);
  const int64_t start = random_below(start_word, static_cast<uint32_t>(total - width));
  return {start, start + width};
}

}  // namespace

Stripes spec_augment_stripes(const SpecAugment& augment, int64_t sample, int64_t t, int64_t f) {
  const PhiloxWords time = random_words(augment.random, static_cast<uint64_t>(2 * sample));
  const PhiloxWords freq = random_words(augment.random, static_cast<uint64_t>(2 * sample + 1));
  Stripes s;
  for (int i = 0; i < 2; ++i) {
    s.time[i] = stripe(time.word[2 * i], time.word[2 * i + 1], augment.time_width, t);
    s.freq[i] = stripe(freq.word[2 * i], freq.word[2 * i + 1], augment.freq_width, f);
  }
  return s;
}

void spec_augment(ThreadPool& pool, const SpecAugment& augment, const Map& map, const float* x,
                  float* y) {
  PANNS_CHECK(map.c == 1, "ERR_PANNS_SHAPE", "spec_augment",
              "expected a map with C = 1, got C = ", map.c,
              "; it belongs after bn0, before the first convolution");
  pool.run(map.n, [&](int64_t in, int) {
    const Stripes s = spec_augment_stripes(augment, in, map.t, map.f);
    for (int64_t jf = 0; jf < map.f; ++jf) {
      const int64_t at = map.at(in, 0, 0, jf);
      const bool covered = (jf >= s.freq[0].begin && jf < s.freq[0].end) ||
                           (jf >= s.freq[1].begin && jf < s.freq[1].end);
      if (covered) {
        std::fill_n(y + at, map.t, 0.0f);
        continue;
      }
      if (x != y) std::copy_n(x + at, map.t, y + at);
      for (const Stripe& stripe : s.time) {
        std::fill(y + at + stripe.begin, y + at + stripe.end, 0.0f);
      }
    }
  });
}

}  // namespace panns::cpu
