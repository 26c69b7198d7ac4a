// The vector type of a *.simd.cpp file: PANNS_LANES floats (4, 8 or 16), as the compiler's own
// vector extension, so that one source serves every tier; a * b + c becomes one fused instruction
// where the tier has it (-ffp-contract=fast).
#pragma once

#include <stdint.h>
#include <string.h>

#if PANNS_LANES > 4
#include <immintrin.h>
#endif

#ifndef PANNS_TIER
#error "vec.h belongs in *.simd.cpp files only"
#endif

namespace panns::cpu::PANNS_TIER {

constexpr int kLanes = PANNS_LANES;
constexpr int kBlock = 16;              // channels of one layout block, on every tier
constexpr int kVecs = kBlock / kLanes;  // vectors that hold one block

typedef float V __attribute__((vector_size(PANNS_LANES * 4)));
typedef float VU __attribute__((vector_size(PANNS_LANES * 4), aligned(4), may_alias));
typedef int32_t I __attribute__((vector_size(PANNS_LANES * 4)));
typedef uint32_t U __attribute__((vector_size(PANNS_LANES * 4)));

#define PANNS_INLINE static inline __attribute__((always_inline))

PANNS_INLINE V load(const float* p) { return *reinterpret_cast<const VU*>(p); }
PANNS_INLINE void store(float* p, V v) { *reinterpret_cast<VU*>(p) = v; }
PANNS_INLINE V set1(float x) { return x - (V){}; }
PANNS_INLINE V zero() { return (V){}; }

// Both return b when either is NaN, so vmax(zero(), x) is a ReLU that lets NaN through.
#if PANNS_LANES == 16
PANNS_INLINE V vmax(V a, V b) { return (V)_mm512_max_ps((__m512)a, (__m512)b); }
PANNS_INLINE V vmin(V a, V b) { return (V)_mm512_min_ps((__m512)a, (__m512)b); }
#elif PANNS_LANES == 8
PANNS_INLINE V vmax(V a, V b) { return (V)_mm256_max_ps((__m256)a, (__m256)b); }
PANNS_INLINE V vmin(V a, V b) { return (V)_mm256_min_ps((__m256)a, (__m256)b); }
#else
PANNS_INLINE V vmax(V a, V b) { return a > b ? a : b; }
PANNS_INLINE V vmin(V a, V b) { return a < b ? a : b; }
#endif

}  // namespace panns::cpu::PANNS_TIER
