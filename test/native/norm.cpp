// batch_norm and its fused forms against naive double-precision code, whose own backward is held
// against finite differences of its forward.
#include "backends/cpu/batch_norm.h"
#include "kernels.h"

using namespace panns;
using namespace panns::cpu;
using namespace test;

namespace {

// The whole chain, plainly, on dense (N, C, T, F) doubles.
struct Naive {
  BatchNorm norm;
  Map map;
  Doubles gamma, beta;
  Doubles mean, var, unbiased;  // of the batch, or given
  bool train = true;

  int64_t param(int64_t c, int64_t f) const { return norm.axis == NormAxis::freq ? f : c; }
  double keep(const Map& out, int64_t n, int64_t c, int64_t t, int64_t f) const {
    if (!norm.dropout.active()) return 1;
    const auto word = random_word(norm.dropout.random, nhwc(out, n, c, t, f));
    return word >= drop_threshold(norm.dropout.p) ? 1 / (1 - double{norm.dropout.p}) : 0;
  }

  void statistics(const Doubles& x) {
    const auto params = static_cast<size_t>(batch_norm_params(norm, map));
    const double count = static_cast<double>(x.size()) / static_cast<double>(params);
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

  // The normalised values, before the relu.
  Doubles normalized(const Doubles& x) const {
    Doubles z(x.size());
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const int64_t i = dense_at(map, n, c, t, f), p = param(c, f);
      z[i] = (x[i] - mean[p]) / std::sqrt(var[p] + norm.eps) * gamma[p] + beta[p];
    });
    return z;
  }

  Doubles forward(const Doubles& x) {
    if (train) statistics(x);
    Doubles z = normalized(x);
    if (norm.relu) {
      for (double& v : z) v = v > 0 ? v : 0;
    }
    const Map out = batch_norm_output(norm, map);
    const int64_t side = norm.pool ? 2 : 1;
    Doubles y(static_cast<size_t>(dense_size(out)), 0.0);
    each(out, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      double sum = 0;
      for (int64_t a = 0; a < side; ++a) {
        for (int64_t b = 0; b < side; ++b) {
          sum += z[dense_at(map, n, c, side * t + a, side * f + b)];
        }
      }
      y[dense_at(out, n, c, t, f)] = sum / static_cast<double>(side * side) * keep(out, n, c, t, f);
    });
    return y;
  }

  // After forward: dx, dgamma, dbeta.
  std::vector<Doubles> backward(const Doubles& x, const Doubles& dy) const {
    const Map out = batch_norm_output(norm, map);
    const int64_t side = norm.pool ? 2 : 1;
    const Doubles z = normalized(x);
    Doubles g(x.size(), 0.0);
    each(out, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      for (int64_t a = 0; a < side; ++a) {
        for (int64_t b = 0; b < side; ++b) {
          const int64_t i = dense_at(map, n, c, side * t + a, side * f + b);
          if (norm.relu && z[i] <= 0) continue;
          g[i] = dy[dense_at(out, n, c, t, f)] / static_cast<double>(side * side) *
                 keep(out, n, c, t, f);
        }
      }
    });
    Doubles dx(x.size()), dgamma(gamma.size(), 0.0), dbeta(gamma.size(), 0.0);
    const double count = static_cast<double>(x.size()) / static_cast<double>(gamma.size());
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const int64_t i = dense_at(map, n, c, t, f), p = param(c, f);
      dbeta[p] += g[i];
      dgamma[p] += g[i] * (x[i] - mean[p]) / std::sqrt(var[p] + norm.eps);
    });
    each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
      const int64_t i = dense_at(map, n, c, t, f), p = param(c, f);
      const double invstd = 1 / std::sqrt(var[p] + norm.eps);
      const double xhat = (x[i] - mean[p]) * invstd;
      dx[i] =
          gamma[p] * invstd * (train ? g[i] - dbeta[p] / count - xhat * dgamma[p] / count : g[i]);
    });
    return {dx, dgamma, dbeta};
  }
};

double max_of(double a, double b) { return a > b ? a : b; }
Doubles wide(const Floats& x) { return Doubles(x.begin(), x.end()); }

struct Case {
  BatchNorm norm;
  Map map;
  double mean = 0;  // of x

  std::string name() const {
    return cat("bn ", text(map), norm.axis == NormAxis::freq ? " freq" : "",
               norm.relu ? " relu" : "", norm.pool ? " pool" : "",
               norm.dropout.active() ? " dropout" : "", mean != 0 ? cat(" mean ", mean) : "");
  }
};

struct Data {
  Floats x, gamma, beta, running_mean, running_var, dy;
};

