// batch_norm of the CUDA backend and its fused forms, on the host, against naive double-precision
// code (whose backward test/native/norm.cpp holds against finite differences in the same form).
#include "cuda_on_host.h"
// The kernels' sources after it.
#include "backends/cuda/batch_norm.cu"
#include "backends/cuda/batch_norm_backward.cu"
#include "cuda_values.h"
#include "stripes.h"

using namespace cuda_test;
namespace cuda = panns::cuda;
using cuda::BatchNorm;

namespace {

// The whole chain, plainly, on row-major (N, C, T, F) doubles.
struct Naive {
  BatchNorm norm;
  Map map;
  panns::RandomStream random{};
  Doubles gamma, beta, mean, var, unbiased;
  bool train = true;

  size_t param(int64_t c, int64_t f) const { return static_cast<size_t>(norm.freq ? f : c); }
  int64_t side() const { return norm.avg_pool_2x2 ? 2 : 1; }
  double keep(const Map& out, int64_t n, int64_t c, int64_t t, int64_t f) const {
    const double p = norm.dropout.p;
    if (p == 0) return 1;
    const auto word = panns::random_word(random, nhwc(out, n, c, t, f));
    return word >= panns::drop_threshold(norm.dropout.p) ? 1 / (1 - p) : 0;
  }

  void statistics(const Doubles& x) {
    const auto params = static_cast<size_t>(norm.freq ? map.f : map.c);
    const double count = static_cast<double>(x.size() / params);
    mean.assign(params, 0);
    var.assign(params, 0);
    unbiased.assign(params, 0);
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      mean[param(c, f)] += x[dense_at(map, n, c, t, f)] / count;
    });
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const double d = x[dense_at(map, n, c, t, f)] - mean[param(c, f)];
      var[param(c, f)] += d * d / count;
      unbiased[param(c, f)] += d * d / (count - 1);
    });
  }

  Doubles normalized(const Doubles& x) const {
    Doubles z(x.size());
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const size_t i = dense_at(map, n, c, t, f), p = param(c, f);
      z[i] = (x[i] - mean[p]) / std::sqrt(var[p] + norm.eps) * gamma[p] + beta[p];
    });
    return z;
  }

  Doubles forward(const Doubles& x) const {
    Doubles z = normalized(x);
    if (norm.relu) {
      for (double& v : z) v = v > 0 ? v : 0;
    }
    const Map out = batch_norm_output(norm, map);
    Doubles y(static_cast<size_t>(dense_size(out)), 0.0);
    each(out, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      double sum = 0;
      for (int64_t a = 0; a < side(); ++a) {
        for (int64_t b = 0; b < side(); ++b) {
          sum += z[dense_at(map, n, c, side() * t + a, side() * f + b)];
        }
      }
      y[dense_at(out, n, c, t, f)] =
          sum / static_cast<double>(side() * side()) * keep(out, n, c, t, f);
    });
    return y;
  }

  // dx, dgamma, dbeta.
  std::vector<Doubles> backward(const Doubles& x, const Doubles& dy) const {
    const Map out = batch_norm_output(norm, map);
    const Doubles z = normalized(x);
    Doubles g(x.size(), 0.0);
    each(out, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      for (int64_t a = 0; a < side(); ++a) {
        for (int64_t b = 0; b < side(); ++b) {
          const size_t i = dense_at(map, n, c, side() * t + a, side() * f + b);
          if (norm.relu && z[i] <= 0) continue;
          g[i] = dy[dense_at(out, n, c, t, f)] / static_cast<double>(side() * side()) *
                 keep(out, n, c, t, f);
        }
      }
    });
    Doubles dx(x.size()), dgamma(gamma.size(), 0.0), dbeta(gamma.size(), 0.0);
    const double count = static_cast<double>(x.size() / gamma.size());
    const auto hat = [&](size_t i, size_t p) {
      return (x[i] - mean[p]) / std::sqrt(var[p] + norm.eps);
    };
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const size_t i = dense_at(map, n, c, t, f), p = param(c, f);
      dbeta[p] += g[i];
      dgamma[p] += g[i] * hat(i, p);
    });
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const size_t i = dense_at(map, n, c, t, f), p = param(c, f);
      const double shift = dbeta[p] / count + hat(i, p) * dgamma[p] / count;
      dx[i] = gamma[p] / std::sqrt(var[p] + norm.eps) * (g[i] - (train ? shift : 0));
    });
    return {dx, dgamma, dbeta};
  }
};

