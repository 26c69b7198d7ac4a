// Philox4x32-10 against the published vectors, its vector form, and dropout.
#include "core/philox.h"

#include "backends/cpu/dropout.h"
#include "kernels.h"

using namespace panns;
using namespace panns::cpu;
using namespace test;

namespace {

void known_answers() {
  struct Row {
    uint32_t counter[4], key[2], want[4];
  };
  // Random123's kat_vectors, philox4x32 with 10 rounds.
  const Row rows[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Row& r : rows) {
    const auto got =
        philox(r.counter[0], r.counter[1], r.counter[2], r.counter[3], r.key[0], r.key[1]);
    tap::ok(std::equal(r.want, r.want + 4, got.word), "philox4x32-10 gives a published vector");
    // The same through the stream: counter = (call low, call high, node, step).
    const RandomStream s{r.key[0] | static_cast<uint64_t>(r.key[1]) << 32, r.counter[3],
                         r.counter[2]};
    const uint64_t call = r.counter[0] | static_cast<uint64_t>(r.counter[1]) << 32;
    const auto again = random_words(s, call);
    tap::ok(std::equal(r.want, r.want + 4, again.word), "a stream places seed, step and node");
  }
}

void vector_words() {
  for (Tier t : tiers()) {
    bool same = true;
    for (int i = 0; i < 2000; ++i) {
      const RandomStream s{rng(), static_cast<uint32_t>(rng()), static_cast<uint32_t>(rng())};
      // Some calls carry into the high word of the counter.
      const uint64_t call = i % 4 == 0 ? (rng() << 32) - (rng() % 4) : rng() >> (i % 40);
      uint32_t got[16];
      dropout_kernels(t).words(s, call, got);
      for (uint64_t j = 0; j < 16; ++j) {
        if (got[j] != random_words(s, call + j / 4).word[j % 4]) same = false;
      }
    }
    tap::ok(same, cat("16 words at once equal the scalar ones, ", tier_name(t)));
  }
}

void thresholds() {
  tap::ok(drop_threshold(0.5) == 0x80000000u && drop_threshold(0) == 0 &&
              drop_threshold(1) == 0xFFFFFFFFu &&
              drop_threshold(0.2) == static_cast<uint32_t>(std::llround(0.2 * 4294967296.0)),
          "drop_threshold is round(p 2^32), saturated");
  bool inside = true;
  std::vector<int> hits(7, 0);
  for (int i = 0; i < 7000; ++i) {
    const uint32_t k = random_below(static_cast<uint32_t>(rng()), 7);
    inside = inside && k < 7;
    if (k < 7) ++hits[k];
  }
  inside = inside && random_below(0xFFFFFFFFu, 7) == 6 && random_below(0, 7) == 0;
  // 1000 a bin, standard deviation 29: seven of them.
  for (int h : hits) inside = inside && std::abs(h - 1000) < 200;
  tap::ok(inside, "random_below is uniform in [0, n)");
}

void dropouts() {
  const Map maps[] = {{2, 64, 31, 7}, {2, 4, 125, 4}, {1, 24, 31, 2}, {1, 2048, 5, 2},
                      {2, 7, 31, 3},  {2, 1, 31, 7},  {2, 20, 33, 1}};
  for (const Map& map : maps) {
    const Dropout drop{0.2f + 0.5f * static_cast<float>(rng() % 2),
                       {rng(), static_cast<uint32_t>(rng()), static_cast<uint32_t>(rng())}};
    const Floats dense = normal(dense_size(map)), x = pack(map, dense);
    Doubles want(dense.size());
    int64_t kept = 0;
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const int64_t i = dense_at(map, n, c, t, f);
      const bool keep = random_word(drop.random, nhwc(map, n, c, t, f)) >= drop_threshold(drop.p);
      kept += keep;
      want[i] = keep ? dense[i] / (1.0 - drop.p) : 0.0;
    });
    const double rate = static_cast<double>(kept) / static_cast<double>(want.size());
    const double deviation = std::sqrt(drop.p * (1 - drop.p) / static_cast<double>(want.size()));
    tap::ok(std::fabs(rate - (1 - drop.p)) < 6 * deviation, cat("keeps 1 - p, ", text(map)));
    on_all(
        cat("dropout ", text(map)), 2e-7,
        [&](ThreadPool& pool, Tier t) {
          Floats y = poison(map.size());
          dropout(pool, drop, map, x.data(), y.data(), t);
          return std::vector<Floats>{y};
        },
        [&](const std::vector<Floats>& out) {
          return padding_is_zero(map, out[0]) ? error(unpack(map, out[0]), want) : INFINITY;
        });
  }
  for (int64_t count : {1, 31, 527 * 3, 50001}) {
    const Dropout drop{0.5f, {rng(), 3, 9}};
    const Floats x = normal(count);
    Doubles want(x.size());
    for (int64_t i = 0; i < count; ++i) {
      const bool keep = random_word(drop.random, static_cast<uint64_t>(i)) >= 0x80000000u;
      want[i] = keep ? 2.0 * x[i] : 0.0;
    }
    on_all(
        cat("dropout of ", count, " dense floats"), 0,
        [&](ThreadPool& pool, Tier t) {
          Floats y = poison(count);
          dropout(pool, drop, count, x.data(), y.data(), t);
          return std::vector<Floats>{y};
        },
        [&](const std::vector<Floats>& out) { return error(out[0], want); });
  }
}

}  // namespace

int main() {
  known_answers();
  vector_words();
  thresholds();
  dropouts();
  return tap::done();
}
