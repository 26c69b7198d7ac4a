#include "backends/cpu/tier.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace panns::cpu {
namespace {

Tier detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // The compiler's check includes the operating system's promise to save the registers.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return Tier::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Tier::avx2;
#endif
  return Tier::scalar;
}

Tier choose() {
  const Tier best = detect();
  const char* wanted = std::getenv("PANNS_CPU");
  if (wanted == nullptr) return best;
  for (Tier t : {Tier::scalar, Tier::avx2, Tier::avx512}) {
    if (std::strcmp(wanted, tier_name(t)) == 0 && t <= best) return t;
  }
  return best;
}

}  // namespace

Tier tier() {
  static const Tier chosen = choose();
  return chosen;
}

const char* tier_name(Tier t) {
  switch (t) {
    case Tier::avx512:
      return "avx512";
    case Tier::avx2:
      return "avx2";
    default:
      return "scalar";
  }
}

}  // namespace panns::cpu
