// Instruction-set tiers. A file named *.simd.cpp is compiled once per tier, each time with that
// tier's compiler flags, PANNS_TIER set to its name and PANNS_LANES to its float lanes, and puts
// all it defines into namespace panns::cpu::PANNS_TIER. The tier is chosen once, at run time.
//
// A *.simd.cpp file includes no header with inline functions of the standard library: the linker
// keeps one copy of each, and it might keep the one built for an instruction set this machine
// lacks. Plain C headers, vec.h and structs are fine.
#pragma once

namespace panns::cpu {

enum class Tier { scalar, avx2, avx512 };  // amx comes after avx512

// The best tier this machine runs; PANNS_CPU=scalar|avx2|avx512 lowers it.
Tier tier();
const char* tier_name(Tier tier);

// Declares a kernel table `name` of type `Table` in each tier's namespace, and name() to pick one.
#if defined(__x86_64__)
#define PANNS_TIERED(Table, name)                                                          \
  namespace scalar {                                                                       \
  extern const Table name;                                                                 \
  }                                                                                        \
  namespace avx2 {                                                                         \
  extern const Table name;                                                                 \
  }                                                                                        \
  namespace avx512 {                                                                       \
  extern const Table name;                                                                 \
  }                                                                                        \
  inline const Table& name(Tier t) {                                                       \
    return t == Tier::avx512 ? avx512::name : t == Tier::avx2 ? avx2::name : scalar::name; \
  }                                                                                        \
  inline const Table& name() { return name(tier()); }
#else
#define PANNS_TIERED(Table, name)                         \
  namespace scalar {                                      \
  extern const Table name;                                \
  }                                                       \
  inline const Table& name(Tier) { return scalar::name; } \
  inline const Table& name() { return scalar::name; }
#endif

}  // namespace panns::cpu
