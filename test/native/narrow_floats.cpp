// The fast conversions of narrow_floats.h against those by arithmetic: all codes, the floats
// between neighbouring codes and beside those, and floats of random bits.
#include "narrow_floats.h"

#include <random>

#include "core/error.h"
#include "seed.h"
#include "tap.h"

namespace {

using namespace narrow_floats;

struct Type {
  const char* name;
  int mantissa, bias;
  uint16_t (*to)(float);
  float (*from)(uint16_t);
};
constexpr Type kTypes[] = {{"bf16", 7, 127, to_bf16, from_bf16},
                           {"fp16", 10, 15, to_fp16, from_fp16}};

bool same(float a, float b) {
  return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace

int main() {
  std::mt19937_64 random(test::seed());
  for (const Type& t : kTypes) {
    int wrong = 0;
    const auto check = [&](float x) { wrong += t.to(x) != encode(x, t.mantissa, t.bias); };
    for (uint32_t code = 0; code < 65536; ++code) {
      const auto c = static_cast<uint16_t>(code);
      const float x = decode(c, t.mantissa, t.bias);
      wrong += !same(t.from(c), x);
      const float above = decode(static_cast<uint16_t>(c + 1), t.mantissa, t.bias);
      for (const float y : {x, x / 2 + above / 2}) {
        check(y);
        check(std::nextafter(y, INFINITY));
        check(std::nextafter(y, -INFINITY));
      }
    }
    for (int i = 0; i < 1000000; ++i) check(float_of(static_cast<uint32_t>(random())));
    for (const float x : {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 65519.9f, 65520.0f}) check(x);
    tap::ok(wrong == 0, panns::cat(t.name, ": ", wrong, " conversions differ from the arithmetic"));
  }
  int wrong = 0;
  for (int i = 0; i < 1000000; ++i) {
    const float x = float_of(static_cast<uint32_t>(random()));
    if (!std::isnormal(x) || std::fabs(x) > 1e38f) continue;
    const double unit = std::ldexp(1.0, std::ilogb(x) - 10);
    wrong += to_tf32(x) != static_cast<float>(std::nearbyint(x / unit) * unit);
  }
  tap::ok(wrong == 0, panns::cat("tf32: ", wrong, " roundings differ from the arithmetic"));
  return tap::done();
}
