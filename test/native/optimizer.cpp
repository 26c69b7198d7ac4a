// adam and sgd over several steps against the same rules in double; norms and clipping.
#include "backends/cpu/optimizer.h"

#include "kernels.h"

using namespace panns;
using namespace panns::cpu;
using namespace test;

namespace {

constexpr int kSteps = 7;

struct NaiveAdam {
  Adam a;
  Doubles w, m, v, v_max;

  void step(int t, const Floats& grad, double grad_scale) {
    for (size_t i = 0; i < w.size(); ++i) {
      double g = grad[i] * grad_scale;
      if (a.decoupled) {
        w[i] *= 1 - a.lr * a.weight_decay;
      } else {
        g += a.weight_decay * w[i];
      }
      m[i] = a.beta1 * m[i] + (1 - a.beta1) * g;
      v[i] = a.beta2 * v[i] + (1 - a.beta2) * g * g;
      v_max[i] = std::max(v_max[i], v[i]);
      const double root =
          std::sqrt((a.amsgrad ? v_max : v)[i]) / std::sqrt(1 - std::pow(a.beta2, t)) + a.eps;
      w[i] -= a.lr / (1 - std::pow(a.beta1, t)) * m[i] / root;
    }
  }
};

std::vector<Floats> gradients(int64_t count) {
  std::vector<Floats> all;
  // Scales over several decades, so that v falls and amsgrad differs from adam.
  for (int t = 0; t < kSteps; ++t) all.push_back(normal(count, 0, std::pow(10.0, -t % 4)));
  return all;
}

void adams(const Adam& a, int64_t count) {
  // Small weights, so that how far they move is not lost in their own rounding.
  const Floats w = normal(count, 0, 0.02);
  const auto grads = gradients(count);
  const float grad_scale = 0.37f;
  NaiveAdam want{a, Doubles(w.begin(), w.end()), Doubles(w.size()), Doubles(w.size()),
                 Doubles(w.size())};
  for (int t = 0; t < kSteps; ++t) want.step(t + 1, grads[t], grad_scale);
  Doubles moved;
  for (size_t i = 0; i < w.size(); ++i) moved.push_back(want.w[i] - w[i]);
  moved.push_back(a.lr);  // the scale of one step, should a lone weight hardly move
  on_all(
      cat("adam", a.decoupled ? "w" : "", a.amsgrad ? " amsgrad" : "", " decay ", a.weight_decay,
          ", ", count),
      5e-6,
      [&](ThreadPool& pool, Tier t) {
        Floats got = w, m(w.size(), 0.0f), v = m;
        Floats v_max = a.amsgrad ? m : Floats{};  // not touched without amsgrad
        for (int step = 0; step < kSteps; ++step) {
          adam(pool, a, step + 1, grad_scale, count, grads[step].data(), got.data(), m.data(),
               v.data(), v_max.data(), t);
        }
        return std::vector<Floats>{got, m, v, v_max};
      },
      [&](const std::vector<Floats>& o) {
        Floats distance;
        for (size_t i = 0; i < w.size(); ++i) distance.push_back(o[0][i] - w[i]);
        distance.push_back(static_cast<float>(a.lr));
        double worst = std::max(error(distance, moved),
                                std::max(error(o[1], want.m, 0.01), error(o[2], want.v)));
        return a.amsgrad ? std::max(worst, error(o[3], want.v_max)) : worst;
      });
}

void sgds(const Sgd& s, int64_t count) {
  const Floats w = normal(count);
  const auto grads = gradients(count);
  Doubles want(w.begin(), w.end()), buffer(w.size());
  for (const Floats& grad : grads) {
    for (size_t i = 0; i < w.size(); ++i) {
      double d = grad[i] + s.weight_decay * want[i];
      if (s.momentum != 0) {
        buffer[i] = s.momentum * buffer[i] + d;
        d = s.nesterov ? d + s.momentum * buffer[i] : buffer[i];
      }
      want[i] -= s.lr * d;
    }
  }
  on_all(
      cat("sgd momentum ", s.momentum, s.nesterov ? " nesterov" : "", ", ", count), 1e-6,
      [&](ThreadPool& pool, Tier t) {
        Floats got = w, state(s.momentum != 0 ? w.size() : 0, 0.0f);
        for (const Floats& grad : grads) {
          sgd(pool, s, 1.0f, count, grad.data(), got.data(), state.data(), t);
        }
        return std::vector<Floats>{got};
      },
      [&](const std::vector<Floats>& o) { return error(o[0], want, 1); });
}

void norms(int64_t count, double deviation) {
  const Floats x = normal(count, 0, deviation);
  double want = 0;
  for (float v : x) want += double{v} * v;
  on_all(
      cat("norm of ", count, " floats near ", deviation), 1e-7,
      [&](ThreadPool& pool, Tier t) {
        auto work = scratch(sum_of_squares_workspace(count));
        // Both halves of the double, so that its bits are compared.
        const double sum = sum_of_squares(pool, count, x.data(), work.data(), t);
        Floats halves(2);
        std::memcpy(halves.data(), &sum, sizeof sum);
        return std::vector<Floats>{halves};
      },
      [&](const std::vector<Floats>& o) {
        double sum;
        std::memcpy(&sum, o[0].data(), sizeof sum);
        return std::fabs(sum - want) / want;
      });
}

}  // namespace

int main() {
  for (int64_t count : {1, 527, 50001}) {
    for (int form = 0; form < 4; ++form) {
      Adam a;
      a.lr = 0.01;
      a.decoupled = form & 1;
      a.amsgrad = form & 2;
      a.weight_decay = count == 527 ? 0 : 0.03;
      // Decay added to the gradient may cancel it, and a gradient near 0 over its own root is
      // ill-conditioned unless eps holds it.
      a.eps = a.decoupled || a.weight_decay == 0 ? 1e-8 : 1e-3;
      adams(a, count);
    }
    sgds({0.01, 0, 0.1, false}, count);
    sgds({0.01, 0.9, 0, false}, count);
    sgds({0.01, 0.9, 0.1, true}, count);
    norms(count, 1);
  }
  norms(40000, 1e25);  // squares past the range of a float
  tap::ok(clip_scale(10, 1) == static_cast<float>(1 / (10 + 1e-6)) && clip_scale(0.5, 1) == 1 &&
              clip_scale(0, 1) == 1 && std::isnan(clip_scale(NAN, 1)),
          "clip_scale is min(1, max_norm / (norm + 1e-6))");
  return tap::done();
}
