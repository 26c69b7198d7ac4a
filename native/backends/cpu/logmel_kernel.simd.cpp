#include "backends/cpu/logmel_kernel.h"

#include <float.h>

#include "backends/cpu/vec.h"

namespace panns::cpu::PANNS_TIER {
namespace {

struct Complex {
  V r, i;
};

PANNS_INLINE Complex operator+(Complex a, Complex b) { return {a.r + b.r, a.i + b.i}; }
PANNS_INLINE Complex operator-(Complex a, Complex b) { return {a.r - b.r, a.i - b.i}; }
PANNS_INLINE Complex minus_i(Complex a) { return {a.i, -a.r}; }  // a times -i
PANNS_INLINE Complex turned(Complex a, const float* w) {         // a times conj(w)
  return {a.r * w[0] + a.i * w[1], a.i * w[0] - a.r * w[1]};
}

// ---- butterflies

struct Radix2 {
  static constexpr int kRadix = 2;
  PANNS_INLINE void dft(Complex* x) {
    const Complex a = x[0], b = x[1];
    x[0] = a + b;
    x[1] = a - b;
  }
};

struct Radix4 {
  static constexpr int kRadix = 4;
  PANNS_INLINE void dft(Complex* x) {
    const Complex even = x[0] + x[2], odd = x[1] + x[3];
    const Complex even_diff = x[0] - x[2], odd_diff = minus_i(x[1] - x[3]);
    x[0] = even + odd;
    x[1] = even_diff + odd_diff;
    x[2] = even - odd;
    x[3] = even_diff - odd_diff;
  }
};

// Two DFTs of four points, over the sums and over the turned differences.
struct Radix8 {
  static constexpr int kRadix = 8;
  PANNS_INLINE void dft(Complex* x) {
    constexpr float kHalfSqrt2 = 0.70710678118654752f;
    Complex sum[4] = {x[0] + x[4], x[1] + x[5], x[2] + x[6], x[3] + x[7]};
    const Complex d1 = x[1] - x[5], d3 = x[3] - x[7];
    Complex diff[4] = {x[0] - x[4],
                       {(d1.r + d1.i) * kHalfSqrt2, (d1.i - d1.r) * kHalfSqrt2},
                       minus_i(x[2] - x[6]),
                       {(d3.i - d3.r) * kHalfSqrt2, -(d3.r + d3.i) * kHalfSqrt2}};
    Radix4::dft(sum);
    Radix4::dft(diff);
    for (int k = 0; k < 4; ++k) {
      x[2 * k] = sum[k];
      x[2 * k + 1] = diff[k];
    }
  }
};

template <typename Radix>
void pass_of(const FftPass& pass, Complex* data) {
  constexpr int kRadix = Radix::kRadix;
  for (int64_t b = 0; b < pass.blocks; ++b) {
    Complex* block = data + b * kRadix * pass.count;
    const float* w = pass.twiddles;
    for (int64_t p = 0; p < pass.count; ++p) {
      Complex x[kRadix];
      for (int k = 0; k < kRadix; ++k) x[k] = block[p + k * pass.stride];
      Radix::dft(x);
      block[p] = x[0];
      if (w) {
        for (int k = 1; k < kRadix; ++k) block[p + k * pass.stride] = turned(x[k], w + 2 * (k - 1));
        w += 2 * (kRadix - 1);
      } else {
        for (int k = 1; k < kRadix; ++k) block[p + k * pass.stride] = x[k];
      }
    }
  }
}

// Any odd radix r, in r * r / 2 multiplications: points j and r - j meet as sum and difference.
void odd_pass(const FftPass& pass, Complex* data, Complex* pairs) {
  const int64_t radix = pass.radix, half = radix / 2;
  Complex *sums = pairs, *diffs = pairs + half;
  for (int64_t b = 0; b < pass.blocks; ++b) {
    for (int64_t p = 0; p < pass.count; ++p) {
      Complex* x = data + b * radix * pass.count + p;
      const float* w = pass.twiddles ? pass.twiddles + p * 2 * (radix - 1) : 0;
      const Complex first = x[0];
      Complex total = first;
      for (int64_t j = 1; j <= half; ++j) {
        sums[j - 1] = x[j * pass.stride] + x[(radix - j) * pass.stride];
        diffs[j - 1] = x[j * pass.stride] - x[(radix - j) * pass.stride];
        total = total + sums[j - 1];
      }
      x[0] = total;
      for (int64_t k = 1; k <= half; ++k) {
        Complex even = first, odd = {zero(), zero()};
        for (int64_t j = 1, turn = k; j <= half; ++j) {
          const float c = pass.roots[2 * turn], s = pass.roots[2 * turn + 1];
          even = {even.r + sums[j - 1].r * c, even.i + sums[j - 1].i * c};
          odd = {odd.r + diffs[j - 1].r * s, odd.i + diffs[j - 1].i * s};
          turn += k;
          if (turn >= radix) turn -= radix;
        }
        const Complex low = even + minus_i(odd), high = even - minus_i(odd);
        x[k * pass.stride] = w ? turned(low, w + 2 * (k - 1)) : low;
        x[(radix - k) * pass.stride] = w ? turned(high, w + 2 * (radix - k - 1)) : high;
      }
    }
  }
}

// ---- windowing

// Four samples of every frame, transposed: column c holds sample c of each lane's frame.
PANNS_INLINE void load_columns(const float* const* frames, int64_t at, V* column) {
#if PANNS_LANES == 4
  for (int c = 0; c < 4; ++c) {
    column[c] = (V){frames[0][at + c], frames[1][at + c], frames[2][at + c], frames[3][at + c]};
  }
#else
  // Row r holds lane r of each group of four lanes; the 4 x 4 transposes stay within the groups.
#if PANNS_LANES == 8
  __m256 row[4];
  for (int r = 0; r < 4; ++r) {
    row[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(frames[r] + at)),
                                  _mm_loadu_ps(frames[r + 4] + at), 1);
  }
#define PANNS_UNPACK(half, a, b) _mm256_unpack##half(a, b)
#define PANNS_AS_PD(x) _mm256_castps_pd(x)
#else
  __m512 row[4];
  for (int r = 0; r < 4; ++r) {
    row[r] = _mm512_castps128_ps512(_mm_loadu_ps(frames[r] + at));
    row[r] = _mm512_insertf32x4(row[r], _mm_loadu_ps(frames[r + 4] + at), 1);
    row[r] = _mm512_insertf32x4(row[r], _mm_loadu_ps(frames[r + 8] + at), 2);
    row[r] = _mm512_insertf32x4(row[r], _mm_loadu_ps(frames[r + 12] + at), 3);
  }
#define PANNS_UNPACK(half, a, b) _mm512_unpack##half(a, b)
#define PANNS_AS_PD(x) _mm512_castps_pd(x)
#endif
  const auto low01 = PANNS_AS_PD(PANNS_UNPACK(lo_ps, row[0], row[1]));
  const auto low23 = PANNS_AS_PD(PANNS_UNPACK(lo_ps, row[2], row[3]));
  const auto high01 = PANNS_AS_PD(PANNS_UNPACK(hi_ps, row[0], row[1]));
  const auto high23 = PANNS_AS_PD(PANNS_UNPACK(hi_ps, row[2], row[3]));
  column[0] = (V)PANNS_UNPACK(lo_pd, low01, low23);
  column[1] = (V)PANNS_UNPACK(hi_pd, low01, low23);
  column[2] = (V)PANNS_UNPACK(lo_pd, high01, high23);
  column[3] = (V)PANNS_UNPACK(hi_pd, high01, high23);
#undef PANNS_UNPACK
#undef PANNS_AS_PD
#endif
}

// Samples 2k and 2k + 1 become the real and imaginary part of point k.
void window_frames(const LogmelTables& t, const float* const* frames, Complex* z) {
  for (int64_t q = 0; q < t.parts; ++q) {
    Complex* out = z + q * t.part_stride;
    const int64_t at = 2 * q * t.part, stop = at + 2 * t.part;
    int64_t i = at;
    for (; i + 4 <= stop; i += 4, out += 2) {
      const float* w = t.window + i;
      V column[4];
      load_columns(frames, i, column);
      out[0] = {column[0] * w[0], column[1] * w[1]};
      out[1] = {column[2] * w[2], column[3] * w[3]};
    }
    if (i < stop) {  // an odd number of points
      for (int l = 0; l < kLanes; ++l) {
        out->r[l] = frames[l][i] * t.window[i];
        out->i[l] = frames[l][i + 1] * t.window[i + 1];
      }
    }
  }
}

void run_pass(const FftPass& pass, Complex* data, Complex* pairs) {
  switch (pass.radix) {
    case 8:
      return pass_of<Radix8>(pass, data);
    case 4:
      return pass_of<Radix4>(pass, data);
    case 2:
      return pass_of<Radix2>(pass, data);
    default:
      return odd_pass(pass, data, pairs);
  }
}

// The DFT of the 2 * half real samples from that of the packed points z: with a = z[k] and
// b = conj(z[half - k]), X[k] = ((a + b) - i * turn * (a - b)) / 2, and X[half - k] is the
// conjugate of the same with a plus. The window holds the factor 1/2.
void power(const LogmelTables& t, const float* const* frames, float* scratch, float* out) {
  Complex* z = reinterpret_cast<Complex*>(scratch);
  Complex* pairs = z + t.parts * t.part_stride;
  window_frames(t, frames, z);
  run_pass(t.passes[0], z, pairs);
  for (int64_t q = 0; q < t.parts; ++q) {
    for (int64_t i = 1; i < t.pass_count; ++i) {
      run_pass(t.passes[i], z + q * t.part_stride, pairs);
    }
  }
  for (int64_t k = 0; k <= t.half / 2; ++k) {
    const Complex a = z[t.place[k]], c = z[t.place[t.half - k]];
    const V even_r = a.r + c.r, even_i = a.i - c.i;
    const V odd_r = a.i + c.i, odd_i = c.r - a.r;
    const float cosine = t.turn[2 * k], sine = t.turn[2 * k + 1];
    const V r = odd_r * cosine - odd_i * sine, i = odd_r * sine + odd_i * cosine;
    const V low_r = even_r + r, low_i = even_i + i;
    const V high_r = even_r - r, high_i = even_i - i;
    store(out + k * kLanes, low_r * low_r + low_i * low_i);
    store(out + (t.half - k) * kLanes, high_r * high_r + high_i * high_i);
  }
}

// ---- mel bands and their logarithm

// The logarithm of normal positive x, in the unit and with the shift of the tables; NaN stays NaN,
// and infinity infinite. x = 2^e * m with m in [sqrt(1/2), sqrt(2)), and log(m) = 2 * atanh(s),
// s = (m - 1) / (m + 1): with |s| < 0.1716 five terms of the series leave 2e-9 of it.
PANNS_INLINE V logarithm(const LogmelTables& t, V x) {
  constexpr int32_t kSqrtHalf = 0x3f3504f3;  // sqrt(1/2) as bits
  const I bits = (I)x;
  const I exponent = (bits - kSqrtHalf) >> 23;
  const V m = (V)(bits - (exponent << 23));
  const V s = (m - 1.0f) / (m + 1.0f);
  const V z = s * s;
  const V tail = z * (z * (z * (z * (1.0f / 9) + 1.0f / 7) + 1.0f / 5) + 1.0f / 3);
  const V log_m = (s + s * tail) * (2 * t.per_neper);
  const V y = __builtin_convertvector(exponent, V) * t.per_octave + log_m + t.shift;
  return x <= FLT_MAX ? y : x * t.per_neper;
}

void mel_log(const LogmelTables& t, const float* power, float* out) {
  const float* w = t.mel_weights;
  const V floor = set1(t.amin);
  for (int64_t m = 0; m < t.mels; ++m) {
    const float* p = power + t.mel_first[m] * kLanes;
    const int64_t count = t.mel_count[m];
    V sum = zero();
    for (int64_t k = 0; k < count; ++k) sum += load(p + k * kLanes) * w[k];
    w += count;
    store(out + m * kLanes, logarithm(t, vmax(floor, sum + t.added)));
  }
}

void widen(const int16_t* samples, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(samples[i]) / 32767.0f;
}

void emphasize(float* x, int64_t count, float factor) {
  for (int64_t i = 0; i < count; ++i) x[i] = x[i + 1] - factor * x[i];
}

}  // namespace

extern const LogmelKernel logmel_kernel = {kLanes, power, mel_log, widen, emphasize};

}  // namespace panns::cpu::PANNS_TIER
