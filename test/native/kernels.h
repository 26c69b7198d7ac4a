// What the kernel tests share: fresh random inputs, poisoned outputs, conversion between a dense
// (N, C, T, F) array and the CPU layout, and the loop over tiers and thread counts.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "backends/cpu/layout.h"
#include "backends/cpu/tier.h"
#include "core/error.h"
#include "core/threads.h"
#include "seed.h"
#include "tap.h"

namespace test {

using panns::cat;
using panns::ThreadPool;
using panns::cpu::Map;
using panns::cpu::Tier;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

inline std::mt19937_64 rng(seed());

inline Floats normal(int64_t count, double mean = 0, double deviation = 1) {
  std::normal_distribution<double> draw(mean, deviation);
  Floats v(static_cast<size_t>(count));
  for (float& x : v) x = static_cast<float>(draw(rng));
  return v;
}
inline Floats uniform(int64_t count, double low, double high) {
  std::uniform_real_distribution<double> draw(low, high);
  Floats v(static_cast<size_t>(count));
  for (float& x : v) x = static_cast<float>(draw(rng));
  return v;
}
// NaN: what a kernel leaves unwritten shows.
inline Floats poison(int64_t count) {
  return Floats(static_cast<size_t>(count), std::numeric_limits<float>::quiet_NaN());
}
inline std::vector<std::byte> scratch(int64_t bytes) {
  return std::vector<std::byte>(static_cast<size_t>(bytes), std::byte{0xFF});
}

inline int64_t dense_size(const Map& m) { return m.n * m.c * m.t * m.f; }
inline int64_t dense_at(const Map& m, int64_t n, int64_t c, int64_t t, int64_t f) {
  return ((n * m.c + c) * m.t + t) * m.f + f;
}
template <typename Body>
void each(const Map& m, Body&& body) {  // body(n, c, t, f)
  for (int64_t n = 0; n < m.n; ++n)
    for (int64_t c = 0; c < m.c; ++c)
      for (int64_t t = 0; t < m.t; ++t)
        for (int64_t f = 0; f < m.f; ++f) body(n, c, t, f);
}
inline Floats pack(const Map& m, const Floats& dense) {
  Floats out(static_cast<size_t>(m.size()), 0.0f);
  each(m, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    out[m.at(n, c, t, f)] = dense[dense_at(m, n, c, t, f)];
  });
  return out;
}
inline Floats unpack(const Map& m, const Floats& packed) {
  Floats out(static_cast<size_t>(dense_size(m)));
  each(m, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    out[dense_at(m, n, c, t, f)] = packed[m.at(n, c, t, f)];
  });
  return out;
}
inline bool padding_is_zero(const Map& m, const Floats& packed) {
  Map all = m;
  all.c = m.blocks() * m.block();
  bool zero = true;
  each(all, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    if (c >= m.c && packed[m.at(n, c, t, f)] != 0.0f) zero = false;
  });
  return zero;
}

// The largest difference, relative to the largest wanted value; infinite where a NaN is left.
// Where few values are wanted, all of them may be sums that cancel by chance: `scale` is then the
// size of their terms.
template <typename Wanted>
double error(const Floats& got, const Wanted& want, double scale = 1e-30) {
  if (got.size() != want.size()) return INFINITY;
  double worst = 0, largest = scale;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(got[i]) - want[i]);
    if (!(difference <= worst)) worst = std::isnan(difference) ? INFINITY : difference;
    largest = std::max(largest, std::fabs(static_cast<double>(want[i])));
  }
  return worst / largest;
}

inline bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Every tier this machine runs.
inline std::vector<Tier> tiers() {
  std::vector<Tier> all;
  for (Tier t : {Tier::scalar, Tier::avx2, Tier::avx512}) {
    if (t <= panns::cpu::tier()) all.push_back(t);
  }
  return all;
}

// Runs outputs = run(pool, tier), a std::vector<Floats>, on every tier with 1, 2 and 3 threads;
// the outputs must have equal bits whatever the threads, and check(outputs) the error bound.
template <typename Run, typename Check>
void on_all(const std::string& name, double tolerance, Run&& run, Check&& check) {
  static ThreadPool one(1), two(2), three(3);
  for (Tier t : tiers()) {
    const std::vector<Floats> outputs = run(one, t);
    bool same = true;
    for (ThreadPool* pool : {&two, &three}) {
      const std::vector<Floats> again = run(*pool, t);
      for (size_t i = 0; i < outputs.size(); ++i) same = same && same_bits(outputs[i], again[i]);
    }
    const double worst = check(outputs);
    tap::ok(same && worst <= tolerance,
            cat(name, ", ", panns::cpu::tier_name(t), ": error ", worst, " (at most ", tolerance,
                ")", same ? "" : ", DIFFERS between thread counts"));
  }
}

inline std::string text(const Map& m) { return cat("(", m.n, ",", m.c, ",", m.t, ",", m.f, ")"); }

// The NHWC index by which random words are drawn.
inline uint64_t nhwc(const Map& m, int64_t n, int64_t c, int64_t t, int64_t f) {
  return static_cast<uint64_t>(((n * m.t + t) * m.f + f) * m.c + c);
}

template <typename Body>
bool throws(const char* code, Body&& body) {
  try {
    body();
  } catch (const panns::Error& e) {
    return e.code() == code;
  }
  return false;
}

}  // namespace test
