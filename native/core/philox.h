// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror, Shaw: "Parallel random
// numbers: as easy as 1, 2, 3" (SC 2011). A draw is a pure function of (seed, step, node, element),
// so a backward pass recomputes the masks of its forward, and every backend draws the same bits.
//
//   counter = (element / 4 low, element / 4 high, node, step),  key = (seed low, seed high)
//
// Element e takes word e % 4. The element of a feature map is its NHWC index
// ((n * T + t) * F + f) * C + c, whatever the memory layout, so four neighbouring channels share
// one call; the element of a dense array is its flat index.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PANNS_PHILOX __host__ __device__ __forceinline__
#else
// Inlined always: *.simd.cpp files include this, and no out-of-line copy may be shared by tiers.
#define PANNS_PHILOX inline __attribute__((always_inline))
#endif

namespace panns {

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

// Which stream of random numbers: all of a draw but the element.
struct RandomStream {
  uint64_t seed = 0;
  uint32_t step = 0;
  uint32_t node = 0;
};

struct PhiloxWords {
  uint32_t word[4];
};

PANNS_PHILOX PhiloxWords philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0,
                                uint32_t k1) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kPhiloxMultiplier0) * c0;
    const uint64_t p1 = static_cast<uint64_t>(kPhiloxMultiplier1) * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  return {{c0, c1, c2, c3}};
}

// The words of elements 4 * call ... 4 * call + 3.
PANNS_PHILOX PhiloxWords random_words(const RandomStream& s, uint64_t call) {
  return philox(static_cast<uint32_t>(call), static_cast<uint32_t>(call >> 32), s.node, s.step,
                static_cast<uint32_t>(s.seed), static_cast<uint32_t>(s.seed >> 32));
}

PANNS_PHILOX uint32_t random_word(const RandomStream& s, uint64_t element) {
  return random_words(s, element / 4).word[element % 4];
}

// An integer in [0, n): the word scaled down. The bias is below n / 2^32.
PANNS_PHILOX uint32_t random_below(uint32_t word, uint32_t n) {
  return static_cast<uint32_t>((static_cast<uint64_t>(word) * n) >> 32);
}

// A word drops its element with probability p when it is below this: round(p * 2^32), at most
// 2^32 - 1.
PANNS_PHILOX uint32_t drop_threshold(double p) {
  const double scaled = p * 4294967296.0 + 0.5;
  return scaled >= 4294967295.0 ? 0xFFFFFFFFu : scaled <= 0 ? 0u : static_cast<uint32_t>(scaled);
}

}  // namespace panns
