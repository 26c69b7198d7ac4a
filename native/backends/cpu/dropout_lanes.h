// Philox for a whole channel block: the 16 words of four consecutive calls, in element order.
#pragma once

#include "backends/cpu/vec.h"
#include "core/philox.h"

namespace panns::cpu::PANNS_TIER {

struct BlockWords {
  U v[kVecs];
};

#if PANNS_LANES >= 8
// One call per 64-bit lane, its four counter words in four registers, only their low halves
// meaningful: the multiplier reads low halves only and a shift by 32 leaves a clean high word, so
// the garbage above never has to be masked away.
PANNS_INLINE BlockWords random_block(const RandomStream& s, uint64_t call) {
  const __m256i m0 = _mm256_set1_epi64x(kPhiloxMultiplier0);
  const __m256i m1 = _mm256_set1_epi64x(kPhiloxMultiplier1);
  __m256i c0 = _mm256_add_epi64(_mm256_set1_epi64x((int64_t)call), _mm256_setr_epi64x(0, 1, 2, 3));
  __m256i c1 = _mm256_srli_epi64(c0, 32);
  __m256i c2 = _mm256_set1_epi64x(s.node);
  __m256i c3 = _mm256_set1_epi64x(s.step);
  uint32_t k0 = (uint32_t)s.seed, k1 = (uint32_t)(s.seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const __m256i p0 = _mm256_mul_epu32(m0, c0), p1 = _mm256_mul_epu32(m1, c2);
    c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c1), _mm256_set1_epi64x(k0));
    c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c3), _mm256_set1_epi64x(k1));
    c1 = p1;
    c3 = p0;
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  // (word 0, word 1) and (word 2, word 3) of each call side by side, then calls 0 1 | 2 3.
  const __m256i w01 = _mm256_blend_epi32(c0, _mm256_slli_epi64(c1, 32), 0xAA);
  const __m256i w23 = _mm256_blend_epi32(c2, _mm256_slli_epi64(c3, 32), 0xAA);
  const __m256i even = _mm256_unpacklo_epi64(w01, w23), odd = _mm256_unpackhi_epi64(w01, w23);
  const __m256i first = _mm256_permute2x128_si256(even, odd, 0x20);
  const __m256i second = _mm256_permute2x128_si256(even, odd, 0x31);
#if PANNS_LANES == 16
  typedef uint32_t Half __attribute__((vector_size(32)));
  return {{__builtin_shufflevector((Half)first, (Half)second, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
                                   12, 13, 14, 15)}};
#else
  return {{(U)first, (U)second}};
#endif
}
#else
PANNS_INLINE BlockWords random_block(const RandomStream& s, uint64_t call) {
  BlockWords words;
  for (int j = 0; j < kVecs; ++j) {
    const PhiloxWords w = random_words(s, call + (uint64_t)j);
    memcpy(&words.v[j], w.word, sizeof w.word);
  }
  return words;
}
#endif

// x where the word reaches the threshold, 0 elsewhere.
PANNS_INLINE V keep(V x, U words, uint32_t threshold) {
  return (V)((I)x & (I)(words >= (threshold - (U){})));
}

}  // namespace panns::cpu::PANNS_TIER
