// concat, scale, fold, unsqueeze, attention_pool, upsample, import and export, and fold_batch_norm
// of the CUDA backend, on the host, against plain code in double.
#include "cuda_on_host.h"
// The kernels' sources after it.
#include "backends/cuda/activation.cu"
#include "backends/cuda/attention_pool.cu"
#include "backends/cuda/concat.cu"
#include "backends/cuda/convert.cu"
#include "backends/cuda/fold_batch_norm.cu"
#include "backends/cuda/reshape.cu"
#include "backends/cuda/scale.cu"
#include "backends/cuda/upsample.cu"
#include "cuda_values.h"

using namespace cuda_test;
namespace cuda = panns::cuda;

namespace {

// As an excess: equal or not.
double same(const Floats& got, const Floats& want) { return got == want ? 0 : INFINITY; }

void concat(const Map& a, const Map& b) {
  const Map out{a.n, a.c + b.c, a.t, a.f, a.precision};
  // What a float32 map of one channel holds is rounded to the other's type.
  const Floats xa = random_map(a), xb = random_map(b), dy = random_map(out);
  Floats y(static_cast<size_t>(dense_size(out))), da(xa.size()), db(xb.size());
  each(out, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    const size_t i = dense_at(out, n, c, t, f);
    const bool first = c < a.c;
    const Map& from = first ? a : b;
    const size_t j = dense_at(from, n, first ? c : c - a.c, t, f);
    y[i] = round_to(out.storage(), (first ? xa : xb)[j]);
    (first ? da : db)[j] = dy[i];
  });
  on_orders(
      cat("concat ", text(a), " and ", text(b)),
      [&] {
        Array pa = pack(a, xa), pb = pack(b, xb), g = pack(out, dy);
        Array py(out), pda(a), pdb(b), alone(b);
        cuda::concat(kLaunch, a, b, pa, pb, py.data());
        cuda::concat_backward(kLaunch, a, b, g, pda.data(), pdb.data());
        cuda::concat_backward(kLaunch, a, b, g, nullptr, alone.data());
        return std::vector<Array>{py, pda, pdb, alone};
      },
      [&](const std::vector<Array>& o) {
        return std::max({same(unpack(out, o[0]), y), same(unpack(a, o[1]), da),
                         same(unpack(b, o[2]), db), same(unpack(b, o[3]), db)});
      });
}

void scale(const Map& map) {
  const Floats x = random_map(map), dy = random_map(map), s = normal(map.n * map.c);
  Doubles y(x.size()), dx(x.size()), ds(s.size());
  each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    const size_t i = dense_at(map, n, c, t, f);
    const int64_t at = n * map.c + c;
    y[i] = double{x[i]} * s[at];
    dx[i] = double{dy[i]} * s[at];
    ds[at] += double{x[i]} * dy[i];
  });
  const double terms = std::sqrt(static_cast<double>(map.t * map.f));
  on_orders(
      cat("scale ", text(map)),
      [&] {
        Array in = pack(map, x), g = pack(map, dy), factors(s);
        Array py(map), pdx(map), pds(Run(map.n * map.c)), alone(Run(map.n * map.c));
        auto work = workspace(cuda::scale_backward_workspace(map));
        cuda::scale(kLaunch, map, in, factors, py.data());
        cuda::scale_backward(kLaunch, map, in, factors, g, pdx.data(), pds, work.data());
        cuda::scale_backward(kLaunch, map, in, factors, g, nullptr, alone, work.data());
        return std::vector<Array>{py, pdx, pds, alone};
      },
      [&](const std::vector<Array>& o) {
        const Storage type = map.storage();
        return std::max({excess(unpack(map, o[0]), y, type, 1e-7),
                         excess(unpack(map, o[1]), dx, type, 1e-7),
                         excess(o[2].floats(), ds, Storage::fp32, 1e-6, terms),
                         excess(o[3].floats(), ds, Storage::fp32, 1e-6, terms)});
      });
}

void fold(const Map& folded) {
  const Map in{folded.n, folded.c * folded.f, folded.t, 1, folded.precision};
  const Floats x = random_map(in), dy = random_map(folded);
  Floats y(x.size()), dx(x.size());
  each(folded, [&](int64_t n, int64_t g, int64_t t, int64_t f) {
    const size_t i = dense_at(folded, n, g, t, f);
    const size_t j = dense_at(in, n, g * folded.f + f, t, 0);
    y[i] = round_to(folded.storage(), x[j]);
    dx[j] = round_to(in.storage(), dy[i]);
  });
  on_orders(
      cat("fold to ", text(folded)),
      [&] {
        Array px = pack(in, x), g = pack(folded, dy), py(folded), pdx(in);
        cuda::fold(kLaunch, folded, px, py.data());
        cuda::fold_backward(kLaunch, folded, g, pdx.data());
        return std::vector<Array>{py, pdx};
      },
      [&](const std::vector<Array>& o) {
        return std::max(same(unpack(folded, o[0]), y), same(unpack(in, o[1]), dx));
      });
}

