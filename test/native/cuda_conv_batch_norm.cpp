// conv_batch_norm of the CUDA backend, on the host, against the convolution, the norm and the relu
// one after another in double precision, with the convolution's result in memory.
#include "cuda_on_host.h"
// The kernels' sources after it.
#include "backends/cuda/conv_batch_norm.cu"
#include "backends/cuda/conv_batch_norm_backward.cu"
#include "cuda_values.h"

using namespace cuda_test;
using panns::cuda::BatchNorm;

namespace {

struct Case {
  BatchNorm norm;
  Map map;            // y
  double mean = 0;    // of x, in deviations
  bool even = false;  // neighbours nearly alike, and filters of their differences

  std::string name() const {
    return cat("conv_batch_norm ", text(map), norm.relu ? " relu" : "",
               mean != 0 ? cat(" mean ", mean) : "", even ? " even" : "");
  }
  Map in() const { return {map.n, 1, map.t, map.f}; }
};

struct Values {
  Doubles x, w, gamma, beta;
};

// The whole chain, plainly.
struct Naive {
  BatchNorm norm;
  Map map;
  Doubles conv, hat, z, y, mean, var;

  // Calls body(place of x, place of w) for what makes the convolution at (n, c, t, f).
  template <typename Body>
  void around(int64_t n, int64_t c, int64_t t, int64_t f, Body&& body) const {
    for (int64_t i = 0; i < 3; ++i) {
      for (int64_t j = 0; j < 3; ++j) {
        const int64_t from_t = t + i - 1, from_f = f + j - 1;
        if (from_t < 0 || from_t >= map.t || from_f < 0 || from_f >= map.f) continue;
        body(static_cast<size_t>((n * map.t + from_t) * map.f + from_f),
             static_cast<size_t>(c * 9 + i * 3 + j));
      }
    }
  }
  double rows() const { return static_cast<double>(map.pixels()); }

  void forward(const Values& v) {
    const auto size = static_cast<size_t>(dense_size(map));
    for (Doubles* d : {&conv, &hat, &z, &y}) d->assign(size, 0);
    for (Doubles* d : {&mean, &var}) d->assign(v.gamma.size(), 0);
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      double& sum = conv[dense_at(map, n, c, t, f)];
      around(n, c, t, f, [&](size_t x, size_t w) { sum += v.x[x] * v.w[w]; });
      mean[static_cast<size_t>(c)] += sum / rows();
    });
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const double d = conv[dense_at(map, n, c, t, f)] - mean[static_cast<size_t>(c)];
      var[static_cast<size_t>(c)] += d * d / rows();
    });
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const size_t i = dense_at(map, n, c, t, f), k = static_cast<size_t>(c);
      hat[i] = (conv[i] - mean[k]) / std::sqrt(var[k] + norm.eps);
      z[i] = hat[i] * v.gamma[k] + v.beta[k];
      y[i] = norm.relu && z[i] < 0 ? 0 : z[i];
    });
  }

  // By how much a filter's values, less the mean of x, could at most vary more than they do: a
  // variance that comes of products of x has their rounding so many times.
  double condition(const Values& v) const {
    const double center = std::accumulate(v.x.begin(), v.x.end(), 0.0) / rows();
    Doubles squares(9, center * center);  // beyond the edges
    Map one = map;
    one.c = 1;
    each(one, [&](int64_t n, int64_t, int64_t t, int64_t f) {
      around(n, 0, t, f, [&](size_t x, size_t tap) {
        squares[tap] += v.x[x] * (v.x[x] - 2 * center) / rows();
      });
    });
    double worst = 0;
    for (size_t k = 0; k < var.size(); ++k) {
      double all = 0;
      for (size_t i = 0; i < 9; ++i) all += std::fabs(v.w[k * 9 + i]) * std::sqrt(squares[i]);
      worst = std::max(worst, all * all / (var[k] + norm.eps));
    }
    return worst;
  }

  // Of the values that forward came by.
  Values backward(const Values& v, const Doubles& dy) const {
    Values d{Doubles(v.x.size(), 0.0), Doubles(v.w.size(), 0.0), Doubles(v.gamma.size(), 0.0),
             Doubles(v.gamma.size(), 0.0)};
    const auto passed = [&](size_t i) { return norm.relu && z[i] <= 0 ? 0 : dy[i]; };
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const size_t i = dense_at(map, n, c, t, f), k = static_cast<size_t>(c);
      d.beta[k] += passed(i);
      d.gamma[k] += passed(i) * hat[i];
    });
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const size_t i = dense_at(map, n, c, t, f), k = static_cast<size_t>(c);
      const double g = v.gamma[k] / std::sqrt(var[k] + norm.eps) *
                       (passed(i) - d.beta[k] / rows() - hat[i] * d.gamma[k] / rows());
      around(n, c, t, f, [&](size_t x, size_t w) {
        d.x[x] += g * v.w[w];
        d.w[w] += g * v.x[x];
      });
    });
    return d;
  }
};

