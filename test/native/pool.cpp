// pool, reductions and activations against naive loops in double.
#include "backends/cpu/pool.h"

#include "backends/cpu/activation.h"
#include "backends/cpu/reduce.h"
#include "kernels.h"

using namespace panns;
using namespace panns::cpu;
using namespace test;

namespace {

// Values with many ties, so that "first maximum" is put to the test.
Floats with_ties(int64_t count) {
  Floats x = normal(count);
  for (float& v : x) v = std::round(v * 2) / 2;
  return x;
}

void pools(const Pool& p, const Map& map) {
  const Map out = pool_output(p, map);
  const Floats x = with_ties(dense_size(map)), dy = normal(dense_size(out));
  Doubles y(dy.size()), dx(x.size(), 0.0);
  each(out, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    double sum = 0, best = -INFINITY;
    int64_t at = -1;
    const double g = dy[dense_at(out, n, c, t, f)];
    const double share = 1.0 / static_cast<double>(p.kt * p.kf);
    for (int64_t a = t * p.st - p.pt; a < t * p.st - p.pt + p.kt; ++a) {
      for (int64_t b = f * p.sf - p.pf; b < f * p.sf - p.pf + p.kf; ++b) {
        if (a < 0 || b < 0 || a >= map.t || b >= map.f) continue;
        const int64_t i = dense_at(map, n, c, a, b);
        sum += x[i] * share;
        if (x[i] > best) {
          best = x[i];
          at = i;
        }
        if (p.kind != PoolKind::max) dx[i] += g * share;
      }
    }
    if (p.kind != PoolKind::mean) dx[at] += g;
    y[dense_at(out, n, c, t, f)] = p.kind == PoolKind::mean  ? sum
                                   : p.kind == PoolKind::max ? best
                                                             : sum + best;
  });
  const Floats px = pack(map, x), pdy = pack(out, dy);
  const char* names[] = {"mean", "max", "mean + max"};
  on_all(
      cat("pool ", names[static_cast<int>(p.kind)], " ", p.kt, "x", p.kf, " stride ", p.st, "x",
          p.sf, " padding ", p.pt, "x", p.pf, " ", text(map)),
      5e-7,
      [&](ThreadPool& threads, Tier t) {
        Floats got = poison(out.size()), back = poison(map.size());
        pool(threads, p, map, px.data(), got.data(), t);
        pool_backward(threads, p, map, px.data(), pdy.data(), back.data(), t);
        return std::vector<Floats>{got, back};
      },
      [&](const std::vector<Floats>& o) {
        if (!padding_is_zero(out, o[0]) || !padding_is_zero(map, o[1])) return double{INFINITY};
        return std::max(error(unpack(out, o[0]), y), error(unpack(map, o[1]), dx));
      });
}

void pool_edges() {
  tap::ok(throws("ERR_PANNS_SHAPE",
                 [] {
                   pool_output({}, {1, 4, 1, 4});
                 }) &&
              throws("ERR_PANNS_SHAPE",
                     [] {
                       pool_output({PoolKind::max, 2, 2, 2, 2, 2, 0}, {1, 4, 8, 8});
                     }),
          "a window that does not fit and a padding past half of it are refused");
  const Map map{1, 16, 4, 1};
  const Pool p{PoolKind::max, 2, 1, 2, 1, 0, 0};
  ThreadPool one(1);
  for (Tier t : tiers()) {
    Floats x = normal(map.size()), y = poison(pool_output(p, map).size());
    x[0] = NAN;   // frame 0, channel 0: before a number
    x[17] = NAN;  // frame 1, channel 1: after a number
    pool(one, p, map, x.data(), y.data(), t);
    tap::ok(std::isnan(y[0]) && std::isnan(y[1]) && y[2] == std::max(x[2], x[18]),
            cat("max lets NaN through, ", tier_name(t)));
  }
}

void reductions(const Map& map) {
  const Map row{map.n, map.c, map.t, 1};
  const Floats x = normal(dense_size(map), 0.3), dy = normal(dense_size(row));
  Doubles y(dy.size(), 0.0), dx(x.size());
  const auto bins = static_cast<double>(map.f);
  each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    y[dense_at(row, n, c, t, 0)] += x[dense_at(map, n, c, t, f)] / bins;
    dx[dense_at(map, n, c, t, f)] = dy[dense_at(row, n, c, t, 0)] / bins;
  });
  const Floats px = pack(map, x), pdy = pack(row, dy);
  on_all(
      cat("mean over freq ", text(map)), 5e-7,
      [&](ThreadPool& threads, Tier t) {
        Floats got = poison(row.size()), back = poison(map.size());
        mean_over_freq(threads, map, px.data(), got.data(), t);
        mean_over_freq_backward(threads, map, pdy.data(), back.data(), t);
        return std::vector<Floats>{got, back};
      },
      [&](const std::vector<Floats>& o) {
        if (!padding_is_zero(row, o[0]) || !padding_is_zero(map, o[1])) return double{INFINITY};
        return std::max(error(unpack(row, o[0]), y), error(unpack(map, o[1]), dx));
      });
}

