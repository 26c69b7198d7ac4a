// pool and the reductions of the CUDA backend, on the host, against plain code in double.
#include "cuda_on_host.h"
// The kernels' sources after it.
#include "backends/cuda/pool.cu"
#include "backends/cuda/reduce.cu"
#include "cuda_values.h"

using namespace cuda_test;
namespace cuda = panns::cuda;
using cuda::Pool;
using cuda::PoolKind;
using cuda::TimeReduce;

namespace {

// Few values, so that maxima have equals and the first must be found.
Floats few_values(const Map& map) {
  Floats x(static_cast<size_t>(dense_size(map)));
  for (float& v : x) v = static_cast<float>(static_cast<int>(rng() % 7) - 3) / 2;
  return x;
}

void pool(const Pool& p, const Map& map, bool equals) {
  const Map out = pool_output(p, map);
  const Floats x = equals ? few_values(map) : random_map(map), dy = random_map(out);
  Doubles y(static_cast<size_t>(dense_size(out))), dx(x.size(), 0.0);
  each(out, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    double sum = 0, best = -INFINITY;
    size_t place = 0;
    std::vector<size_t> inside;
    for (int64_t a = t * p.st - p.pt; a < t * p.st - p.pt + p.kt; ++a) {
      for (int64_t b = f * p.sf - p.pf; b < f * p.sf - p.pf + p.kf; ++b) {
        if (a < 0 || b < 0 || a >= map.t || b >= map.f) continue;
        inside.push_back(dense_at(map, n, c, a, b));
        sum += x[inside.back()];
        if (x[inside.back()] > best) {
          best = x[inside.back()];
          place = inside.back();
        }
      }
    }
    const size_t at = dense_at(out, n, c, t, f);
    const auto window = static_cast<double>(p.kt * p.kf);
    if (p.kind != PoolKind::max) {
      y[at] += sum / window;
      for (size_t i : inside) dx[i] += dy[at] / window;
    }
    if (p.kind != PoolKind::mean) {
      y[at] += best;
      dx[place] += dy[at];
    }
  });
  const char* kinds[] = {"mean", "max", "mean + max"};
  on_orders(
      cat("pool ", kinds[static_cast<int>(p.kind)], " ", p.kt, "x", p.kf, " stride ", p.st, "x",
          p.sf, " padding ", p.pt, "x", p.pf, " ", text(map)),
      [&] {
        Array in = pack(map, x), g = pack(out, dy), py(out), pdx(map);
        cuda::pool(kLaunch, p, map, in, py.data());
        cuda::pool_backward(kLaunch, p, map, p.kind == PoolKind::mean ? nullptr : in.data(), g,
                            pdx.data());
        return std::vector<Array>{py, pdx};
      },
      [&](const std::vector<Array>& o) {
        return std::max(excess(unpack(out, o[0]), y, map.storage(), 1e-6),
                        excess(unpack(map, o[1]), dx, map.storage(), 1e-6));
      });
}

void pool_nan() {
  const Map map{1, 1, 1, 4};
  Floats x{1, NAN, 3, NAN}, dy{5}, y(1), dx(4);
  const Pool p{PoolKind::max, 1, 4, 1, 4};
  cuda::pool(kLaunch, p, map, x.data(), y.data());
  cuda::pool_backward(kLaunch, p, map, x.data(), dy.data(), dx.data());
  tap::ok(std::isnan(y[0]) && dx == Floats({0, 0, 0, 5}),
          "pool: of NaNs the last has the gradient");
}

void over_freq(const Map& map) {
  const Map out{map.n, map.c, map.t, 1, map.precision};
  const Floats x = random_map(map), dy = random_map(out);
  Doubles y(static_cast<size_t>(dense_size(out))), dx(x.size());
  each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    const size_t i = dense_at(map, n, c, t, f), at = dense_at(out, n, c, t, 0);
    y[at] += x[i] / static_cast<double>(map.f);
    dx[i] = dy[at] / static_cast<double>(map.f);
  });
  on_orders(
      cat("mean over frequency ", text(map)),
      [&] {
        Array in = pack(map, x), g = pack(out, dy), py(out), pdx(map);
        cuda::mean_over_freq(kLaunch, map, in, py.data());
        cuda::mean_over_freq_backward(kLaunch, map, g, pdx.data());
        return std::vector<Array>{py, pdx};
      },
      [&](const std::vector<Array>& o) {
        return std::max(excess(unpack(out, o[0]), y, map.storage(), 1e-6, 1),
                        excess(unpack(map, o[1]), dx, map.storage(), 1e-6));
      });
}