double dot(const Doubles& a, const Doubles& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// The oracle's own gradients, along a direction of all four values.
void oracle() {
  const Map map{2, 8, 7, 5};
  const BatchNorm norm{.relu = true};
  const auto drawn = [](int64_t count) { return wide(normal(count)); };
  const auto values = [&] {
    return Values{drawn(map.pixels()), drawn(map.c * 9), drawn(map.c), drawn(map.c)};
  };
  const Values at = values(), along = values();
  const Doubles dy = drawn(dense_size(map));
  const auto loss = [&](double step) {
    Values v = at;
    const auto move = [&](Doubles& x, const Doubles& by) {
      for (size_t i = 0; i < x.size(); ++i) x[i] += step * by[i];
    };
    move(v.x, along.x);
    move(v.w, along.w);
    move(v.gamma, along.gamma);
    move(v.beta, along.beta);
    Naive naive{norm, map};
    naive.forward(v);
    return dot(naive.y, dy);
  };
  Naive naive{norm, map};
  naive.forward(at);
  const Values d = naive.backward(at, dy);
  const double slope =
      dot(d.x, along.x) + dot(d.w, along.w) + dot(d.gamma, along.gamma) + dot(d.beta, along.beta);
  constexpr double kStep = 1e-9;  // within it hardly ever a relu turns
  const double found = (loss(kStep) - loss(-kStep)) / (2 * kStep);
  tap::ok(std::fabs(found - slope) < 1e-4 * (1 + std::fabs(slope)),
          cat("the oracle's gradients: ", slope, ", by differences ", found));
}

// A walk through time, so that neighbours are nearly alike.
Floats even_map(const Map& in, double mean) {
  Floats x(static_cast<size_t>(dense_size(in)));
  const Floats steps = normal(dense_size(in), 0, 0.05);
  each(in, [&](int64_t n, int64_t, int64_t t, int64_t f) {
    const size_t i = dense_at(in, n, 0, t, f);
    const double before = t > 0 ? x[dense_at(in, n, 0, t - 1, f)] - mean : 0;
    x[i] = static_cast<float>(mean + 0.999 * before + steps[i] +
                              std::sin(static_cast<double>(f) / 9 + static_cast<double>(n)));
  });
  return x;
}

void check(const Case& c) {
  const Map in = c.in();
  Floats x = c.even ? even_map(in, c.mean) : normal(in.pixels(), c.mean);
  Floats w = normal(c.map.c * 9, 0, 0.3), gamma = normal(c.map.c), beta = normal(c.map.c);
  if (c.even) {
    for (size_t i = 0; i < w.size(); i += 9) w[i] -= std::accumulate(&w[i], &w[i] + 9, 0.0f);
  }
  const Floats moving = normal(c.map.c), varying = uniform(c.map.c, 0.5, 2);
  const Values v{wide(x), wide(w), wide(gamma), wide(beta)};
  Naive naive{c.norm, c.map};
  naive.forward(v);
  // Values less the mean, or beyond the edges 0 less it.
  double spread = std::fabs(c.mean), gain = 0;
  for (double value : v.x) spread = std::max(spread, std::fabs(value - c.mean));
  Floats dy = random_map(c.map);
  Doubles invstd, running_mean, running_var;
  for (size_t k = 0; k < gamma.size(); ++k) {
    const double inverse = 1 / std::sqrt(naive.var[k] + c.norm.eps);
    gain = std::max(gain, std::fabs(gamma[k]) * inverse);
    invstd.push_back(inverse);
    running_mean.push_back((1 - c.norm.momentum) * moving[k] + c.norm.momentum * naive.mean[k]);
    running_var.push_back((1 - c.norm.momentum) * varying[k] +
                          c.norm.momentum * naive.var[k] * naive.rows() / (naive.rows() - 1));
  }
  // Nothing comes back through what lies on the relu's kink, where float and double may disagree on
  // the side.
  const double near = 1e-6 * (1 + gain * spread);
  for (size_t i = 0; i < dy.size(); ++i) {
    if (std::fabs(naive.z[i]) < near) dy[i] = 0;
  }
  const Values d = naive.backward(v, wide(dy));
  on_orders(
      c.name(),
      [&] {
        Array px(x), pw(w), pg(gamma), pb(beta), rm(moving), rv(varying), pdy = pack(c.map, dy);
        Array y(c.map), mean{Run(c.map.c)}, inv{Run(c.map.c)};
        Array moments{Run(panns::cuda::kPatchMoments)};
        Array dx(in), dgamma{Run(c.map.c)}, dbeta{Run(c.map.c)}, dw{Run(9 * c.map.c)};
        auto work = workspace(conv_batch_norm_workspace(c.map));
        conv_batch_norm_train(kLaunch, c.norm, c.map,
                              {px, pw, pg, pb, rm, rv, y.data(), mean, inv, moments}, work.data());
        work = workspace(conv_batch_norm_backward_workspace(c.map));
        conv_batch_norm_backward(kLaunch, c.norm, c.map,
                                 {px, pw, pg, pb, inv, moments, pdy.data(), dx, dgamma, dbeta, dw},
                                 work.data());
        return std::vector<Array>{y, mean, inv, rm, rv, dx, dgamma, dbeta, dw};
      },
      [&](const std::vector<Array>& o) {
        const Storage f = Storage::fp32;
        const double terms = std::sqrt(naive.rows());
        // Covariances are sums of some dozens of terms in float, and of many such sums.
        const double lost = 2 * unit(f) * naive.condition(v);
        const double base = 4e-6 + lost;
        double worst = 0;
        for (double e : {excess(unpack(c.map, o[0]), naive.y, c.map.storage(), base, 1),
                         excess(o[1].floats(), naive.mean, f, 1e-6, 1),
                         excess(o[2].floats(), invstd, f, 1e-6 + lost),
                         excess(o[3].floats(), running_mean, f, 1e-6, 1),
                         excess(o[4].floats(), running_var, f, 1e-6 + lost),
                         excess(o[5].floats(), d.x, f, base, gain),
                         excess(o[6].floats(), d.gamma, f, base, terms),
                         excess(o[7].floats(), d.beta, f, base, terms),
                         excess(o[8].floats(), d.w, f, base, terms * gain * spread)}) {
          worst = std::max(worst, e);
        }
        return worst;
      });
}

// What nobody wants is not written, and the rest has the same bits.
void without() {
  const Map map{2, 16, 9, 7, Storage::bf16}, in{2, 1, 9, 7};
  const BatchNorm norm{.relu = true};
  Array x(normal(in.pixels())), w(normal(map.c * 9)), gamma(normal(map.c)), beta(normal(map.c));
  Array dy = pack(map, random_map(map));
  Array mean{Run(map.c)}, inv{Run(map.c)}, moments{Run(panns::cuda::kPatchMoments)};
  const auto forward = [&](bool all) {
    Array rm(Floats(16, 0.5f)), rv(Floats(16, 2.0f)), y(map);
    auto work = workspace(conv_batch_norm_workspace(map));
    if (all) {
      conv_batch_norm_train(kLaunch, norm, map,
                            {x, w, gamma, beta, rm, rv, y.data(), mean, inv, moments}, work.data());
    } else {
      conv_batch_norm_train(kLaunch, norm, map,
                            {x, w, gamma, beta, rm, rv, y.data(), nullptr, nullptr, nullptr},
                            work.data());
    }
    return std::vector<Array>{y, rm, rv};
  };
  const auto want = forward(true), got = forward(false);
  bool same = true;
  for (size_t i = 0; i < want.size(); ++i) same = same && want[i].same_bits(got[i]);
  tap::ok(same, "conv_batch_norm: y alone");

  // Bit i of `wanted`: output i of dx, dgamma, dbeta, dw.
  const auto backward = [&](unsigned wanted) {
    std::vector<Array> o{Array(in), Array(Run(map.c)), Array(Run(map.c)), Array(Run(9 * map.c))};
    const auto asked = [&](size_t i) -> float* {
      return wanted >> i & 1 ? static_cast<float*>(o[i]) : nullptr;
    };
    auto work = workspace(conv_batch_norm_backward_workspace(map));
    conv_batch_norm_backward(
        kLaunch, norm, map,
        {x, w, gamma, beta, inv, moments, dy.data(), asked(0), asked(1), asked(2), asked(3)},
        work.data());
    return o;
  };
  const auto all = backward(15);
  const std::vector<Array> none = backward(0);
  for (unsigned wanted = 0; wanted < 16; ++wanted) {
    const auto some = backward(wanted);
    same = true;
    for (size_t i = 0; i < 4; ++i) {
      const bool poisoned = std::isnan(some[i].at(0));
      same = same && (wanted >> i & 1 ? some[i].same_bits(all[i]) : poisoned);
    }
    tap::ok(same, cat("conv_batch_norm_backward: gradients ", wanted));
  }
}

}  // namespace