// Redraws until no value lies so near the relu's kink that float and double may disagree on it.
Data draw(const Case& c, Naive& naive) {
  const int64_t params = batch_norm_params(c.norm, c.map);
  Data d;
  do {
    d.x = normal(dense_size(c.map), c.mean);
    d.gamma = normal(params);
    d.beta = normal(params);
    d.running_mean = normal(params, c.mean);
    d.running_var = uniform(params, 0.5, 2);
    d.dy = normal(dense_size(batch_norm_output(c.norm, c.map)));
    naive.gamma = wide(d.gamma);
    naive.beta = wide(d.beta);
    if (!naive.train) {
      naive.mean = wide(d.running_mean);
      naive.var = wide(d.running_var);
    } else {
      naive.statistics(wide(d.x));
    }
    const Doubles z = naive.normalized(wide(d.x));
    const double near = 2e-6 * (1 + std::fabs(c.mean));
    if (!c.norm.relu ||
        std::none_of(z.begin(), z.end(), [&](double v) { return std::fabs(v) < near; })) {
      return d;
    }
  } while (true);
}

// Of dx, dgamma and dbeta; the last two are sums of that many terms near 1, which may cancel.
double backward_error(const Case& c, const Floats* got, const std::vector<Doubles>& want) {
  const auto values = static_cast<double>(dense_size(c.map) / batch_norm_params(c.norm, c.map));
  return max_of(
      error(unpack(c.map, got[0]), want[0], 1),
      max_of(error(got[1], want[1], std::sqrt(values)), error(got[2], want[2], std::sqrt(values))));
}

void train(const Case& c) {
  const Map out = batch_norm_output(c.norm, c.map);
  const int64_t params = batch_norm_params(c.norm, c.map);
  Naive naive{c.norm, c.map, {}, {}, {}, {}, {}};
  const Data d = draw(c, naive);
  const Doubles x = wide(d.x), y = naive.forward(x);
  const auto grads = naive.backward(x, wide(d.dy));
  Doubles invstd, running_mean, running_var;
  for (int64_t p = 0; p < params; ++p) {
    invstd.push_back(1 / std::sqrt(naive.var[p] + c.norm.eps));
    running_mean.push_back((1 - c.norm.momentum) * d.running_mean[p] +
                           c.norm.momentum * naive.mean[p]);
    running_var.push_back((1 - c.norm.momentum) * d.running_var[p] +
                          c.norm.momentum * naive.unbiased[p]);
  }
  const Floats px = pack(c.map, d.x), pdy = pack(out, d.dy);
  // A mean far from 0 costs x its low bits, in PyTorch as here.
  const double tolerance = 2e-6 * (1 + std::fabs(c.mean) / 16);
  on_all(
      cat(c.name(), " train"), tolerance,
      [&](ThreadPool& pool, Tier t) {
        Floats mean = poison(params), inv = poison(params), py = poison(out.size());
        Floats rm = d.running_mean, rv = d.running_var;
        Floats dx = poison(c.map.size()), dgamma = poison(params), dbeta = poison(params);
        auto work = scratch(batch_norm_workspace(c.norm, c.map));
        batch_norm_train(pool, c.norm, c.map,
                         {px.data(), d.gamma.data(), d.beta.data(), rm.data(), rv.data(),
                          mean.data(), inv.data(), py.data()},
                         work.data(), t);
        work = scratch(batch_norm_workspace(c.norm, c.map));
        batch_norm_backward(pool, c.norm, c.map,
                            {px.data(), d.gamma.data(), d.beta.data(), mean.data(), inv.data(),
                             pdy.data(), dx.data(), dgamma.data(), dbeta.data()},
                            work.data(), t);
        return std::vector<Floats>{mean, inv, rm, rv, py, dx, dgamma, dbeta};
      },
      [&](const std::vector<Floats>& o) {
        if (!padding_is_zero(out, o[4]) || !padding_is_zero(c.map, o[5])) return double{INFINITY};
        double worst = max_of(error(o[0], naive.mean, 1), error(o[1], invstd));
        worst = max_of(worst, max_of(error(o[2], running_mean, 1), error(o[3], running_var)));
        return max_of(worst,
                      max_of(error(unpack(out, o[4]), y, 1), backward_error(c, &o[5], grads)));
      });
}

void eval(const Case& c) {
  const Map out = batch_norm_output(c.norm, c.map);
  const int64_t params = batch_norm_params(c.norm, c.map);
  Naive naive{c.norm, c.map, {}, {}, {}, {}, {}, false};
  const Data d = draw(c, naive);
  const Doubles x = wide(d.x), y = naive.forward(x);
  const auto grads = naive.backward(x, wide(d.dy));
  const Floats px = pack(c.map, d.x), pdy = pack(out, d.dy);
  on_all(
      cat(c.name(), " eval"), 2e-6,
      [&](ThreadPool& pool, Tier t) {
        Floats py = poison(out.size()), dgamma = poison(params), dbeta = poison(params);
        auto work = scratch(batch_norm_workspace(c.norm, c.map));
        batch_norm_eval(pool, c.norm, c.map,
                        {px.data(), d.gamma.data(), d.beta.data(), d.running_mean.data(),
                         d.running_var.data(), py.data()},
                        work.data(), t);
        Floats dx = px;  // in place
        batch_norm_eval_backward(
            pool, c.norm, c.map,
            {dx.data(), d.gamma.data(), d.beta.data(), d.running_mean.data(), d.running_var.data(),
             pdy.data(), dx.data(), dgamma.data(), dbeta.data()},
            work.data(), t);
        Floats alone = poison(c.map.size());
        batch_norm_eval_backward(pool, c.norm, c.map,
                                 {px.data(), d.gamma.data(), d.beta.data(), d.running_mean.data(),
                                  d.running_var.data(), pdy.data(), alone.data(), nullptr, nullptr},
                                 work.data(), t);
        return std::vector<Floats>{py, dx, dgamma, dbeta, alone};
      },
      [&](const std::vector<Floats>& o) {
        if (!padding_is_zero(out, o[0]) || !padding_is_zero(c.map, o[1])) return double{INFINITY};
        // Without the sums dx is the same.
        if (o[4] != o[1]) return double{INFINITY};
        return max_of(error(unpack(out, o[0]), y, 1), backward_error(c, &o[1], grads));
      });
}