void attention_pool(const Map& map) {
  const Storage type = map.storage();
  // Beyond the clamp here and there, and on it, where the gradient still goes through.
  Floats a = random_map(map, 0, 6);
  for (size_t i = 0; i < a.size(); i += 11) a[i] = i % 2 == 0 ? 10.0f : -10.0f;
  const Floats x = random_map(map), dy = normal(map.n * map.c);
  Doubles y, da(a.size()), dx(a.size());
  double terms = 0;  // of da, which cancels where x is near y
  for (int64_t row = 0; row < map.n * map.c; ++row) {
    const size_t first = static_cast<size_t>(row * map.t);
    double total = 0, sum = 0;
    const auto weight = [&](size_t i) {
      return std::exp(std::min(std::max(double{a[i]}, -10.0), 10.0));
    };
    for (size_t i = first; i < first + map.t; ++i) {
      total += weight(i);
      sum += weight(i) * x[i];
    }
    y.push_back(sum / total);
    for (size_t i = first; i < first + map.t; ++i) {
      dx[i] = dy[row] * weight(i) / total;
      terms = std::max(terms, std::fabs(dx[i]));
      da[i] = std::fabs(a[i]) > 10 ? 0 : dx[i] * (x[i] - y.back());
    }
  }
  on_orders(
      cat("attention_pool ", text(map)),
      [&] {
        Array pa = pack(map, a), px = pack(map, x), g(dy);
        Array py(Run(map.n * map.c)), pda(map), pdx(map), alone(map);
        cuda::attention_pool(kLaunch, map, pa, px, py);
        cuda::attention_pool_backward(kLaunch, map, pa, px, g, pda.data(), pdx.data());
        cuda::attention_pool_backward(kLaunch, map, pa, px, g, nullptr, alone.data());
        return std::vector<Array>{py, pda, pdx, alone};
      },
      [&](const std::vector<Array>& o) {
        return std::max({excess(o[0].floats(), y, Storage::fp32, 2e-6, 1),
                         excess(unpack(map, o[1]), da, type, 2e-6, terms),
                         excess(unpack(map, o[2]), dx, type, 2e-6),
                         excess(unpack(map, o[3]), dx, type, 2e-6)});
      });
}

void upsample(const Map& map, int64_t ratio, int64_t frames) {
  const Floats x = random_map(map);
  Floats want;
  for (int64_t n = 0; n < map.n; ++n) {
    for (int64_t t = 0; t < frames; ++t) {
      for (int64_t k = 0; k < map.c; ++k) {
        want.push_back(x[dense_at(map, n, k, std::min(t / ratio, map.t - 1), 0)]);
      }
    }
  }
  on_orders(
      cat("upsample by ", ratio, " to ", frames, " ", text(map)),
      [&] {
        Array in = pack(map, x), y(Run(std::ssize(want)));
        cuda::upsample(kLaunch, ratio, frames, map, in, y);
        return std::vector<Array>{y};
      },
      [&](const std::vector<Array>& o) { return same(o[0].floats(), want); });
}

// All 65,536 codes, in counts that do not fill a vector: correctly rounded quotients.
void samples() {
  std::vector<int16_t> codes;
  for (int code = -32768; code <= 32767; ++code) codes.push_back(static_cast<int16_t>(code));
  // The quotient of doubles first: with more than twice the digits, rounding twice is rounding
  // once.
  Floats want;
  for (int16_t code : codes) want.push_back(static_cast<float>(code / 32767.0));
  for (int64_t count : {65536, 65529, 7, 8, 1}) {
    on_orders(
        cat("widen_samples ", count),
        [&] {
          Array y{Run(count)};
          cuda::widen_samples(kLaunch, count, codes.data(), y);
          return std::vector<Array>{y};
        },
        [&](const std::vector<Array>& o) {
          return same(o[0].floats(), Floats(want.begin(), want.begin() + count));
        });
  }
  bool bits = true;
  for (size_t i = 0; i < codes.size(); ++i) {
    bits = bits && panns::backends::sample_of(codes[i]) == want[i];
  }
  tap::ok(bits, "samples: the same bits as on the other backends");
}

// import and export against pack and unpack, which know the layout on their own.
void convert(const Map& map) {
  const Floats x = random_map(map);
  on_orders(
      cat("import and export ", text(map)),
      [&] {
        Array rows(x), in(map), out(Run(dense_size(map)));
        cuda::import_map(kLaunch, map, rows, in.data());
        Array packed = pack(map, x);
        cuda::export_map(kLaunch, map, packed, out);
        return std::vector<Array>{in, out};
      },
      [&](const std::vector<Array>& o) {
        const bool packed = o[0].same_bits(pack(map, x));
        return packed ? same(o[1].floats(), x) : INFINITY;
      });
}

