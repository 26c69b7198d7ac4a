// conv_batch_norm of the CUDA backend, on the host, against the convolution, the norm and the relu
// one after another in double precision, with the convolution's result in memory.
#include "cuda_on_host.h"
// The kernels' sources after it.
#include "backends/cuda/conv_batch_norm.cu"
#include "backends/cuda/conv_batch_norm_backward.cu"
#include "cuda_values.h"

using namespace cuda_test;
using panns::cuda::BatchNorm;
using panns::cuda::ConvOfOne;

namespace {

// 3x3 patches of a map, and K samples of a waveform, S apart.
ConvOfOne of_map(const Map& y) { return {{y.n, 1, y.t, y.f, y.precision}, y.c}; }
template <int K, int S>
ConvOfOne of_clips(int64_t clips, int64_t channels, int64_t samples, Storage type) {
  return {{clips, 1, samples, 1, type}, channels, K, 1, S, 1};
}
const auto elevens = of_clips<11, 5>;
const auto threes = of_clips<3, 3>;

bool has_dx(const ConvOfOne& conv) { return conv.by_t == 1; }
std::string text(const ConvOfOne& conv) {
  return cat(cuda_test::text(conv.y()), " ", conv.kt, "x", conv.kf,
             has_dx(conv) ? "" : cat(" of ", conv.x.t));
}

struct Case {
  BatchNorm norm;
  ConvOfOne conv;
  double mean = 0;    // of x, in deviations
  bool even = false;  // neighbours nearly alike, and filters of their differences

  std::string name() const {
    return cat("conv_batch_norm ", text(conv), norm.relu ? " relu" : "",
               mean != 0 ? cat(" mean ", mean) : "", even ? " even" : "");
  }
};

struct Values {
  Doubles x, w, gamma, beta;
};

// The whole chain, plainly.
struct Naive {
  BatchNorm norm;
  ConvOfOne of;
  Map map = of.y();
  size_t taps = static_cast<size_t>(of.taps());
  Doubles conv, hat, z, y, mean, var;