struct Case {
  BatchNorm norm;
  Map map;
  double mean = 0;  // of x

  std::string name() const {
    return cat("batch_norm ", text(map), norm.freq ? " freq" : "", norm.relu ? " relu" : "",
               norm.avg_pool_2x2 ? " pool" : "", norm.dropout.p > 0 ? " dropout" : "",
               mean != 0 ? cat(" mean ", mean) : "");
  }
};

struct Data {
  Floats x, gamma, beta, running_mean, running_var, dy;
};

// Draws again what lies on the relu's kink, where float and double may disagree on the side.
Data draw(const Case& c, Naive& naive) {
  const int64_t params = c.norm.freq ? c.map.f : c.map.c;
  Data d{random_map(c.map, c.mean),
         normal(params),
         normal(params),
         normal(params, c.mean),
         uniform(params, 0.5, 2),
         random_map(batch_norm_output(c.norm, c.map))};
  naive.gamma = wide(d.gamma);
  naive.beta = wide(d.beta);
  naive.mean = wide(d.running_mean);
  naive.var = wide(d.running_var);
  const double near = 4e-6 * (1 + std::fabs(c.mean));
  for (bool moved = true; moved;) {
    moved = false;
    if (naive.train) naive.statistics(wide(d.x));
    if (!c.norm.relu) break;
    const Doubles z = naive.normalized(wide(d.x));
    for (size_t i = 0; i < z.size(); ++i) {
      if (std::fabs(z[i]) >= near) continue;
      d.x[i] = round_to(c.map.storage(), normal(1, c.mean)[0]);
      moved = true;
    }
  }
  return d;
}

void train(const Case& c) {
  const Map out = batch_norm_output(c.norm, c.map);
  const panns::backends::StepState state = random_state();
  Naive naive{c.norm, c.map, {state.seed, state.step, static_cast<uint32_t>(c.norm.dropout.mask)}};
  const Data d = draw(c, naive);
  const Doubles x = wide(d.x), y = naive.forward(x);
  const auto grads = naive.backward(x, wide(d.dy));
  const auto params = std::ssize(d.gamma);
  Doubles invstd, running_mean, running_var;
  for (size_t p = 0; p < d.gamma.size(); ++p) {
    invstd.push_back(1 / std::sqrt(naive.var[p] + c.norm.eps));
    running_mean.push_back((1 - c.norm.momentum) * d.running_mean[p] +
                           c.norm.momentum * naive.mean[p]);
    running_var.push_back((1 - c.norm.momentum) * d.running_var[p] +
                          c.norm.momentum * naive.unbiased[p]);
  }
  const Storage type = c.map.storage();
  on_orders(
      c.name() + " train",
      [&] {
        Array px = pack(c.map, d.x), pdy = pack(out, d.dy), gamma(d.gamma), beta(d.beta);
        Array rm(d.running_mean), rv(d.running_var), mean{Run(params)}, inv{Run(params)};
        Array py(out), dx(c.map), dgamma{Run(params)}, dbeta{Run(params)};
        auto work = workspace(batch_norm_workspace(c.norm, c.map));
        batch_norm_train(kLaunch, c.norm, c.map, &state,
                         {px.data(), gamma, beta, rm, rv, py.data(), mean, inv}, work.data());
        work = workspace(batch_norm_workspace(c.norm, c.map));
        batch_norm_backward(
            kLaunch, c.norm, c.map, &state,
            {px.data(), gamma, beta, mean, inv, pdy.data(), dx.data(), dgamma, dbeta}, work.data());
        return std::vector<Array>{mean, inv, rm, rv, py, dx, dgamma, dbeta};
      },
      [&](const std::vector<Array>& o) {
        const Storage f = Storage::fp32;
        // A mean far from 0 costs x its low bits, in PyTorch as here; sums of that many terms near
        // 1 may cancel.
        const double base = 4e-6 * (1 + std::fabs(c.mean) / 16);
        const double terms = std::sqrt(static_cast<double>(dense_size(c.map) / params));
        double worst = 0;
        for (double e :
             {excess(o[0].floats(), naive.mean, f, 1e-6, 1), excess(o[1].floats(), invstd, f, 1e-6),
              excess(o[2].floats(), running_mean, f, 1e-6, 1),
              excess(o[3].floats(), running_var, f, 1e-6),
              excess(unpack(out, o[4]), y, type, base, 1),
              excess(unpack(c.map, o[5]), grads[0], type, base, 1),
              excess(o[6].floats(), grads[1], f, base, terms),
              excess(o[7].floats(), grads[2], f, base, terms)}) {
          worst = e > worst ? e : worst;
        }
        return worst;
      });
}

