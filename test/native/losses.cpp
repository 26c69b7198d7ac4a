// softmax and the losses against plain double-precision formulas; gradients of the formulas by
// finite differences.
#include "backends/cpu/losses.h"

#include "backends/cpu/softmax.h"
#include "kernels.h"

using namespace panns;
using namespace panns::cpu;
using namespace test;

namespace {

Doubles softmax_of(const Floats& x, int64_t k) {
  Doubles y(x.begin(), x.end());
  for (size_t row = 0; row < y.size(); row += static_cast<size_t>(k)) {
    const double top = *std::max_element(y.begin() + row, y.begin() + row + k);
    double sum = 0;
    for (int64_t i = 0; i < k; ++i) sum += y[row + i] = std::exp(y[row + i] - top);
    for (int64_t i = 0; i < k; ++i) y[row + i] /= sum;
  }
  return y;
}

void softmaxes(int64_t rows, int64_t k) {
  Floats x = normal(rows * k, 50, 5);
  const Floats dy = normal(rows * k);
  const Doubles y = softmax_of(x, k);
  Doubles log_y(y.size()), dx(y.size()), log_dx(y.size());
  for (int64_t r = 0; r < rows; ++r) {
    double dot = 0, sum = 0;
    double top = x[r * k], exps = 0;
    for (int64_t i = r * k; i < (r + 1) * k; ++i) {
      dot += dy[i] * y[i];
      sum += dy[i];
      top = std::max(top, double{x[i]});
    }
    for (int64_t i = r * k; i < (r + 1) * k; ++i) exps += std::exp(x[i] - top);
    for (int64_t i = r * k; i < (r + 1) * k; ++i) {
      dx[i] = y[i] * (dy[i] - dot);
      log_dx[i] = dy[i] - y[i] * sum;
      log_y[i] = x[i] - top - std::log(exps);
    }
  }
  on_all(
      // A row's sum of 1001 floats, four lanes at a time, may be this far off.
      cat("softmax and log_softmax ", rows, " x ", k), 4e-6,
      [&](ThreadPool& pool, Tier t) {
        std::vector<Floats> o(4, poison(rows * k));
        softmax(pool, rows, k, x.data(), o[0].data(), t);
        softmax_backward(pool, rows, k, o[0].data(), dy.data(), o[1].data(), t);
        log_softmax(pool, rows, k, x.data(), o[2].data(), t);
        log_softmax_backward(pool, rows, k, o[2].data(), dy.data(), o[3].data(), t);
        return o;
      },
      [&](const std::vector<Floats>& o) {
        // Against the scale of dy: with k = 1 the gradient itself is 0.
        const auto gradient = [&](const Floats& got, Doubles want) {
          Floats padded = got;
          padded.push_back(1);
          want.push_back(1);
          return error(padded, want);
        };
        return std::max(std::max(error(o[0], y), gradient(o[1], dx)),
                        std::max(gradient(o[2], log_y), gradient(o[3], log_dx)));
      });
}

double bce_of(const Doubles& p, const Floats& y) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    sum -= y[i] * std::max(std::log(p[i]), -100.0) +
           (1.0 - y[i]) * std::max(std::log1p(-p[i]), -100.0);
  }
  return sum / static_cast<double>(p.size());
}

void bces(int64_t n, int64_t k) {
  const int64_t count = n * k;
  Floats p = uniform(count, 0.01, 0.99);
  const Floats y = uniform(count, 0, 1);
  Doubles dp, dz;
  const double h = 1e-6;
  for (int64_t i = 0; i < count; ++i) {
    const double at = p[i];
    const double up = bce_of({at + h}, {y[i]}), down = bce_of({at - h}, {y[i]});
    dp.push_back((up - down) / (2 * h) / static_cast<double>(count));
    dz.push_back(dp.back() * at * (1 - at));
  }
  const double loss = bce_of(Doubles(p.begin(), p.end()), y);
  on_all(
      cat("bce ", n, " x ", k), 1e-6,
      [&](ThreadPool& pool, Tier) {
        std::vector<Floats> o{poison(1), poison(count), poison(count)};
        auto work = scratch(loss_workspace(n));
        bce(pool, n, k, p.data(), y.data(), o[0].data(), work.data());
        bce_backward(pool, n, k, p.data(), y.data(), o[1].data());
        sigmoid_bce_backward(pool, n, k, p.data(), y.data(), o[2].data());
        return o;
      },
      [&](const std::vector<Floats>& o) {
        const double each = 1 / static_cast<double>(count);  // the size of a gradient
        return std::max({error(o[0], Doubles{loss}), error(o[1], dp, each), error(o[2], dz, each)});
      });
}