void time_reductions(const Map& map, TimeReduce kind) {
  const Floats x = with_ties(map.n * map.c * map.t), dy = normal(map.n * map.c);
  Doubles y(dy.size()), dx(x.size());
  for (int64_t i = 0; i < map.n * map.c; ++i) {
    const float* row = x.data() + i * map.t;
    const int64_t at = std::max_element(row, row + map.t) - row;  // the first
    double mean = 0;
    for (int64_t t = 0; t < map.t; ++t) mean += row[t] / static_cast<double>(map.t);
    y[i] = (kind != TimeReduce::mean ? row[at] : 0) + (kind != TimeReduce::max ? mean : 0);
    for (int64_t t = 0; t < map.t; ++t) {
      const double share = kind == TimeReduce::max ? 0 : dy[i] / static_cast<double>(map.t);
      dx[i * map.t + t] = share + (kind != TimeReduce::mean && t == at ? dy[i] : 0);
    }
  }
  const Floats px = pack(map, x);
  const char* names[] = {"max", "mean", "max + mean"};
  on_all(
      cat(names[static_cast<int>(kind)], " over time ", text(map)), 5e-7,
      [&](ThreadPool& threads, Tier t) {
        Floats got = poison(map.n * map.c), back = poison(map.size());
        reduce_time(threads, kind, map, px.data(), got.data(), t);
        reduce_time_backward(threads, kind, map, px.data(), dy.data(), back.data(), t);
        return std::vector<Floats>{got, back};
      },
      [&](const std::vector<Floats>& o) {
        if (!padding_is_zero(map, o[1])) return double{INFINITY};
        return std::max(error(o[0], y), error(unpack(map, o[1]), dx));
      });
}

// Sigmoid is held to its relative error, down to the smallest results.
void sigmoids() {
  Floats x = uniform(40001, -110, 110);
  for (float v : {0.0f, -0.0f, -87.4f, -103.9f, -200.0f, 17.0f, 88.8f, 200.0f}) x.push_back(v);
  x.push_back(-INFINITY);
  x.push_back(INFINITY);
  const auto count = static_cast<int64_t>(x.size());
  on_all(
      "sigmoid, relative error", 4e-7,
      [&](ThreadPool& threads, Tier t) {
        Floats y = poison(count);
        activation(threads, Activation::sigmoid, count, x.data(), y.data(), t);
        return std::vector<Floats>{y};
      },
      [&](const std::vector<Floats>& o) {
        double worst = 0;
        for (size_t i = 0; i < x.size(); ++i) {
          const double want = x[i] < 0 ? std::exp(double{x[i]}) / (1 + std::exp(double{x[i]}))
                                       : 1 / (1 + std::exp(-double{x[i]}));
          // Below 2^-126 a float has fewer bits: half a step there is 2^-150.
          const double slack = want < 1.2e-38 ? std::ldexp(1.0, -149) : 0;
          const double off = std::fabs(o[0][i] - want);
          const double relative = off <= slack ? 0 : off / want;
          if (!(relative <= worst)) worst = std::isnan(relative) ? INFINITY : relative;
        }
        return worst;
      });
}

double value_of(Activation kind, double v) {
  switch (kind) {
    case Activation::relu:
      return std::max(v, 0.0);
    case Activation::relu6:
      return std::clamp(v, 0.0, 6.0);
    case Activation::hard_swish:
      return v * std::clamp(v + 3, 0.0, 6.0) / 6;
    default:
      return 1 / (1 + std::exp(-v));
  }
}

double slope_of(Activation kind, double v) {
  switch (kind) {
    case Activation::relu:
      return v > 0 ? 1 : 0;
    case Activation::relu6:
      return v > 0 && v < 6 ? 1 : 0;
    case Activation::hard_swish:
      return v <= -3 ? 0 : v >= 3 ? 1 : v / 3 + 0.5;
    default:
      return value_of(kind, v) * (1 - value_of(kind, v));
  }
}

constexpr Activation kActivations[] = {Activation::relu, Activation::relu6, Activation::hard_swish,
                                       Activation::sigmoid};