// The same statistics from sums that lost their low bits to float, as a convolution gives them.
void from_sums(const Case& c) {
  const panns::backends::StepState state = random_state();
  Naive naive{c.norm, c.map, {state.seed, state.step, static_cast<uint32_t>(c.norm.dropout.mask)}};
  const Data d = draw(c, naive);
  const Doubles x = wide(d.x), y = naive.forward(x);
  const auto params = std::ssize(d.gamma);
  Doubles sums(d.gamma.size(), 0.0), squares(d.gamma.size(), 0.0);
  each(c.map, [&](int64_t n, int64_t channel, int64_t t, int64_t f) {
    const double v = x[dense_at(c.map, n, channel, t, f)];
    sums[static_cast<size_t>(channel)] += v;
    squares[static_cast<size_t>(channel)] += v * v;
  });
  Doubles invstd, running_mean, running_var;
  for (size_t p = 0; p < d.gamma.size(); ++p) {
    invstd.push_back(1 / std::sqrt(naive.var[p] + c.norm.eps));
    running_mean.push_back((1 - c.norm.momentum) * d.running_mean[p] +
                           c.norm.momentum * naive.mean[p]);
    running_var.push_back((1 - c.norm.momentum) * d.running_var[p] +
                          c.norm.momentum * naive.unbiased[p]);
  }
  on_orders(
      c.name() + " from sums",
      [&] {
        Array px = pack(c.map, d.x), gamma(d.gamma), beta(d.beta), rm(d.running_mean),
              rv(d.running_var), mean{Run(params)}, inv{Run(params)};
        Array py(batch_norm_output(c.norm, c.map));
        Array sum(Floats(sums.begin(), sums.end())), square(Floats(squares.begin(), squares.end()));
        auto work = workspace(batch_norm_workspace(c.norm, c.map));
        batch_norm_train(kLaunch, c.norm, c.map, &state,
                         {px.data(), gamma, beta, rm, rv, py.data(), mean, inv, sum, square},
                         work.data());
        return std::vector<Array>{mean, inv, rm, rv, py};
      },
      [&](const std::vector<Array>& o) {
        const Storage f = Storage::fp32;
        // E[x^2] is rounded to float, and so is the mean, whose square is taken from it: of a
        // variance near 1 that is three roundings of 1 + mean^2.
        const double lost = 3 * unit(f) * (1 + c.mean * c.mean);
        const double base = 4e-6 * (1 + std::fabs(c.mean) / 16) + lost;
        return std::max(
            {excess(o[0].floats(), naive.mean, f, 1e-6, 1),
             excess(o[1].floats(), invstd, f, 1e-6 + lost),
             excess(o[2].floats(), running_mean, f, 1e-6, 1),
             excess(o[3].floats(), running_var, f, 1e-6 + lost),
             excess(unpack(batch_norm_output(c.norm, c.map), o[4]), y, c.map.storage(), base, 1)});
      });
}