// Where p is 0 or 1 PyTorch holds the logarithms at -100 and the denominator at 1e-12.
void bce_ends() {
  ThreadPool one(1);
  const Floats p{0, 1, 0, 1, 0.5f}, y{1, 0, 0, 1, NAN};
  float loss = NAN;
  Floats dp = poison(4);
  auto work = scratch(loss_workspace(1));
  bce(one, 1, 4, p.data(), y.data(), &loss, work.data());
  bce_backward(one, 1, 4, p.data(), y.data(), dp.data());
  tap::ok(loss == 50.0f && dp[0] == -2.5e11f && dp[1] == 2.5e11f && dp[2] == 0 && dp[3] == 0,
          cat("bce at p = 0 and 1: loss ", loss, ", gradient ", dp[0]));
  bce(one, 1, 5, p.data(), y.data(), &loss, work.data());
  tap::ok(std::isnan(loss), "a NaN target makes the loss NaN");
}

void cross_entropies(int64_t n, int64_t k, bool one_hot) {
  const Floats z = normal(n * k, 0, 3);
  Floats y = uniform(n * k, 0, 2.0 / static_cast<double>(k));
  if (one_hot) {
    std::fill(y.begin(), y.end(), 0.0f);
    for (int64_t r = 0; r < n; ++r) y[r * k + static_cast<int64_t>(rng() % k)] = 1;
  }
  const auto loss_of = [&](const Doubles& at) {
    double loss = 0;
    for (int64_t r = 0; r < n; ++r) {
      double sum = 0;
      for (int64_t i = r * k; i < (r + 1) * k; ++i) sum += std::exp(at[i]);
      for (int64_t i = r * k; i < (r + 1) * k; ++i) loss -= y[i] * (at[i] - std::log(sum));
    }
    return loss / static_cast<double>(n);
  };
  Doubles at(z.begin(), z.end()), dz;
  const double loss = loss_of(at), h = 1e-5;
  const int64_t probes = std::min<int64_t>(n * k, 200);
  for (int64_t i = 0; i < probes; ++i) {
    const double keep = at[i];
    at[i] = keep + h;
    const double up = loss_of(at);
    at[i] = keep - h;
    dz.push_back((up - loss_of(at)) / (2 * h));
    at[i] = keep;
  }
  on_all(
      cat("cross_entropy ", n, " x ", k, one_hot ? " one-hot" : " soft"), 2e-6,
      [&](ThreadPool& pool, Tier t) {
        std::vector<Floats> o{poison(1), poison(n * k)};
        auto work = scratch(loss_workspace(n));
        cross_entropy(pool, n, k, z.data(), y.data(), o[0].data(), work.data(), t);
        cross_entropy_backward(pool, n, k, z.data(), y.data(), o[1].data(), t);
        return o;
      },
      [&](const std::vector<Floats>& o) {
        const bool finite =
            std::none_of(o[1].begin(), o[1].end(), [](float v) { return std::isnan(v); });
        const double gradient =
            error(Floats(o[1].begin(), o[1].begin() + probes), dz, 1 / static_cast<double>(n));
        // Of a sure prediction little is left but the rounding of logits of deviation 3.
        return finite ? std::max(error(o[0], Doubles{loss}, 1), gradient) : INFINITY;
      });
}

}  // namespace

int main() {
  softmaxes(5, 527);
  softmaxes(70, 50);
  softmaxes(3, 1);
  softmaxes(40, 1001);
  bces(4, 527);
  bces(33, 7);
  bce_ends();
  cross_entropies(4, 50, true);
  cross_entropies(9, 31, false);
  cross_entropies(2, 527, false);
  return tap::done();
}
