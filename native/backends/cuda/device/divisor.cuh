// Division by a number that is fixed for a whole launch: a multiplication and a shift, where the
// device would take some twenty instructions. (Granlund, Montgomery: "Division by invariant
// integers using multiplication", PLDI 1994.)
#pragma once

#include "backends/cuda/device/runtime.cuh"
#include "core/error.h"

namespace panns::cuda {

// Divides numbers below 2^31 by 1 ... 2^31 - 1.
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(int64_t divisor) : divisor_(static_cast<uint32_t>(divisor)) {
    while ((uint64_t{1} << shift_) < divisor_) ++shift_;
    const uint64_t excess = (uint64_t{1} << shift_) - divisor_;
    multiplier_ = static_cast<uint32_t>((excess << 32) / divisor_ + 1);
  }
  PANNS_DEVICE uint32_t quotient(uint32_t x) const {
    return (__umulhi(x, multiplier_) + x) >> shift_;
  }
  PANNS_DEVICE uint32_t divisor() const { return divisor_; }

 private:
  uint32_t divisor_ = 1, multiplier_ = 1, shift_ = 0;
};

// Kernels count rows and vectors in 32 bits, and the Divisor needs the highest one free.
inline void expect_indexable(int64_t count, const char* name) {
  PANNS_CHECK(count < int64_t{1} << 31, "ERR_PANNS_UNSUPPORTED", name,
              "expected a map of fewer than 2^31 places, got ", count,
              "; use a smaller batch or shorter clips");
}

struct Division {
  uint32_t quotient, rest;
};
PANNS_DEVICE Division divide(uint32_t x, const Divisor& d) {
  const uint32_t q = d.quotient(x);
  return {q, x - q * d.divisor()};
}

}  // namespace panns::cuda