// Calls body(process, processes) for both of two processes that exchange sums once: one after
// another, first for the sums of each, and then again with those of both.
template <typename Body>
void in_two_processes(Body&& body) {
  Doubles sums[2];
  for (const bool known : {false, true}) {
    for (const size_t process : {0, 1}) {
      const auto sum = [&](double* values, int64_t count) {
        if (!known) sums[process].assign(values, values + count);
        for (int64_t i = 0; known && i < count; ++i) {
          values[i] += sums[1 - process][static_cast<size_t>(i)];
        }
      };
      body(process, cuda::BatchNormProcesses{2, sum});
    }
  }
}

// Half the clips each. Without dropout, which draws by the place in a process's own map.
void over_processes(Case c) {
  Naive naive{c.norm, c.map};
  const Data d = draw(c, naive);
  const Doubles y = naive.forward(wide(d.x));
  const auto grads = naive.backward(wide(d.x), wide(d.dy));
  const auto params = std::ssize(d.gamma);
  Doubles invstd, running_var;
  for (size_t p = 0; p < d.gamma.size(); ++p) {
    invstd.push_back(1 / std::sqrt(naive.var[p] + c.norm.eps));
    running_var.push_back((1 - c.norm.momentum) * d.running_var[p] +
                          c.norm.momentum * naive.unbiased[p]);
  }
  c.norm.over_processes = true;
  Map half = c.map;
  half.n /= 2;
  const Map out = batch_norm_output(c.norm, half);
  const auto part = [](const Floats& all, size_t process) {
    const auto size = std::ssize(all) / 2, begin = static_cast<std::ptrdiff_t>(process) * size;
    return Floats(all.begin() + begin, all.begin() + begin + size);
  };
  const auto joined = [](const Map& map, const Array& first, const Array& second) {
    Floats all = unpack(map, first);
    const Floats rest = unpack(map, second);
    all.insert(all.end(), rest.begin(), rest.end());
    return all;
  };
  const auto sum = [](const Array& first, const Array& second) {
    Floats all = first.floats();
    for (size_t i = 0; i < all.size(); ++i) all[i] += second.at(static_cast<int64_t>(i));
    return all;
  };
  bool equal = true;
  on_orders(
      c.name() + " over processes",
      [&] {
        // Of each process: mean, invstd, running_mean, running_var, y; then dx, dgamma, dbeta.
        std::vector<Array> forward[2], backward[2];
        Array gamma(d.gamma), beta(d.beta);
        in_two_processes([&](size_t process, const cuda::BatchNormProcesses& processes) {
          Array x = pack(half, part(d.x, process)), rm(d.running_mean), rv(d.running_var);
          Array mean{Run(params)}, inv{Run(params)}, py(out);
          auto work = workspace(batch_norm_workspace(c.norm, half));
          batch_norm_train(
              kLaunch, c.norm, half, nullptr,
              {x.data(), gamma, beta, rm, rv, py.data(), mean, inv, nullptr, nullptr, &processes},
              work.data());
          forward[process] = {mean, inv, rm, rv, py};
        });
        in_two_processes([&](size_t process, const cuda::BatchNormProcesses& processes) {
          Array x = pack(half, part(d.x, process)), dy = pack(out, part(d.dy, process));
          Array &mean = forward[process][0], &inv = forward[process][1];
          Array dx(half), dgamma{Run(params)}, dbeta{Run(params)};
          auto work = workspace(batch_norm_workspace(c.norm, half));
          batch_norm_backward(
              kLaunch, c.norm, half, nullptr,
              {x.data(), gamma, beta, mean, inv, dy.data(), dx.data(), dgamma, dbeta, &processes},
              work.data());
          backward[process] = {dx, dgamma, dbeta};
        });
        std::vector<Array> all;
        for (const auto* part : {forward, backward}) {
          for (size_t i = 0; i < part[0].size(); ++i) {
            all.insert(all.end(), {part[0][i], part[1][i]});
          }
        }
        return all;
      },
      [&](const std::vector<Array>& o) {
        const Storage f = Storage::fp32, type = c.map.storage();
        const double base = 4e-6 * (1 + std::fabs(c.mean) / 16);
        const double terms = std::sqrt(static_cast<double>(dense_size(c.map) / params));
        for (size_t i = 0; i < 8; i += 2) equal = equal && o[i].same_bits(o[i + 1]);
        return std::max({excess(o[0].floats(), naive.mean, f, 1e-6, 1),
                         excess(o[2].floats(), invstd, f, 1e-6),
                         excess(o[6].floats(), running_var, f, 1e-6),
                         excess(joined(out, o[8], o[9]), y, type, base, 1),
                         excess(joined(half, o[10], o[11]), grads[0], type, base, 1),
                         excess(sum(o[12], o[13]), grads[1], f, base, terms),
                         excess(sum(o[14], o[15]), grads[2], f, base, terms)});
      });
  tap::ok(equal, c.name() + " over processes: the same statistics in both");
}