void over_time(TimeReduce kind, const Map& map, bool equals) {
  const Floats x = equals ? few_values(map) : random_map(map), dy = normal(map.n * map.c);
  Doubles y(dy.size()), dx(x.size());
  const auto frames = static_cast<double>(map.t);
  for (int64_t row = 0; row < map.n * map.c; ++row) {
    const float* from = x.data() + row * map.t;
    const auto place = std::max_element(from, from + map.t) - from;
    for (int64_t t = 0; t < map.t; ++t) {
      if (kind != TimeReduce::max) {
        y[row] += from[t] / frames;
        dx[row * map.t + t] += dy[row] / frames;
      }
    }
    if (kind != TimeReduce::mean) {
      y[row] += from[place];
      dx[row * map.t + place] += dy[row];
    }
  }
  const char* kinds[] = {"mean", "max", "max + mean"};
  on_orders(
      cat(kinds[static_cast<int>(kind)], " over time ", text(map)),
      [&] {
        Array in = pack(map, x), g(dy), py(Run(map.n * map.c)), pdx(map);
        cuda::reduce_time(kLaunch, kind, map, in, py);
        cuda::reduce_time_backward(kLaunch, kind, map,
                                   kind == TimeReduce::mean ? nullptr : in.data(), g, pdx.data());
        return std::vector<Array>{py, pdx};
      },
      [&](const std::vector<Array>& o) {
        return std::max(excess(o[0].floats(), y, Storage::fp32, 1e-6, 1),
                        excess(unpack(map, o[1]), dx, map.storage(), 1e-6));
      });
}

void time_nan() {
  const Map map{1, 1, 5, 1};
  Floats x{1, NAN, 3, NAN, 9}, dy{2}, y(1), dx(5);
  cuda::reduce_time(kLaunch, TimeReduce::max, map, x.data(), y.data());
  cuda::reduce_time_backward(kLaunch, TimeReduce::max, map, x.data(), dy.data(), dx.data());
  tap::ok(std::isnan(y[0]) && dx == Floats({0, 2, 0, 0, 0}),
          "max over time: of NaNs the first has the gradient");
}

}  // namespace

int main() {
  for (Storage type : kStorages) {
    for (int64_t c : {3, 17, 24, 64}) {
      for (PoolKind kind : {PoolKind::mean, PoolKind::max, PoolKind::mean_max}) {
        pool({kind, 2, 2, 2, 2, 0, 0}, {2, c, 31, 5, type}, c == 24);
        pool({kind, 3, 3, 1, 2, 1, 1}, {1, c, 13, 7, type}, c == 17);
        pool({kind, 3, 1, 3, 1, 1, 0}, {2, c, 125, 1, type}, c == 64);
      }
      over_freq({2, c, 31, 7, type});
    }
    for (int64_t c : {3, 64, 527}) {
      for (TimeReduce kind : {TimeReduce::mean, TimeReduce::max, TimeReduce::max_mean}) {
        over_time(kind, {2, c, c == 527 ? 31 : 125, 1, type}, c == 64);
      }
    }
    pool({PoolKind::mean, 1, 2, 1, 2, 0, 0}, {1, 527, 5, 4, type}, false);
  }
  for (PoolKind kind : {PoolKind::mean, PoolKind::max, PoolKind::mean_max}) {
    pool({kind, 4, 2, 2, 3, 2, 0}, {3, 1, 1001, 8}, true);
  }
  over_freq({2, 1, 125, 64});
  for (TimeReduce kind : {TimeReduce::mean, TimeReduce::max, TimeReduce::max_mean}) {
    over_time(kind, {2, 1, 1001, 1}, false);
    over_time(kind, {2, 16, 1, 1, Storage::bf16}, false);
  }
  pool_nan();
  time_nan();
  return tap::done();
}