int main() {
  oracle();
  const BatchNorm relu{.relu = true}, alone{.eps = 1e-3, .momentum = 0.01};
  for (Storage type : kStorages) {
    check({relu, {2, 64, 31, 8, type}});
    check({alone, {1, 16, 125, 4, type}});
    check({relu, {3, 8, 33, 64, type}});
    check({relu, {1, 256, 5, 3, type}});
    check({relu, {2, 32, 65, 5, type}, 30});
    check({alone, {2, 64, 32, 7, type}, -30});
    check({relu, {3, 128, 1, 9, type}});
    check({relu, {2, 64, 40, 1, type}});
    check({alone, {1, 8, 1, 2, type}});
  }
  check({relu, {1, 64, 1001, 16, Storage::bf16}});
  check({relu, {1, 8, 37, 256, Storage::fp32}, 5});
  check({relu, {1, 8, 1001, 64, Storage::fp32}, 30});
  check({relu, {1, 8, 1001, 16, Storage::fp32}, 30, true});
  without();
  for (const auto& [norm, map] : {std::pair{relu, Map{2, 24, 9, 5}},
                                  {relu, Map{2, 4, 9, 5}},
                                  {relu, Map{2, 512, 9, 5}},
                                  {relu, Map{2, 64, 9, 257}},
                                  {BatchNorm{.avg_pool_2x2 = true}, Map{2, 64, 9, 5}},
                                  {BatchNorm{.dropout = {0.5f, 1}}, Map{2, 64, 9, 5}}}) {
    const auto work = [&, norm = norm, map = map] {
      conv_batch_norm_train(kLaunch, norm, map, {}, nullptr);
    };
    tap::ok(throws("ERR_PANNS_UNSUPPORTED", work), cat("conv_batch_norm refuses ", text(map)));
  }
  return tap::done();
}