void eval(const Case& c) {
  const Map out = batch_norm_output(c.norm, c.map);
  const panns::backends::StepState state = random_state();
  Naive naive{c.norm, c.map, {state.seed, state.step, static_cast<uint32_t>(c.norm.dropout.mask)}};
  naive.train = false;
  const Data d = draw(c, naive);
  const Doubles y = naive.forward(wide(d.x));
  const auto grads = naive.backward(wide(d.x), wide(d.dy));
  const auto params = std::ssize(d.gamma);
  on_orders(
      c.name() + " eval",
      [&] {
        Array px = pack(c.map, d.x), pdy = pack(out, d.dy), gamma(d.gamma), beta(d.beta);
        Array rm(d.running_mean), rv(d.running_var), py(out);
        Array dx(c.map), alone(c.map), dgamma{Run(params)}, dbeta{Run(params)};
        auto work = workspace(batch_norm_workspace(c.norm, c.map));
        batch_norm_eval(kLaunch, c.norm, c.map, &state, {px.data(), gamma, beta, rm, rv, py.data()},
                        work.data());
        for (const bool sums : {true, false}) {
          work = workspace(batch_norm_workspace(c.norm, c.map));
          batch_norm_eval_backward(
              kLaunch, c.norm, c.map, &state,
              {px.data(), gamma, beta, rm, rv, pdy.data(), sums ? dx.data() : alone.data(),
               sums ? static_cast<float*>(dgamma) : nullptr,
               sums ? static_cast<float*>(dbeta) : nullptr},
              work.data());
        }
        return std::vector<Array>{py, dx, alone, dgamma, dbeta};
      },
      [&](const std::vector<Array>& o) {
        const Storage f = Storage::fp32;
        const double terms = std::sqrt(static_cast<double>(dense_size(c.map) / params));
        // The statistics are not those of x: deviations from them grow with its own.
        const double base = 4e-6 * (1 + std::fabs(c.mean) / 16);
        double worst = excess(unpack(out, o[0]), y, c.map.storage(), 4e-6, 1);
        for (size_t i : {1, 2}) {
          const double e = excess(unpack(c.map, o[i]), grads[0], c.map.storage(), base, 1);
          worst = e > worst ? e : worst;
        }
        for (size_t i : {3, 4}) {
          const double e = excess(o[i].floats(), grads[i - 2], f, base, terms);
          worst = e > worst ? e : worst;
        }
        return worst;
      });
}

