// linear, forward and backward, against naive loops in double.
#include "backends/cpu/linear.h"

#include "kernels.h"

using namespace panns;
using namespace panns::cpu;
using namespace test;

namespace {

void linears(const Linear& s, bool bias) {
  const Floats x = normal(s.n * s.in), w = normal(s.out * s.in, 0, 0.1), b = normal(s.out);
  const Floats dy = normal(s.n * s.out);
  Doubles y(dy.size()), dx(x.size(), 0.0), dw(w.size(), 0.0), db(b.size(), 0.0);
  Floats mask(dy.size());
  for (int64_t n = 0; n < s.n; ++n) {
    for (int64_t o = 0; o < s.out; ++o) {
      double sum = bias ? b[o] : 0;
      for (int64_t i = 0; i < s.in; ++i) sum += double{x[n * s.in + i]} * w[o * s.in + i];
      y[n * s.out + o] = s.relu && sum < 0 ? 0 : sum;
    }
  }
  // The backward pass takes its mask from a given y, so that no value sits on the kink.
  const Floats given(y.begin(), y.end());
  for (int64_t n = 0; n < s.n; ++n) {
    for (int64_t o = 0; o < s.out; ++o) {
      const double g = s.relu && given[n * s.out + o] <= 0 ? 0 : dy[n * s.out + o];
      db[o] += g;
      for (int64_t i = 0; i < s.in; ++i) {
        dx[n * s.in + i] += g * w[o * s.in + i];
        dw[o * s.in + i] += g * x[n * s.in + i];
      }
    }
  }
  on_all(
      cat("linear ", s.n, " x ", s.in, " -> ", s.out, s.relu ? " relu" : "",
          bias ? "" : " without bias"),
      3e-6,  // sums of up to 2048 terms in float
      [&](ThreadPool& pool, Tier t) {
        Floats got = poison(s.n * s.out), gx = poison(s.n * s.in), gw = poison(s.out * s.in);
        Floats gb = poison(s.out);
        auto work = scratch(linear_workspace(s));
        linear(pool, s, x.data(), w.data(), bias ? b.data() : nullptr, got.data(), t);
        linear_backward(pool, s,
                        {x.data(), w.data(), s.relu ? given.data() : nullptr, dy.data(), gx.data(),
                         gw.data(), gb.data()},
                        work.data(), t);
        return std::vector<Floats>{got, gx, gw, gb};
      },
      [&](const std::vector<Floats>& o) {
        // Against the deviation of the sums: a lone one may cancel.
        const auto terms = [](int64_t count, double each) { return each * std::sqrt(count); };
        return std::max({error(o[0], y, terms(s.in, 0.1)), error(o[1], dx, terms(s.out, 0.1)),
                         error(o[2], dw, terms(s.n, 1)), error(o[3], db, terms(s.n, 1))});
      });
}

}  // namespace

int main() {
  for (bool relu : {false, true}) {
    linears({1, 2048, 527, relu}, true);
    linears({4, 512, 512, relu}, true);
    linears({64, 131, 50, relu}, true);
    linears({5, 7, 3, relu}, true);
    linears({2, 1, 1, relu}, false);
    linears({32, 256, 33, relu}, false);
  }
  // Leaving dx and db out changes nothing else.
  ThreadPool one(1);
  const Linear s{3, 20, 5, false};
  const Floats x = normal(60), w = normal(100), dy = normal(15);
  Floats dx = poison(60), dw = poison(100), db = poison(5), alone = poison(100);
  linear_backward(one, s, {x.data(), w.data(), nullptr, dy.data(), dx.data(), dw.data(), db.data()},
                  nullptr);
  linear_backward(one, s, {x.data(), w.data(), nullptr, dy.data(), nullptr, alone.data(), nullptr},
                  nullptr);
  tap::ok(same_bits(dw, alone), "dx and db may be left out");
  return tap::done();
}