  // Calls body(place of x, place of w) for what makes the convolution at (n, c, t, f).
  template <typename Body>
  void around(int64_t n, int64_t c, int64_t t, int64_t f, Body&& body) const {
    const Map& x = of.x;
    for (int64_t i = 0; i < of.kt; ++i) {
      for (int64_t j = 0; j < of.kf; ++j) {
        const int64_t from_t = t * of.by_t + i - of.kt / 2, from_f = f * of.by_f + j - of.kf / 2;
        if (from_t < 0 || from_t >= x.t || from_f < 0 || from_f >= x.f) continue;
        body(static_cast<size_t>((n * x.t + from_t) * x.f + from_f),
             static_cast<size_t>((c * of.kt + i) * of.kf + j));
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
    const double center =
        std::accumulate(v.x.begin(), v.x.end(), 0.0) / static_cast<double>(v.x.size());
    Doubles squares(taps, center * center);  // beyond the edges
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
      for (size_t i = 0; i < taps; ++i) all += std::fabs(v.w[k * taps + i]) * std::sqrt(squares[i]);
      worst = std::max(worst, all * all / (var[k] + norm.eps));
    }
    return worst;
  }

  // The most that a channel's mean is a sum of: a filter's taps times the mean of x may cancel.
  double cancelled(const Values& v) const {
    const double center =
        std::accumulate(v.x.begin(), v.x.end(), 0.0) / static_cast<double>(v.x.size());
    double most = 0;
    for (size_t k = 0; k < var.size(); ++k) {
      double all = 0;
      for (size_t i = 0; i < taps; ++i) all += std::fabs(v.w[k * taps + i] * center);
      most = std::max(most, all);
    }
    return most;
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
void oracle(const ConvOfOne& conv) {
  const Map map = conv.y();
  const BatchNorm norm{.relu = true};
  const auto drawn = [](int64_t count) { return wide(normal(count)); };
  const auto values = [&] {
    return Values{drawn(conv.x.pixels()), drawn(map.c * conv.taps()), drawn(map.c), drawn(map.c)};
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
    Naive naive{norm, conv};
    naive.forward(v);
    return dot(naive.y, dy);
  };
  Naive naive{norm, conv};
  naive.forward(at);
  const Values d = naive.backward(at, dy);
  const double slope =
      dot(d.x, along.x) + dot(d.w, along.w) + dot(d.gamma, along.gamma) + dot(d.beta, along.beta);
  constexpr double kStep = 1e-9;  // within it hardly ever a relu turns
  const double found = (loss(kStep) - loss(-kStep)) / (2 * kStep);
  tap::ok(std::fabs(found - slope) < 1e-4 * (1 + std::fabs(slope)),
          cat("the oracle's gradients, ", text(conv), ": ", slope, ", by differences ", found));
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
  const Map in = c.conv.x, map = c.conv.y();
  const int64_t taps = c.conv.taps();
  Floats x = c.even ? even_map(in, c.mean) : normal(in.pixels(), c.mean);
  Floats w = normal(map.c * taps, 0, 0.3), gamma = normal(map.c), beta = normal(map.c);
  if (c.even) {
    for (size_t i = 0; i < w.size(); i += static_cast<size_t>(taps)) {
      w[i] -= std::accumulate(&w[i], &w[i] + taps, 0.0f);
    };
  }
  const Floats moving = normal(map.c), varying = uniform(map.c, 0.5, 2);
  const Values v{wide(x), wide(w), wide(gamma), wide(beta)};
  Naive naive{c.norm, c.conv};
  naive.forward(v);
  // Values less the mean, or beyond the edges 0 less it.
  double spread = std::fabs(c.mean), gain = 0;
  for (double value : v.x) spread = std::max(spread, std::fabs(value - c.mean));
  Floats dy = random_map(map);
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
        Array px(x), pw(w), pg(gamma), pb(beta), rm(moving), rv(varying), pdy = pack(map, dy);
        Array y(map), mean{Run(map.c)}, inv{Run(map.c)};
        Array moments{Run(c.conv.moments())};
        Array dx(in), dgamma{Run(map.c)}, dbeta{Run(map.c)}, dw{Run(taps * map.c)};
        auto work = workspace(conv_batch_norm_workspace(c.conv));
        conv_batch_norm_train(kLaunch, c.norm, c.conv,
                              {px, pw, pg, pb, rm, rv, y.data(), mean, inv, moments}, work.data());
        work = workspace(conv_batch_norm_backward_workspace(c.conv));
        conv_batch_norm_backward(
            kLaunch, c.norm, c.conv,
            {px, pw, pg, pb, inv, moments, pdy.data(),
             has_dx(c.conv) ? static_cast<float*>(dx) : nullptr, dgamma, dbeta, dw},
            work.data());
        return std::vector<Array>{y, mean, inv, rm, rv, dx, dgamma, dbeta, dw};
      },
      [&](const std::vector<Array>& o) {
        const Storage f = Storage::fp32;
        const double terms = std::sqrt(naive.rows());
        // Covariances are sums of some dozens of terms in float, and of many such sums.
        const double lost = 2 * unit(f) * naive.condition(v);
        const double base = 4e-6 + lost;
        // Two roundings of what cancels in a mean, where 1e-6 stands for eight.
        const double summed = std::max(1.0, naive.cancelled(v) / 8);
        double worst = 0;
        for (double e : {excess(unpack(map, o[0]), naive.y, map.storage(), base, 1),
                         excess(o[1].floats(), naive.mean, f, 1e-6, summed),
                         excess(o[2].floats(), invstd, f, 1e-6 + lost),
                         excess(o[3].floats(), running_mean, f, 1e-6, summed),
                         excess(o[4].floats(), running_var, f, 1e-6 + lost),
                         has_dx(c.conv) ? excess(o[5].floats(), d.x, f, base, gain) : 0,
                         excess(o[6].floats(), d.gamma, f, base, terms),
                         excess(o[7].floats(), d.beta, f, base, terms),
                         excess(o[8].floats(), d.w, f, base, terms * gain * spread)}) {
          worst = std::max(worst, e);
        }
        return worst;
      });
}

// What nobody wants is not written, and the rest has the same bits.
void without(const ConvOfOne& conv) {
  const Map map = conv.y(), in = conv.x;
  const BatchNorm norm{.relu = true};
  Array x(normal(in.pixels())), w(normal(map.c * conv.taps())), gamma(normal(map.c)),
      beta(normal(map.c));
  Array dy = pack(map, random_map(map));
  Array mean{Run(map.c)}, inv{Run(map.c)}, moments{Run(conv.moments())};
  const auto forward = [&](bool all) {
    Array rm(Floats(static_cast<size_t>(map.c), 0.5f)),
        rv(Floats(static_cast<size_t>(map.c), 2.0f)), y(map);
    auto work = workspace(conv_batch_norm_workspace(conv));
    if (all) {
      conv_batch_norm_train(kLaunch, norm, conv,
                            {x, w, gamma, beta, rm, rv, y.data(), mean, inv, moments}, work.data());
    } else {
      conv_batch_norm_train(kLaunch, norm, conv,
                            {x, w, gamma, beta, rm, rv, y.data(), nullptr, nullptr, nullptr},
                            work.data());
    }
    return std::vector<Array>{y, rm, rv};
  };
  const auto want = forward(true), got = forward(false);
  bool same = true;
  for (size_t i = 0; i < want.size(); ++i) same = same && want[i].same_bits(got[i]);
  tap::ok(same, cat("conv_batch_norm ", text(conv), ": y alone"));

  // Bit i of `wanted`: output i of dx, dgamma, dbeta, dw.
  const auto backward = [&](unsigned wanted) {
    std::vector<Array> o{Array(in), Array(Run(map.c)), Array(Run(map.c)),
                         Array(Run(conv.taps() * map.c))};
    const auto asked = [&](size_t i) -> float* {
      return wanted >> i & 1 ? static_cast<float*>(o[i]) : nullptr;
    };
    auto work = workspace(conv_batch_norm_backward_workspace(conv));
    conv_batch_norm_backward(
        kLaunch, norm, conv,
        {x, w, gamma, beta, inv, moments, dy.data(), asked(0), asked(1), asked(2), asked(3)},
        work.data());
    return o;
  };
  const unsigned first = has_dx(conv) ? 0 : 1, each = first + 1;
  const auto all = backward(15 - first);
  for (unsigned wanted = 0; wanted < 16; wanted += each) {
    const auto some = backward(wanted);
    same = true;
    for (size_t i = 0; i < 4; ++i) {
      const bool poisoned = std::isnan(some[i].at(0));
      same = same && (wanted >> i & 1 ? some[i].same_bits(all[i]) : poisoned);
    }
    tap::ok(same, cat("conv_batch_norm_backward ", text(conv), ": gradients ", wanted));
  }
}

// A waveform has no gradient.
void refuses_dx() {
  const ConvOfOne conv = elevens(1, 8, 40, Storage::fp32);
  Array dx(conv.x);
  const auto work = [&] { conv_batch_norm_backward(kLaunch, {}, conv, {.dx = dx}, nullptr); };
  tap::ok(throws("ERR_PANNS_UNSUPPORTED", work), "conv_batch_norm_backward refuses dx of samples");
}

}  // namespace

int main() {
  oracle(of_map({2, 8, 7, 5}));
  oracle(elevens(2, 8, 63, Storage::fp32));
  const BatchNorm relu{.relu = true}, alone{.eps = 1e-3, .momentum = 0.01};
  for (Storage type : kStorages) {
    check({relu, of_map({2, 64, 31, 8, type})});
    check({alone, of_map({1, 16, 125, 4, type})});
    check({relu, of_map({3, 8, 33, 64, type})});
    check({relu, of_map({1, 256, 5, 3, type})});
    check({relu, of_map({2, 32, 65, 5, type}), 30});
    check({alone, of_map({2, 64, 32, 7, type}), -30});
    check({relu, of_map({3, 128, 1, 9, type})});
    check({relu, of_map({2, 64, 40, 1, type})});
    check({alone, of_map({1, 8, 1, 2, type})});
    check({relu, elevens(2, 64, 5003, type)});
    check({alone, elevens(1, 64, 2561, type)});  // one place more than a tile
    check({relu, elevens(3, 16, 1277, type), 30});
    check({alone, elevens(3, 8, 4, type)});
    check({relu, threes(2, 64, 3077, type)});
    check({alone, threes(1, 256, 1535, type), -30});
  }
  check({relu, of_map({1, 64, 1001, 16, Storage::bf16})});
  check({relu, of_map({1, 8, 37, 256, Storage::fp32}), 5});
  check({relu, of_map({1, 8, 1001, 64, Storage::fp32}), 30});
  check({relu, of_map({1, 8, 1001, 16, Storage::fp32}), 30, true});
  check({relu, elevens(1, 8, 20011, Storage::fp32), 30});
  check({relu, elevens(2, 8, 9001, Storage::fp32), 30, true});
  check({alone, threes(2, 8, 9001, Storage::fp32), -5, true});
  check({relu, elevens(1, 256, 2600, Storage::fp32)});
  // More tiles than blocks.
  check({relu, elevens(1101, 8, 23, Storage::bf16), 3});
  without(of_map({2, 16, 9, 7, Storage::bf16}));
  without(elevens(2, 16, 333, Storage::bf16));
  refuses_dx();
  ConvOfOne other = elevens(2, 64, 333, Storage::fp32);
  other.by_t = 4;
  ConvOfOne wide = elevens(2, 64, 333, Storage::fp32);
  wide.x.f = 2;
  ConvOfOne many = of_map({2, 64, 9, 5});
  many.x.c = 8;
  for (const auto& [norm, conv] : {std::pair{relu, of_map({2, 24, 9, 5})},
                                   {relu, of_map({2, 4, 9, 5})},
                                   {relu, of_map({2, 512, 9, 5})},
                                   {relu, of_map({2, 64, 9, 257})},
                                   {relu, other},
                                   {relu, wide},
                                   {relu, many},
                                   {BatchNorm{.avg_pool_2x2 = true}, of_map({2, 64, 9, 5})},
                                   {BatchNorm{.dropout = {0.5f, 1}}, of_map({2, 64, 9, 5})}}) {
    const auto work = [&, norm = norm, conv = conv] {
      conv_batch_norm_train(kLaunch, norm, conv, {}, nullptr);
    };
    tap::ok(throws("ERR_PANNS_UNSUPPORTED", work), cat("conv_batch_norm refuses ", text(conv)));
  }
  return tap::done();
}
