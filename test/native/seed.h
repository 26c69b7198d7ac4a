// The seed of a test program's random numbers.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace test {

// That of PANNS_TEST_SEED, or else a fresh one; printed, so that a failure can be repeated.
inline uint64_t seed() {
  const char* given = std::getenv("PANNS_TEST_SEED");
  const uint64_t value =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::printf("# seed %llu (repeat with PANNS_TEST_SEED=%llu)\n",
              static_cast<unsigned long long>(value), static_cast<unsigned long long>(value));
  return value;
}

}  // namespace test
