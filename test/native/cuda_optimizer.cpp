// softmax, losses and optimizers of the CUDA backend, on the host, against the same rules in
// double.
#include "cuda_on_host.h"
// The kernels' sources after it.
#include "backends/cuda/losses.cu"
#include "backends/cuda/optimizer.cu"
#include "backends/cuda/softmax.cu"
#include "cuda_values.h"

using namespace cuda_test;
namespace cuda = panns::cuda;
using panns::backends::StepState;

namespace {

constexpr Storage kFloat = Storage::fp32;

Doubles softmax_of(const Floats& x, int64_t k) {
  Doubles y = wide(x);
  for (size_t row = 0; row < y.size(); row += static_cast<size_t>(k)) {
    const double top = *std::max_element(y.begin() + row, y.begin() + row + k);
    double sum = 0;
    for (int64_t i = 0; i < k; ++i) sum += y[row + i] = std::exp(y[row + i] - top);
    for (int64_t i = 0; i < k; ++i) y[row + i] /= sum;
  }
  return y;
}

void softmax_and_cross_entropy(int64_t n, int64_t k) {
  const Floats z = normal(n * k, 50, 5);
  Floats y = uniform(n * k, 0, 1);
  for (size_t i = 0; i < y.size(); i += 3) y[i] = 0;
  const Doubles p = softmax_of(z, k);
  double loss = 0;
  Doubles dz;
  for (int64_t row = 0; row < n; ++row) {
    double total = 0;
    for (int64_t i = row * k; i < (row + 1) * k; ++i) total += y[i];
    for (int64_t i = row * k; i < (row + 1) * k; ++i) {
      loss -= y[i] * std::log(p[i]) / static_cast<double>(n);
      dz.push_back((p[i] * total - y[i]) / static_cast<double>(n));
    }
  }
  float loss_scale = 1024;
  on_orders(
      cat("softmax and cross_entropy ", n, " x ", k),
      [&] {
        Array x(z), targets(y), out(Run(n * k)), value(Run(1)), grad(Run(n * k)),
            scaled(Run(n * k));
        auto work = workspace(cuda::loss_workspace(n, k));
        cuda::softmax(kLaunch, n, k, x, out);
        cuda::cross_entropy(kLaunch, n, k, x, targets, value, work.data());
        cuda::cross_entropy_backward(kLaunch, n, k, x, targets, nullptr, grad);
        cuda::cross_entropy_backward(kLaunch, n, k, x, targets, &loss_scale, scaled);
        return std::vector<Array>{out, value, grad, scaled};
      },
      [&](const std::vector<Array>& o) {
        Doubles times;
        for (double v : dz) times.push_back(v * loss_scale);
        return std::max(
            {excess(o[0].floats(), p, kFloat, 2e-6), excess(o[1].floats(), {loss}, kFloat, 1e-6, 1),
             excess(o[2].floats(), dz, kFloat, 2e-6, 1.0 / static_cast<double>(n)),
             excess(o[3].floats(), times, kFloat, 2e-6, loss_scale / static_cast<double>(n))});
      });
}

void bce(int64_t n, int64_t k) {
  Floats p = uniform(n * k, 0.001, 0.999);
  const Floats y = uniform(n * k, 0, 1);
  p[0] = 0;
  if (n * k > 1) p[1] = 1;
  const auto count = static_cast<double>(n * k);
  double loss = 0;
  Doubles dp;
  for (size_t i = 0; i < p.size(); ++i) {
    const double at = p[i];
    loss -= (y[i] * std::max(std::log(at), -100.0) +
             (1 - double{y[i]}) * std::max(std::log1p(-at), -100.0)) /
            count;
    dp.push_back((at - y[i]) / std::max(at * (1 - at), 1e-12) / count);
  }
  float loss_scale = 512;
  on_orders(
      cat("bce ", n, " x ", k),
      [&] {
        Array x(p), targets(y), value(Run(1)), grad(Run(n * k)), scaled(Run(n * k));
        auto work = workspace(cuda::loss_workspace(n, k));
        cuda::bce(kLaunch, n, k, x, targets, value, work.data());
        cuda::bce_backward(kLaunch, n, k, x, targets, nullptr, grad);
        cuda::bce_backward(kLaunch, n, k, x, targets, &loss_scale, scaled);
        return std::vector<Array>{value, grad, scaled};
      },
      [&](const std::vector<Array>& o) {
        double worst = excess(o[0].floats(), {loss}, kFloat, 5e-7);
        for (size_t i = 0; i < dp.size(); ++i) {  // each for itself: they span decades
          const auto at = static_cast<int64_t>(i);
          worst =
              std::max({worst, excess({o[1].at(at)}, {dp[i]}, kFloat, 2e-6, 1e-9 / count),
                        excess({o[2].at(at)}, {dp[i] * loss_scale}, kFloat, 2e-6, 1e-9 / count)});
        }
        return worst;
      });
}

constexpr int kSteps = 5;
constexpr uint32_t kFirst = 41;  // steps done before

std::vector<Floats> gradients(int64_t count) {
  std::vector<Floats> all;
  // Scales over several decades, so that v falls and amsgrad differs from adam.
  for (int t = 0; t < kSteps; ++t) all.push_back(normal(count, 0, std::pow(10.0, -t % 4)));
  return all;
}

// Adds the error of how far the weights moved: they are small, so that little is lost in their own
// rounding, and a lone weight may hardly move, so a whole step is the least scale.
double moved(const Array& got, const Floats& from, const Doubles& want, double step) {
  Floats distance;
  Doubles wanted;
  for (size_t i = 0; i < from.size(); ++i) {
    distance.push_back(got.at(static_cast<int64_t>(i)) - from[i]);
    wanted.push_back(want[i] - from[i]);
  }
  return excess(distance, wanted, kFloat, 1e-5, step);
}

double copied(const Array& weight, const Array& copy, Storage type) {
  return type == kFloat || copy.same_bits(Array(weight.floats(), type)) ? 0 : INFINITY;
}

void adam(const cuda::Adam& a, int64_t count, Storage copy, int64_t offset) {
  const Floats w = normal(count, 0, 0.02), m0 = normal(count, 0, 0.1), v0 = uniform(count, 0, 0.1);
  const auto grads = gradients(count);
  StepState state;
  state.lr = 0.01f;
  state.grad_scale = 0.37f;
  Doubles ww = wide(w), m = wide(m0), v = wide(v0), v_max = wide(v0);
  for (int s = 0; s < kSteps; ++s) {
    const double t = kFirst + s + 1, lr = state.lr;
    for (size_t i = 0; i < ww.size(); ++i) {
      double g = double{grads[s][i]} * state.grad_scale;
      if (a.decoupled) {
        ww[i] *= 1 - lr * a.weight_decay;
      } else {
        g += a.weight_decay * ww[i];
      }
      m[i] = a.beta1 * m[i] + (1 - a.beta1) * g;
      v[i] = a.beta2 * v[i] + (1 - a.beta2) * g * g;
      v_max[i] = std::max(v_max[i], v[i]);
      const double root =
          std::sqrt((a.amsgrad ? v_max : v)[i]) / std::sqrt(1 - std::pow(a.beta2, t)) + a.eps;
      ww[i] -= lr / (1 - std::pow(a.beta1, t)) * m[i] / root;
    }
  }
  on_orders(
      cat("adam", a.decoupled ? "w" : "", a.amsgrad ? " amsgrad" : "", " decay ", a.weight_decay,
          ", ", count, copy == kFloat ? "" : cat(" + ", text(copy)), offset != 0 ? " odd" : ""),
      [&] {
        // An offset makes addresses that no access of 16 bytes may use.
        Floats padded(offset, 0.0f);
        padded.insert(padded.end(), w.begin(), w.end());
        Array weight(padded), mm(m0), vv(v0), vm(a.amsgrad ? v0 : Floats{}), to(Run(count, copy));
        float* at = static_cast<float*>(weight) + offset;
        StepState now = state;
        for (int s = 0; s < kSteps; ++s) {
          now.step = kFirst + static_cast<uint32_t>(s);
          Array grad(grads[s]);
          cuda::adam(kLaunch, a, &now, count, grad, at, mm, vv,
                     a.amsgrad ? static_cast<float*>(vm) : nullptr,
                     {copy, copy == kFloat ? nullptr : to.data()});
        }
        return std::vector<Array>{Array(Floats(at, at + count)), mm, vv, vm, to};
      },
      [&](const std::vector<Array>& o) {
        // A lone m may cancel: its error is that of its terms, which start at a deviation of 0.1.
        double worst = std::max({moved(o[0], w, ww, state.lr), copied(o[0], o[4], copy),
                                 excess(o[1].floats(), m, kFloat, 2e-6, 0.1),
                                 excess(o[2].floats(), v, kFloat, 2e-6)});
        return a.amsgrad ? std::max(worst, excess(o[3].floats(), v_max, kFloat, 2e-6)) : worst;
      });
}

void sgd(const cuda::Sgd& s, int64_t count, Storage copy) {
  const Floats w = normal(count);
  const auto grads = gradients(count);
  StepState state;
  state.lr = 0.01f;
  state.grad_scale = 0.5f;
  Doubles want = wide(w), buffer(w.size());
  for (const Floats& grad : grads) {
    for (size_t i = 0; i < w.size(); ++i) {
      double d = double{grad[i]} * state.grad_scale + s.weight_decay * want[i];
      if (s.momentum != 0) {
        buffer[i] = s.momentum * buffer[i] + d;
        d = s.nesterov ? d + s.momentum * buffer[i] : buffer[i];
      }
      want[i] -= state.lr * d;
    }
  }
  on_orders(
      cat("sgd momentum ", s.momentum, s.nesterov ? " nesterov" : "", ", ", count),
      [&] {
        Array weight(w), held(Floats(s.momentum != 0 ? w.size() : 0, 0.0f)), to(Run(count, copy));
        for (const Floats& g : grads) {
          Array grad(g);
          cuda::sgd(kLaunch, s, &state, count, grad, weight,
                    s.momentum != 0 ? static_cast<float*>(held) : nullptr,
                    {copy, copy == kFloat ? nullptr : to.data()});
        }
        return std::vector<Array>{weight, to};
      },
      [&](const std::vector<Array>& o) {
        // A lone weight may cancel; their deviation is 1.
        return std::max(excess(o[0].floats(), want, kFloat, 1e-6, 1), copied(o[0], o[1], copy));
      });
}

void norms(const std::vector<int64_t>& counts, double deviation, float max_norm) {
  std::vector<Floats> grads;
  double sum = 0;
  int64_t partials = 0;
  for (int64_t count : counts) {
    grads.push_back(normal(count, 0, deviation));
    for (float v : grads.back()) sum += double{v} * v;
    partials += cuda::grad_norm_partials(count);
  }
  const bool clips = max_norm > 0;
  const double norm = std::sqrt(sum);
  const double scale = clips ? std::min(1.0, max_norm / (norm + 1e-6)) : 1;
  on_orders(
      cat("grad_norm near ", deviation, ", at most ", max_norm),
      [&] {
        StepState state;
        state.max_norm = max_norm;
        state.grad_norm = state.grad_scale = NAN;
        auto work = workspace(partials * 8);
        int64_t first = 0;
        for (const Floats& g : grads) {
          Array grad(g);
          cuda::grad_norm_add(kLaunch, &state, std::ssize(g), grad, first, work.data());
          first += cuda::grad_norm_partials(std::ssize(g));
        }
        cuda::grad_norm_finish(kLaunch, first, &state, work.data());
        return std::vector<Array>{Array(Floats{state.grad_scale}), Array(Floats{state.grad_norm})};
      },
      [&](const std::vector<Array>& o) {
        const double error = excess(o[0].floats(), {scale}, kFloat, 1e-7);
        return clips ? std::max(error, excess(o[1].floats(), {norm}, kFloat, 1e-7)) : error;
      });
}

// A step of a loss scale: what comes out of gradients that were multiplied by it.
struct Scaled {
  StepState state;
  cuda::LossScale loss;
};
Scaled scaled(Floats grad, cuda::LossScale loss, float max_norm) {
  Scaled s{{}, loss};
  s.state.max_norm = max_norm;
  s.state.grad_norm = s.state.grad_scale = NAN;
  auto work = workspace(cuda::grad_norm_partials(std::ssize(grad)) * 8);
  cuda::grad_norm_add(kLaunch, &s.state, std::ssize(grad), grad.data(), 0, work.data(), &s.loss);
  cuda::grad_norm_finish(kLaunch, 1, &s.state, work.data(), &s.loss);
  return s;
}

void loss_scale() {
  Floats grad = normal(1000);
  double norm = 0;
  for (float v : grad) norm += double{v} * v;
  norm = std::sqrt(norm) / 1024;
  const auto near = [](double a, double b) { return std::fabs(a - b) <= 1e-6 * std::fabs(b); };
  Scaled s = scaled(grad, {1024, 5}, 0);
  tap::ok(near(s.state.grad_norm, norm) && near(s.state.grad_scale, 1.0 / 1024) &&
              s.loss.scale == 1024 && s.loss.good_steps == 6,
          "loss scale: gradients are divided by it");
  s = scaled(grad, {1024, 1999}, 0.5f * static_cast<float>(norm));
  tap::ok(near(s.state.grad_scale, 0.5 * norm / (norm + 1e-6) / 1024) && s.loss.scale == 2048 &&
              s.loss.good_steps == 0,
          "loss scale: it doubles after 2,000 good steps, and clipping sees true gradients");
  for (float bad : {INFINITY, NAN}) {
    grad[517] = bad;
    s = scaled(grad, {1024, 1999}, 0);
    tap::ok(s.state.grad_scale == 0 && s.loss.scale == 512 && s.loss.good_steps == 0,
            cat("loss scale: ", bad, " halves it"));
    const auto open = [&](float scale) {
      return std::isfinite(scaled(grad, {scale, 7}, 0).state.gate);
    };
    tap::ok(open(2.1e-4f) && !open(1.9e-4f), cat("loss scale: ", bad, " has no end below 1e-4"));
    tap::ok(scaled(grad, {1.9e-4f, 7}, 0).loss.scale == 65536, "loss scale: it then begins anew");
  }
  Floats weight = normal(20), m = normal(20), v = uniform(20, 0, 1);
  const Floats before = weight, m0 = m, v0 = v;
  Floats infinite(20, INFINITY);
  cuda::adam(kLaunch, {}, &s.state, 20, infinite.data(), weight.data(), m.data(), v.data(), nullptr,
             {});
  cuda::sgd(kLaunch, {0.9}, &s.state, 20, infinite.data(), weight.data(), m.data(), {});
  tap::ok(weight == before && m == m0 && v == v0, "loss scale: a bad step changes no weight");
}

}  // namespace

int main() {
  for (int64_t k : {1, 10, 50, 527}) {
    softmax_and_cross_entropy(3, k);
    bce(3, k);
  }
  softmax_and_cross_entropy(1, 1001);
  bce(32, 527);
  for (int64_t count : {1, 527, 30001}) {
    for (int form = 0; form < 4; ++form) {
      cuda::Adam a;
      a.decoupled = form & 1;
      a.amsgrad = form & 2;
      a.weight_decay = count == 527 ? 0 : 0.03;
      // Decay added to the gradient may cancel it, and a gradient near 0 over its own root is
      // ill-conditioned unless eps holds it.
      a.eps = a.decoupled || a.weight_decay == 0 ? 1e-8 : 1e-3;
      adam(a, count, kStorages[form % 3], count == 527 ? 1 : 0);
    }
    sgd({0, 0.1, false}, count, Storage::bf16);
    sgd({0.9, 0, false}, count, Storage::fp16);
    sgd({0.9, 0.1, true}, count, Storage::fp32);
  }
  norms({1, 40000, 527}, 1, 3);
  norms({40000}, 1e25, 1);  // squares past the range of a float
  norms({10}, 1e-3, 1);
  norms({10}, 1, 0);
  loss_scale();
  return tap::done();
}
