// concat, fold, scale, attention_pool and upsample against naive loops in double; padding lanes of
// every output; outputs that nobody wants.
#include "backends/cpu/attention_pool.h"
#include "backends/cpu/concat.h"
#include "backends/cpu/reshape.h"
#include "backends/cpu/scale.h"
#include "backends/cpu/upsample.h"
#include "kernels.h"

using namespace panns;
using namespace panns::cpu;
using namespace test;

namespace {

void concats(const Map& a_map, int64_t b_channels) {
  Map b_map = a_map;
  b_map.c = b_channels;
  const Map map = concat_output(a_map, b_map);
  const Floats a = normal(dense_size(a_map)), b = normal(dense_size(b_map));
  Floats y(dense_size(map));
  each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    y[dense_at(map, n, c, t, f)] =
        c < a_map.c ? a[dense_at(a_map, n, c, t, f)] : b[dense_at(b_map, n, c - a_map.c, t, f)];
  });
  const Floats pa = pack(a_map, a), pb = pack(b_map, b), py = pack(map, y);
  ThreadPool threads(3);
  Floats got = poison(map.size()), da = poison(a_map.size()), db = poison(b_map.size());
  concat(threads, a_map, b_map, pa.data(), pb.data(), got.data());
  // Backward takes apart what forward put together.
  concat_backward(threads, a_map, b_map, py.data(), da.data(), db.data());
  tap::ok(same_bits(got, py), cat("concat ", text(a_map), " and ", b_channels));
  tap::ok(same_bits(da, pa) && same_bits(db, pb), "and apart again");
  Floats only_a = poison(a_map.size()), only_b = poison(b_map.size());
  concat_backward(threads, a_map, b_map, py.data(), only_a.data(), nullptr);
  concat_backward(threads, a_map, b_map, py.data(), nullptr, only_b.data());
  tap::ok(same_bits(only_a, pa) && same_bits(only_b, pb), "and either half alone");
}

void folds(const Map& map, int64_t bins) {
  const Map out{map.n, map.c / bins, map.t, bins};
  const Floats x = normal(dense_size(map));
  Floats y(x.size());
  each(out, [&](int64_t n, int64_t g, int64_t t, int64_t f) {
    y[dense_at(out, n, g, t, f)] = x[dense_at(map, n, g * bins + f, t, 0)];
  });
  const Floats px = pack(map, x), py = pack(out, y);
  ThreadPool threads(2);
  Floats got = poison(out.size()), back = poison(map.size());
  fold(threads, map, bins, px.data(), got.data());
  fold_backward(threads, map, bins, py.data(), back.data());
  tap::ok(same_bits(got, py) && same_bits(back, px), cat("fold ", text(map), " by ", bins));
}

void scales(const Map& map) {
  const Floats x = normal(dense_size(map), 0.5), dy = normal(x.size()), s = normal(map.n * map.c);
  Doubles y(x.size()), dx(x.size()), ds(s.size(), 0.0);
  // What a sum that cancels is measured by.
  const double terms = std::sqrt(static_cast<double>(map.t * map.f));
  each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    const int64_t i = dense_at(map, n, c, t, f), k = n * map.c + c;
    y[i] = double{x[i]} * s[k];
    dx[i] = double{dy[i]} * s[k];
    ds[k] += double{x[i]} * dy[i];
  });
  const Floats px = pack(map, x), pdy = pack(map, dy);
  const auto bytes = static_cast<int64_t>(scale_workspace(map));
  on_all(
      cat("scale ", text(map)), 2e-6,  // the gradient sums up to 1000 terms in order
      [&](ThreadPool& threads, Tier t) {
        Floats got = poison(map.size()), back = poison(map.size()), sums = poison(map.n * map.c);
        auto space = scratch(bytes);
        scale(threads, map, px.data(), s.data(), got.data(), t);
        scale_backward(threads, map, px.data(), s.data(), pdy.data(), back.data(), sums.data(),
                       space.data(), t);
        Floats back_only = poison(map.size()), sums_only = poison(map.n * map.c);
        scale_backward(threads, map, px.data(), s.data(), pdy.data(), back_only.data(), nullptr,
                       nullptr, t);
        scale_backward(threads, map, px.data(), s.data(), pdy.data(), nullptr, sums_only.data(),
                       space.data(), t);
        return std::vector<Floats>{got, back, sums, back_only, sums_only};
      },
      [&](const std::vector<Floats>& o) {
        if (!padding_is_zero(map, o[0]) || !padding_is_zero(map, o[1])) return double{INFINITY};
        if (!same_bits(o[1], o[3]) || !same_bits(o[2], o[4])) return double{INFINITY};
        return std::max(
            {error(unpack(map, o[0]), y), error(unpack(map, o[1]), dx), error(o[2], ds, terms)});
      });
}

