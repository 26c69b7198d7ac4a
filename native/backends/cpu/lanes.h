// What the elementwise *.simd.cpp files share beyond vec.h: partial vectors, and loops over flat
// arrays whose tail runs the same vector code as the rest.
#pragma once

#include "backends/cpu/vec.h"

namespace panns::cpu::PANNS_TIER {

// The first `count` floats at p (count < kLanes); the other lanes hold `fill`.
PANNS_INLINE V load_part(const float* p, int64_t count, float fill = 0.0f) {
  V v = set1(fill);
  memcpy(&v, p, static_cast<size_t>(count) * sizeof(float));
  return v;
}
PANNS_INLINE void store_part(float* p, V v, int64_t count) {
  memcpy(p, &v, static_cast<size_t>(count) * sizeof(float));
}

// y[i] = f(x[i])
template <typename F>
PANNS_INLINE void map1(const float* x, float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));
  if (i < n) store_part(y + i, f(load_part(x + i, n - i)), n - i);
}

// y[i] = f(a[i], b[i])
template <typename F>
PANNS_INLINE void map2(const float* a, const float* b, float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(a + i), load(b + i)));
  if (i < n) {
    store_part(y + i, f(load_part(a + i, n - i), load_part(b + i, n - i)), n - i);
  }
}

// v where the mask's lanes are set, 0 elsewhere.
PANNS_INLINE V where(I mask, V v) { return (V)(mask & (I)v); }

PANNS_INLINE float sum_lanes(V v) {
  float sum = v[0];
  for (int i = 1; i < kLanes; ++i) sum += v[i];
  return sum;
}

PANNS_INLINE V vsqrt(V v) {
#if PANNS_LANES == 16
  return (V)_mm512_sqrt_ps((__m512)v);
#elif PANNS_LANES == 8
  return (V)_mm256_sqrt_ps((__m256)v);
#else
  V r;
  for (int i = 0; i < kLanes; ++i) r[i] = __builtin_sqrtf(v[i]);
  return r;
#endif
}

}  // namespace panns::cpu::PANNS_TIER
