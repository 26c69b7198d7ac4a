// The 16-bit floating-point types as codes, rounded to the nearest, ties to even. By arithmetic
// (encode, decode): an oracle of its own. By bits (to_bf16, to_fp16): fast enough for whole
// networks; test/native/narrow_floats.cpp holds them to the arithmetic.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace narrow_floats {

// A float in 16 bits with `mantissa` explicit bits.
inline uint16_t encode(float x, int mantissa, int bias) {
  const int sign = std::signbit(x) ? 0x8000 : 0;
  const long infinity = (2L * bias + 1) << mantissa;
  if (std::isnan(x)) return static_cast<uint16_t>(0x7FFF);
  if (x == 0) return static_cast<uint16_t>(sign);
  if (std::isinf(x)) return static_cast<uint16_t>(sign | infinity);
  const double a = std::fabs(static_cast<double>(x));
  const int exponent = std::max(std::ilogb(a), 1 - bias);
  const auto digits = static_cast<long>(std::nearbyint(std::ldexp(a, mantissa - exponent)));
  const long code = (static_cast<long>(exponent + bias - 1) << mantissa) + digits;
  return static_cast<uint16_t>(sign | std::min(code, infinity));
}

inline float decode(uint16_t code, int mantissa, int bias) {
  const int exponent = (code & 0x7FFF) >> mantissa, digits = code & ((1 << mantissa) - 1);
  const float sign = (code & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 2 * bias + 1) return digits != 0 ? NAN : sign * INFINITY;
  const int whole = exponent == 0 ? digits : digits + (1 << mantissa);
  return sign * static_cast<float>(std::ldexp(whole, std::max(exponent, 1) - bias - mantissa));
}

// All 65536 values.
inline std::vector<float> decoded(int mantissa, int bias) {
  std::vector<float> all(65536);
  for (size_t i = 0; i < all.size(); ++i) {
    all[i] = decode(static_cast<uint16_t>(i), mantissa, bias);
  }
  return all;
}

inline float from_bf16(uint16_t code) {
  const uint32_t bits = static_cast<uint32_t>(code) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline float from_fp16(uint16_t code) {
  static const std::vector<float> all = decoded(10, 15);
  return all[code];
}

inline uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FFF;
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline uint16_t to_fp16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000;
  bits &= 0x7FFFFFFF;
  if (bits > 0x7F800000) return 0x7FFF;
  if (bits >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00);  // from 65520 on
  if (bits < 0x38800000) {
    // Below 2^-14: beside a half, a float's last place is that of these codes.
    const float half = 0.5f;
    float a;
    std::memcpy(&a, &bits, sizeof a);
    a += half;
    uint32_t shifted, base;
    std::memcpy(&shifted, &a, sizeof shifted);
    std::memcpy(&base, &half, sizeof base);
    return static_cast<uint16_t>(sign | (shifted - base));
  }
  return static_cast<uint16_t>(sign | (((bits + 0xFFF + (bits >> 13 & 1)) >> 13) - (112u << 10)));
}

// A float with 10 bits of mantissa, as tensor cores take it (TF32).
inline float to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7F800000) == 0x7F800000) return x;
  bits = (bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFFu;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace narrow_floats