void attention_pools(const Map& map) {
  const Floats a = normal(dense_size(map), 0, 6), x = uniform(dense_size(map), 0, 1);
  const Floats dy = normal(map.n * map.c);
  Doubles y(dy.size()), da(a.size()), dx(a.size());
  double terms = 0;  // of da, which cancels where x is near y
  for (int64_t i = 0; i < map.n * map.c; ++i) {
    const auto weight = [&](int64_t t) {
      return std::exp(std::clamp(double{a[i * map.t + t]}, -10.0, 10.0));
    };
    double sum = 0, value = 0;
    for (int64_t t = 0; t < map.t; ++t) {
      sum += weight(t);
      value += weight(t) * x[i * map.t + t];
    }
    y[i] = value / sum;
    for (int64_t t = 0; t < map.t; ++t) {
      const int64_t at = i * map.t + t;
      dx[at] = dy[i] * weight(t) / sum;
      terms = std::max(terms, std::fabs(dx[at]));
      da[at] = std::fabs(a[at]) > 10 ? 0 : dx[at] * (x[at] - y[i]);
    }
  }
  const Floats pa = pack(map, a), px = pack(map, x);
  on_all(
      cat("attention_pool ", text(map)), 1e-6,
      [&](ThreadPool& threads, Tier t) {
        Floats got = poison(map.n * map.c);
        Floats back_a = poison(map.size()), back_x = poison(map.size());
        attention_pool(threads, map, pa.data(), px.data(), got.data(), t);
        attention_pool_backward(threads, map, pa.data(), px.data(), dy.data(), back_a.data(),
                                back_x.data(), t);
        Floats a_only = poison(map.size()), x_only = poison(map.size());
        attention_pool_backward(threads, map, pa.data(), px.data(), dy.data(), a_only.data(),
                                nullptr, t);
        attention_pool_backward(threads, map, pa.data(), px.data(), dy.data(), nullptr,
                                x_only.data(), t);
        return std::vector<Floats>{got, back_a, back_x, a_only, x_only};
      },
      [&](const std::vector<Floats>& o) {
        if (!padding_is_zero(map, o[1]) || !padding_is_zero(map, o[2])) return double{INFINITY};
        if (!same_bits(o[1], o[3]) || !same_bits(o[2], o[4])) return double{INFINITY};
        return std::max(
            {error(o[0], y), error(unpack(map, o[1]), da, terms), error(unpack(map, o[2]), dx)});
      });
}

void upsamples(const Map& map, int64_t ratio, int64_t frames) {
  const Floats x = normal(dense_size(map));
  Floats y(static_cast<size_t>(map.n * frames * map.c));
  for (int64_t n = 0; n < map.n; ++n) {
    for (int64_t t = 0; t < frames; ++t) {
      const int64_t segment = t / ratio < map.t ? t / ratio : map.t - 1;
      for (int64_t c = 0; c < map.c; ++c) {
        y[(n * frames + t) * map.c + c] = x[dense_at(map, n, c, segment, 0)];
      }
    }
  }
  ThreadPool threads(2);
  Floats got = poison(static_cast<int64_t>(y.size()));
  upsample(threads, map, ratio, frames, pack(map, x).data(), got.data());
  tap::ok(same_bits(got, y), cat("upsample ", text(map), " by ", ratio, " to ", frames));
}

void refusals() {
  ThreadPool one(1);
  const Map wide{1, 4, 3, 2};
  tap::ok(throws("ERR_PANNS_SHAPE",
                 [&] {
                   concat_output(wide, {1, 4, 2, 2});
                 }),
          "concat of maps with other frames is refused");
  tap::ok(throws("ERR_PANNS_SHAPE", [&] { fold(one, wide, 2, nullptr, nullptr); }) &&
              throws("ERR_PANNS_SHAPE",
                     [&] {
                       fold(one, {1, 5, 3, 1}, 2, nullptr, nullptr);
                     }),
          "fold of a map with bins, and of channels that do not divide, is refused");
  tap::ok(throws("ERR_PANNS_SHAPE", [&] { attention_pool(one, wide, nullptr, nullptr, nullptr); }),
          "attention_pool of a map with F > 1 is refused");
  tap::ok(throws("ERR_PANNS_SHAPE", [&] { upsample(one, wide, 2, 6, nullptr, nullptr); }),
          "upsample of a map with F > 1 is refused");
}

}  // namespace

int main() {
  // Whole blocks, parts of blocks, single channels on either side.
  concats({2, 64, 31, 4}, 32);
  concats({1, 16, 7, 3}, 7);
  concats({2, 17, 9, 2}, 40);
  concats({2, 1, 9, 2}, 16);
  concats({2, 33, 9, 2}, 1);
  concats({3, 1, 5, 2}, 1);
  folds({2, 128, 125, 1}, 32);
  folds({1, 68, 9, 1}, 4);
  folds({2, 32, 9, 1}, 32);
  folds({2, 20, 9, 1}, 1);
  for (const Map& map : {Map{2, 64, 31, 4}, Map{3, 17, 7, 5}, Map{1, 960, 32, 4}, Map{2, 1, 37, 3},
                         Map{2, 1, 1000, 1}, Map{2, 24, 1500, 2}, Map{1, 2, 1, 1}}) {
    scales(map);
  }
  for (const Map& map :
       {Map{2, 16, 31, 1}, Map{2, 527, 12, 1}, Map{1, 17, 700, 1}, Map{3, 1, 90, 1}}) {
    attention_pools(map);
  }
  upsamples({2, 527, 31, 1}, 32, 1001);
  upsamples({1, 17, 5, 1}, 4, 13);
  upsamples({2, 1, 6, 1}, 3, 40);
  refusals();
  return tap::done();
}