void activations() {
  const int64_t count = 50003;
  Floats x = normal(count, 2, 4);
  // The kinks themselves.
  for (float v : {0.0f, 6.0f, 3.0f, -3.0f}) x[static_cast<size_t>(v + 10)] = v;
  const Floats dy = normal(count), other = normal(count);
  for (Activation kind : kActivations) {
    Doubles y, dx;
    for (int64_t i = 0; i < count; ++i) {
      y.push_back(value_of(kind, x[i]));
      dx.push_back(dy[i] * slope_of(kind, x[i]));
    }
    const char* names[] = {"relu", "relu6", "hard_swish", "sigmoid"};
    on_all(
        names[static_cast<int>(kind)], 5e-7,
        [&](ThreadPool& threads, Tier t) {
          Floats got = poison(count), back = poison(count);
          activation(threads, kind, count, x.data(), got.data(), t);
          const Floats& from = kind == Activation::hard_swish ? x : got;
          activation_backward(threads, kind, count, from.data(), dy.data(), back.data(), t);
          return std::vector<Floats>{got, back};
        },
        [&](const std::vector<Floats>& o) { return std::max(error(o[0], y), error(o[1], dx)); });
  }
  Doubles sum;
  for (int64_t i = 0; i < count; ++i) sum.push_back(double{x[i]} + other[i]);
  on_all(
      "add", 3e-7,
      [&](ThreadPool& threads, Tier t) {
        Floats y = poison(count);
        add(threads, count, x.data(), other.data(), y.data(), t);
        return std::vector<Floats>{y};
      },
      [&](const std::vector<Floats>& o) { return error(o[0], sum); });
  ThreadPool one(1);
  const Map map{2, 20, 31, 3};
  for (Tier t : tiers()) {
    for (Activation kind : kActivations) {
      Floats nan(9, NAN), y(9, 0.0f), packed = pack(map, normal(dense_size(map)));
      activation(one, kind, 9, nan.data(), y.data(), t);
      activation(one, kind, map, packed.data(), packed.data(), t);
      tap::ok(std::all_of(y.begin(), y.end(), [](float v) { return std::isnan(v); }) &&
                  padding_is_zero(map, packed),
              cat("activation ", static_cast<int>(kind), " lets NaN through and keeps padding, ",
                  tier_name(t)));
    }
  }
}

}  // namespace

int main() {
  for (PoolKind kind : {PoolKind::mean, PoolKind::max, PoolKind::mean_max}) {
    pools({kind, 2, 2, 2, 2, 0, 0}, {2, 64, 31, 7});
    pools({kind, 2, 2, 2, 2, 0, 0}, {1, 4, 125, 64});
    pools({kind, 4, 1, 4, 1, 0, 0}, {2, 24, 1001, 1});
    pools({kind, 3, 1, 1, 1, 1, 0}, {2, 20, 31, 1});
    pools({kind, 3, 1, 3, 1, 1, 0}, {1, 20, 6400, 1});
    pools({kind, 3, 1, 1, 1, 1, 0}, {1, 1, 2100, 1});
    pools({kind, 3, 3, 2, 2, 1, 1}, {2, 64, 31, 7});
    pools({kind, 5, 2, 3, 4, 2, 1}, {1, 16, 31, 9});
    pools({kind, 2, 1, 1, 1, 1, 0}, {1, 7, 1, 2});
    pools({kind, 2, 2, 2, 2, 0, 0}, {2, 1, 31, 7});
    pools({kind, 3, 3, 1, 1, 1, 1}, {2, 1, 31, 7});
  }
  pool_edges();
  for (const Map& map : {Map{2, 64, 31, 2}, Map{1, 2048, 31, 2}, Map{2, 4, 125, 7},
                         Map{2, 1, 31, 64}, Map{1, 20, 1001, 4}}) {
    reductions(map);
  }
  for (const Map& map : {Map{2, 64, 31, 1}, Map{1, 2048, 31, 1}, Map{2, 7, 125, 1},
                         Map{3, 1, 1001, 1}, Map{2, 20, 1, 1}}) {
    for (TimeReduce kind : {TimeReduce::max, TimeReduce::mean, TimeReduce::max_mean}) {
      time_reductions(map, kind);
    }
  }
  ThreadPool one(1);
  tap::ok(throws("ERR_PANNS_SHAPE",
                 [&] {
                   reduce_time(one, TimeReduce::max, Map{1, 4, 3, 2}, nullptr, nullptr);
                 }),
          "a reduction over time of a map with F > 1 is refused");
  sigmoids();
  activations();
  return tap::done();
}
