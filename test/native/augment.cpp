// mixup and spec_augment.
#include "backends/cpu/mixup.h"
#include "backends/cpu/spec_augment.h"
#include "kernels.h"

using namespace panns;
using namespace panns::cpu;
using namespace test;

namespace {

void mixups(int64_t n, int64_t sample) {
  const Floats x = normal(2 * n * sample), lambda = uniform(2 * n, 0, 1), dout = normal(n * sample);
  Doubles want(dout.size()), dx(x.size());
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < sample; ++j) {
      want[i * sample + j] = double{x[2 * i * sample + j]} * lambda[2 * i] +
                             double{x[(2 * i + 1) * sample + j]} * lambda[2 * i + 1];
      dx[2 * i * sample + j] = double{dout[i * sample + j]} * lambda[2 * i];
      dx[(2 * i + 1) * sample + j] = double{dout[i * sample + j]} * lambda[2 * i + 1];
    }
  }
  on_all(
      cat("mixup of ", 2 * n, " samples of ", sample), 2e-7,
      [&](ThreadPool& pool, Tier t) {
        Floats out = poison(n * sample), back = poison(2 * n * sample);
        mixup(pool, n, sample, x.data(), lambda.data(), out.data(), t);
        mixup_backward(pool, n, sample, dout.data(), lambda.data(), back.data(), t);
        return std::vector<Floats>{out, back};
      },
      [&](const std::vector<Floats>& o) {
        return std::max(error(o[0], want, 1), error(o[1], dx, 1));
      });
}

// The documented draw: element 8 i + k, width first.
bool covered(const SpecAugment& a, int64_t sample, int64_t at, int64_t limit, int64_t total,
             int first) {
  for (int k = first; k < first + 4; k += 2) {
    const auto draw = [&](int word, int64_t range) {
      const uint64_t w = random_word(a.random, static_cast<uint64_t>(8 * sample + word));
      return static_cast<int64_t>(static_cast<double>(w) * static_cast<double>(range) / 0x1p32);
    };
    const int64_t width = std::min(draw(k, limit), total - 1);
    const int64_t start = draw(k + 1, total - width);
    if (at >= start && at < start + width) return true;
  }
  return false;
}

void spec_augments(const Map& map, int64_t time_width, int64_t freq_width) {
  const SpecAugment a{
      time_width, freq_width, {rng(), static_cast<uint32_t>(rng()), static_cast<uint32_t>(rng())}};
  const Floats dense = normal(dense_size(map), 5), x = pack(map, dense);
  Doubles want(dense.begin(), dense.end());
  each(map, [&](int64_t n, int64_t, int64_t t, int64_t f) {
    if (covered(a, n, t, time_width, map.t, 0) || covered(a, n, f, freq_width, map.f, 4)) {
      want[dense_at(map, n, 0, t, f)] = 0;
    }
  });
  on_all(
      cat("spec_augment ", text(map), " widths ", time_width, " and ", freq_width), 0,
      [&](ThreadPool& pool, Tier) {
        Floats y = poison(map.size()), in_place = x;
        spec_augment(pool, a, map, x.data(), y.data());
        spec_augment(pool, a, map, in_place.data(), in_place.data());
        return std::vector<Floats>{y, in_place};
      },
      [&](const std::vector<Floats>& o) {
        return std::max(error(unpack(map, o[0]), want), error(unpack(map, o[1]), want));
      });
}

void stripe_statistics() {
  const SpecAugment a{64, 8, {rng(), 1, 2}};
  constexpr int kSamples = 4000;
  double time = 0, freq = 0;
  int64_t widest = 0, last = 0;
  for (int64_t i = 0; i < kSamples; ++i) {
    const Stripes s = spec_augment_stripes(a, i, 1001, 64);
    for (int k = 0; k < 2; ++k) {
      time += static_cast<double>(s.time[k].end - s.time[k].begin) / (2 * kSamples);
      freq += static_cast<double>(s.freq[k].end - s.freq[k].begin) / (2 * kSamples);
      widest = std::max(widest, s.time[k].end - s.time[k].begin);
      last = std::max(last, s.time[k].end);
    }
  }
  // Means 31.5 and 3.5, with standard errors 0.21 and 0.026.
  tap::ok(std::fabs(time - 31.5) < 1.5 && std::fabs(freq - 3.5) < 0.18 && widest == 63 &&
              last > 990 && last <= 1001,
          cat("stripe widths are uniform: mean ", time, " and ", freq));
}

}  // namespace

int main() {
  mixups(1, 1);
  mixups(3, 527);
  mixups(2, 1001 * 64);
  mixups(4, 31 * 7);
  spec_augments({3, 1, 1001, 64}, 64, 8);
  spec_augments({4, 1, 125, 7}, 64, 8);
  spec_augments({5, 1, 31, 2}, 64, 4);  // narrower than a stripe may be
  spec_augments({2, 1, 1, 1}, 64, 8);
  stripe_statistics();
  ThreadPool one(1);
  tap::ok(throws("ERR_PANNS_SHAPE",
                 [&] {
                   spec_augment(one, {}, Map{1, 16, 8, 8}, nullptr, nullptr);
                 }),
          "spec_augment of a map with channels is refused");
  return tap::done();
}