// bn0's form: a norm over frequency, blank stripes, pairs of clips mixed.
void augmented(const Map& map, bool stripes, bool mixup, bool training) {
  BatchNorm norm;
  norm.freq = true;
  Case c{norm, map, 3};
  Naive naive{norm, map};
  naive.train = training;
  Data d = draw(c, naive);
  norm.mixup = mixup;
  if (stripes) norm.spec_augment = {16, 5, 7};
  const panns::backends::StepState state = random_state();
  const Map out = batch_norm_output(norm, map);
  const Floats weights = uniform(map.n, 0, 1);
  d.dy = random_map(out);

  // What reaches y of an element of the norm's result, and the place it reaches.
  const auto share = [&](int64_t n, int64_t t, int64_t f) {
    if (stripes && test::blank(state, *norm.spec_augment, map, n, t, f)) return 0.0;
    return mixup ? double{weights[static_cast<size_t>(n)]} : 1.0;
  };
  const auto place = [&](int64_t n, int64_t t, int64_t f) {
    return dense_at(out, mixup ? n / 2 : n, 0, t, f);
  };
  const Doubles z = naive.forward(wide(d.x));
  Doubles y(d.dy.size(), 0.0), g(z.size());
  each(map, [&](int64_t n, int64_t, int64_t t, int64_t f) {
    const size_t i = dense_at(map, n, 0, t, f);
    y[place(n, t, f)] += z[i] * share(n, t, f);
    g[i] = double{d.dy[place(n, t, f)]} * share(n, t, f);
  });
  const auto grads = naive.backward(wide(d.x), g);
  const auto params = std::ssize(d.gamma);
  const auto name = cat("batch_norm ", text(map), " freq", stripes ? " spec_augment" : "",
                        mixup ? " mixup" : "", training ? " train" : " eval");
  on_orders(
      name,
      [&] {
        Array px = pack(map, d.x), pdy = pack(out, d.dy), gamma(d.gamma), beta(d.beta);
        Array rm(d.running_mean), rv(d.running_var), mean{Run(params)}, inv{Run(params)};
        Array py(out), dx(map), dgamma{Run(params)}, dbeta{Run(params)}, clips(weights);
        const auto work = [&] { return workspace(batch_norm_workspace(norm, map)); };
        if (training) {
          batch_norm_train(kLaunch, norm, map, &state,
                           {px.data(), gamma, beta, rm, rv, py.data(), mean, inv, nullptr, nullptr,
                            nullptr, clips},
                           work().data());
        } else {
          batch_norm_eval(kLaunch, norm, map, &state,
                          {px.data(), gamma, beta, rm, rv, py.data(), clips}, work().data());
        }
        // With dx, and as where nothing needs it.
        Array again{Run(params)}, alone{Run(params)};
        for (const bool all : {true, false}) {
          void* to = all ? dx.data() : nullptr;
          float *one = all ? dgamma : again, *other = all ? dbeta : alone;
          if (training) {
            batch_norm_backward(
                kLaunch, norm, map, &state,
                {px.data(), gamma, beta, mean, inv, pdy.data(), to, one, other, nullptr, clips},
                work().data());
          } else {
            batch_norm_eval_backward(
                kLaunch, norm, map, &state,
                {px.data(), gamma, beta, rm, rv, pdy.data(), to, one, other, clips}, work().data());
          }
        }
        return std::vector<Array>{py, dx, dgamma, dbeta, again, alone};
      },
      [&](const std::vector<Array>& o) {
        const Storage f = Storage::fp32;
        const double base = 4e-6 * (1 + std::fabs(c.mean) / 16);
        const double terms = std::sqrt(static_cast<double>(map.n * map.t));
        return std::max({excess(o[0].floats(), y, f, base, 1),
                         excess(o[1].floats(), grads[0], f, base, 1),
                         excess(o[2].floats(), grads[1], f, base, terms),
                         excess(o[3].floats(), grads[2], f, base, terms),
                         o[2].same_bits(o[4]) && o[3].same_bits(o[5]) ? 0.0 : INFINITY});
      });
}

}  // namespace

