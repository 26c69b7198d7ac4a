// exp(x) for a vector, within 2 ulp over the whole float range, gradual underflow included.
#pragma once

#include "backends/cpu/lanes.h"

namespace panns::cpu::PANNS_TIER {

PANNS_INLINE V vexp(V x) {
  // Past these bounds the result is 0 or infinity. NaN passes: vmin and vmax return their second
  // argument then.
  x = vmin(set1(89.0f), vmax(set1(-104.0f), x));
  // x = k ln 2 + r with k an integer: adding 1.5 * 2^23 leaves the rounded k in the low bits.
  const V kRound = set1(12582912.0f);
  const V shifted = x * 1.44269504f + kRound;
  const I k = (I)shifted - (I)kRound;
  const V kf = shifted - kRound;
  // ln 2 in two parts; the first has 9 bits, so that its product with k is exact.
  const V r = (x - kf * 0.693359375f) - kf * -2.12194440e-4f;
  // The Taylor series: |r| <= 0.347, so the first term left out, r^8 / 8!, is below 6e-9.
  V p = set1(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // 2^k in two factors, because 2^k itself may not be a normal number.
  const I half = k >> 1;
  const V scale0 = (V)((half + 127) << 23), scale1 = (V)((k - half + 127) << 23);
  return p * scale0 * scale1;
}

}  // namespace panns::cpu::PANNS_TIER