Array pack(const Filter& f, const Floats& rows, Storage type) {
  Array out(Floats(static_cast<size_t>(f.size()), 0.0f), type);
  size_t i = 0;
  for (int64_t o = 0; o < f.o; ++o)
    for (int64_t c = 0; c < f.i; ++c)
      for (int64_t t = 0; t < f.kt; ++t)
        for (int64_t k = 0; k < f.kf; ++k) out.put(f.at(o, c, t, k), rows[i++]);
  return out;
}

void filters(const Filter& f, Storage copy) {
  const int64_t row = f.i * f.kt * f.kf;
  const Floats w = normal(f.o * row), gamma = normal(f.o), beta = normal(f.o), mean = normal(f.o);
  const Floats var = uniform(f.o, 0.1, 2);
  const double eps = 1e-3;
  Doubles folded, bias;
  double terms = 0;  // of a bias, which may cancel
  for (int64_t o = 0; o < f.o; ++o) {
    const double s = gamma[o] / std::sqrt(var[o] + eps);
    for (int64_t i = 0; i < row; ++i) folded.push_back(w[o * row + i] * s);
    bias.push_back(beta[o] - mean[o] * s);
    terms = std::max(terms, std::fabs(beta[o]) + std::fabs(mean[o] * s));
  }
  on_orders(
      cat("filter ", f.o, "x", f.i, "x", f.kt, "x", f.kf, ": import, export, fold_batch_norm"),
      [&] {
        Array rows(w), in(Run(f.size())), out(Run(f.o * row)), back(Run(f.o * row));
        Array g(gamma), b(beta), m(mean), v(var), to(Run(f.size())), offset(Run(f.o));
        Array small(Run(f.size(), copy));
        cuda::import_filter(kLaunch, f, rows, in);
        cuda::export_filter(kLaunch, f, in, out);
        cuda::fold_batch_norm(
            kLaunch, f, eps,
            {in, g, b, m, v, to, offset, {copy, copy == Storage::fp32 ? nullptr : small.data()}});
        cuda::export_filter(kLaunch, f, to, back);
        return std::vector<Array>{in, out, to, back, offset, small};
      },
      [&](const std::vector<Array>& o) {
        const bool layout = o[0].same_bits(pack(f, w, Storage::fp32)) && o[1].floats() == w;
        // Padding included: the copy is of the whole layout.
        const bool copied = copy == Storage::fp32 || o[5].same_bits(Array(o[2].floats(), copy));
        // A zero of either sign is one.
        const bool padded = o[2].floats() == pack(f, o[3].floats(), Storage::fp32).floats();
        if (!layout || !copied || !padded) return double{INFINITY};
        // Five roundings of 6e-8.
        return std::max(excess(o[3].floats(), folded, Storage::fp32, 3e-7),
                        excess(o[4].floats(), bias, Storage::fp32, 3e-7, terms));
      });
}

void copies() {
  const Floats x = normal(527), samples = normal(3 * 1001);
  Floats want = x;
  want.resize(528, 0.0f);
  on_orders(
      "copy_padded and unsqueeze",
      [&] {
        Array in(x), out(Run(528)), wave(samples), map(Run(3 * 1001));
        cuda::copy_padded(kLaunch, 527, 528, in, out);
        cuda::unsqueeze(kLaunch, 3 * 1001, wave, map);
        return std::vector<Array>{out, map};
      },
      [&](const std::vector<Array>& o) {
        return std::max(same(o[0].floats(), want), same(o[1].floats(), samples));
      });
}

}  // namespace

int main() {
  for (Storage type : kStorages) {
    for (int64_t a : {1, 3, 17, 64}) {
      for (int64_t b : {1, 24, 64}) concat({2, a, 31, 3, type}, {2, b, 31, 3, type});
    }
    for (int64_t c : {3, 17, 24, 64}) {
      scale({3, c, 125, 4, type});
      convert({2, c, 31, 3, type});
    }
    scale({2, 527, 31, 1, type});
    fold({2, 4, 125, 32, type});
    fold({2, 1, 31, 24, type});
    fold({2, 17, 31, 3, type});
    fold({2, 5, 31, 1, type});
    attention_pool({3, 17, 31, 1, type});
    attention_pool({2, 527, 62, 1, type});
    upsample({2, 527, 31, 1, type}, 32, 1001);
    upsample({2, 3, 7, 1, type}, 8, 40);
    filters({64, 17, 3, 3}, type);
    filters({17, 1, 3, 3}, type);
  }
  scale({3, 1, 1001, 64});
  convert({2, 1, 125, 64});
  attention_pool({2, 1, 1001, 1});
  upsample({2, 1, 5, 1}, 3, 15);
  filters({527, 24, 1, 1}, Storage::bf16);
  filters({1, 3, 11, 1}, Storage::fp32);
  filters({64, 1, 1, 1}, Storage::fp32);
  copies();
  samples();
  return tap::done();
}
