#include "audio/resample_kernel.h"

#include "backends/cpu/vec.h"

namespace panns::cpu::PANNS_TIER {
namespace {

// The sum over the lanes of each of eight vectors.
PANNS_INLINE void store_sums(const V* acc, float* out) {
#if PANNS_LANES == 4
  for (int j = 0; j < kResampleDots; ++j) {
    out[j] = (acc[j][0] + acc[j][1]) + (acc[j][2] + acc[j][3]);
  }
#else
  __m256 a[kResampleDots];
  for (int j = 0; j < kResampleDots; ++j) {
#if PANNS_LANES == 16
    a[j] = _mm256_add_ps(_mm512_castps512_ps256((__m512)acc[j]),
                         _mm512_extractf32x8_ps((__m512)acc[j], 1));
#else
    a[j] = (__m256)acc[j];
#endif
  }
  const __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
  const __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(a[4], a[5]), _mm256_hadd_ps(a[6], a[7]));
  _mm256_storeu_ps(out, _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                                      _mm256_permute2f128_ps(low, high, 0x31)));
#endif
}

void pair(const float* first, const float* second, const float* x, int64_t stride, int64_t taps,
          float* out) {
  V acc[kResampleDots];
  for (int j = 0; j < kResampleDots; ++j) acc[j] = zero();
  int64_t k = 0;
  do {
    const V a = load(first + k), b = load(second + k);
    for (int j = 0; j < kResampleWindows; ++j) {
      const V v = load(x + j * stride + k);
      acc[j] += a * v;
      acc[kResampleWindows + j] += b * v;
    }
    k += kLanes;
  } while (k < taps);
  store_sums(acc, out);
}

void separate(const float* const* rows, const float* const* x, int64_t taps, float* out) {
  V acc[kResampleDots];
  for (int j = 0; j < kResampleDots; ++j) acc[j] = zero();
  int64_t k = 0;
  do {
    for (int j = 0; j < kResampleDots; ++j) acc[j] += load(rows[j] + k) * load(x[j] + k);
    k += kLanes;
  } while (k < taps);
  store_sums(acc, out);
}

}  // namespace

extern const ResampleKernel resample_kernel = {pair, separate};

}  // namespace panns::cpu::PANNS_TIER