int main() {
  for (const auto& [stripes, mixup] : {std::pair{true, true}, {true, false}, {false, true}}) {
    // Bins that eight divides and others; frames of one block and of several.
    augmented({4, 1, 1001, 64}, stripes, mixup, true);
    augmented({2, 1, 31, 7}, stripes, mixup, true);
    augmented({2, 1, 125, 229}, stripes, mixup, true);
    augmented({6, 1, 40, 264}, stripes, mixup, true);
    augmented({4, 1, 125, 64}, stripes, mixup, false);
  }
  const auto both = [](const Case& c) {
    train(c);
    eval(c);
  };
  for (Storage type : kStorages) {
    for (int64_t channels : {3, 17, 24, 64}) {
      BatchNorm norm;
      both({norm, {2, channels, 31, 5, type}});
      norm.relu = true;
      both({norm, {2, channels, 31, 5, type}});
      norm.avg_pool_2x2 = true;
      both({norm, {2, channels, 31, 5, type}});
      norm.dropout = {0.2f, 5};
      both({norm, {3, channels, 125, 4, type}});
      norm.avg_pool_2x2 = norm.relu = false;
      both({norm, {2, channels, 4, 5, type}});
    }
    BatchNorm all{false, true, true, 1e-3, 0.01, {0.5f, 9}};
    both({all, {1, 527, 31, 2, type}});
    all.dropout.p = 0;
    both({all, {1, 8, 1001, 7, type}});
    // The mean thirty times the deviation: E[x^2] - mean^2 would cancel.
    both({{}, {4, 8, 125, 8, type}, 30});
  }
  for (Storage type : {Storage::bf16, Storage::fp16}) {
    from_sums({{}, {2, 24, 31, 5, type}});
    from_sums({{false, true, true, 1e-3, 0.01, {0.5f, 9}}, {3, 64, 125, 4, type}});
    from_sums({{}, {4, 8, 125, 8, type}, 30});
  }
  for (Storage type : kStorages) {
    over_processes({{.relu = true, .avg_pool_2x2 = true}, {4, 24, 31, 5, type}});
    over_processes({{}, {2, 8, 125, 8, type}, 30});
  }
  over_processes({{.freq = true}, {4, 1, 101, 64}, -50});
  // All alike: the difference of the squares may come out below 0, and is no variance then.
  {
    const Map map{2, 8, 5, 4, Storage::bf16};
    Array x = pack(map, Floats(static_cast<size_t>(dense_size(map)), 3.0f)), y(map);
    Array gamma(Floats(8, 1.0f)), beta(Floats(8, 0.25f)), rm(Floats(8, 0.0f)), rv(Floats(8, 1.0f));
    Array sum(Floats(8, 120.0f)), square(Floats(8, 359.9999f)), inv{Run(8)};
    auto work = workspace(batch_norm_workspace({}, map));
    batch_norm_train(kLaunch, {}, map, nullptr,
                     {x.data(), gamma, beta, rm, rv, y.data(), nullptr, inv, sum, square},
                     work.data());
    bool held = true;
    for (int64_t c = 0; c < 8; ++c)
      held = held && std::fabs(inv.at(c) * std::sqrt(1e-5) - 1) < 1e-6;
    for (int64_t i = 0; i < y.count(); ++i) held = held && y.at(i) == 0.25f;
    tap::ok(held, "batch_norm from sums: a variance below 0 counts as 0");
  }
  for (int64_t bins : {64, 7, 1}) {
    both({{.freq = true}, {3, 1, 101, bins}});
    both({{.freq = true}, {3, 1, 101, bins}, -50});
    both({{.relu = true}, {3, 1, 101, bins}});
  }
  both({{.freq = true}, {2, 1, 1001, 64}, -40});
  const auto work = [] {
    batch_norm_train(kLaunch, {.freq = true}, {1, 2, 4, 4}, nullptr, {}, nullptr);
  };
  tap::ok(throws("ERR_PANNS_UNSUPPORTED", work), "a norm over bins of two channels is refused");
  return tap::done();
}