// The oracle's backward, against central differences of its forward.
void oracle(const Case& c) {
  Naive naive{c.norm, c.map, {}, {}, {}, {}, {}};
  const Data d = draw(c, naive);
  Doubles x = wide(d.x);
  const Doubles dy = wide(d.dy);
  naive.forward(x);
  const auto grads = naive.backward(x, dy);
  const auto loss = [&] {
    const Doubles y = naive.forward(x);
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  double worst = 0;
  const double h = 1e-7;  // below the distance of every value from the kink
  const auto probe = [&](double& at, double want) {
    const double keep = at;
    at = keep + h;
    const double up = loss();
    at = keep - h;
    const double down = loss();
    at = keep;
    worst = max_of(worst, std::fabs((up - down) / (2 * h) - want));
  };
  for (int i = 0; i < 60; ++i) {
    const size_t at = rng() % x.size();
    probe(x[at], grads[0][at]);
  }
  for (size_t p = 0; p < naive.gamma.size(); ++p) {
    probe(naive.gamma[p], grads[1][p]);
    probe(naive.beta[p], grads[2][p]);
  }
  tap::ok(worst < 1e-5, cat(c.name(), ": oracle against finite differences, error ", worst));
}

BatchNorm norm(bool relu, bool pool, float p, NormAxis axis = NormAxis::channel) {
  BatchNorm b;
  b.axis = axis;
  b.relu = relu;
  b.pool = pool;
  b.momentum = std::uniform_real_distribution<double>(0.05, 0.5)(rng);
  b.dropout = {p, {rng(), static_cast<uint32_t>(rng()), static_cast<uint32_t>(rng())}};
  return b;
}

void errors() {
  ThreadPool pool(1);
  const Map map{2, 7, 4, 4};
  tap::ok(!batch_norm_supported(norm(true, true, 0.5f), map) &&
              !batch_norm_supported(norm(false, false, 0, NormAxis::freq), map) &&
              batch_norm_supported(norm(true, true, 0), map),
          "batch_norm_supported says what the fused form takes");
  tap::ok(throws("ERR_PANNS_UNSUPPORTED",
                 [&] { batch_norm_eval(pool, norm(true, true, 0.5f), map, {}, nullptr); }),
          "an unsupported form is refused");
  tap::ok(throws("ERR_PANNS_SHAPE",
                 [&] {
                   batch_norm_train(pool, norm(false, false, 0), Map{1, 4, 1, 1}, {}, nullptr);
                 }),
          "one value a channel is refused in training");
}

}  // namespace

int main() {
  const NormAxis freq = NormAxis::freq;
  oracle({norm(true, true, 0.3f), {2, 4, 5, 5}});
  oracle({norm(true, false, 0), {2, 3, 4, 3}});
  oracle({norm(false, false, 0, freq), {2, 1, 5, 3}});
  for (const Map& map : {Map{2, 64, 31, 7}, Map{1, 24, 125, 4}, Map{2, 4, 31, 2},
                         Map{1, 2048, 5, 2}, Map{1, 16, 1001, 2}}) {
    for (int form = 0; form < 8; ++form) {
      const Case c{norm(form & 1, form & 2, form & 4 ? 0.2f : 0.0f), map};
      train(c);
      if (form % 3 == 0) eval(c);
    }
  }
  for (const Case& c :
       {Case{norm(false, false, 0, freq), {3, 1, 1001, 64}},
        Case{norm(true, false, 0, freq), {2, 1, 31, 7}},
        Case{norm(false, false, 0), {2, 1, 125, 4}}, Case{norm(true, false, 0), {2, 1, 13, 5}},
        Case{norm(true, true, 0), {2, 7, 31, 3}}, Case{norm(false, false, 0), {9, 527, 1, 1}},
        // Statistics that sum(x^2) - mean^2 in float would lose.
        Case{norm(false, false, 0), {2, 20, 125, 4}, 1000},
        Case{norm(false, false, 0, freq), {2, 1, 125, 4}, -1000}}) {
    train(c);
    eval(c);
  }
  errors();
  return tap::done();
}
