// Convolution against naive loops in double precision: every family, pass and tier over chosen and
// random shapes, outputs and workspace poisoned; and the same bits for 1, 2 and 3 threads.
#include "backends/cpu/conv.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "seed.h"
#include "tap.h"

using namespace panns;
using namespace panns::cpu;

namespace {

// Of the largest result. fp32 sums of up to some thousand products of unit size round to about
// 2^-24 * sqrt(terms) of it; a wrong tap or border is at least 1e-2 on these sizes.
constexpr double kTolerance = 3e-6;
// Winograd adds and cancels more, and its weight gradient sums thousands of tiles in one go: 5e-6
// on a map of 900 x 33, and 7e-6 on random shapes of few channels.
constexpr double kWinogradTolerance = 2e-5;

std::mt19937_64 random_bits(test::seed());

float uniform() { return std::uniform_real_distribution<float>(-1, 1)(random_bits); }
int64_t pick(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random_bits);
}

// A logical tensor (A, B, T, F): a map's (N, C, T, F) or a filter's (O, I, kT, kF).
struct Tensor {
  int64_t a, b, t, f;
  std::vector<double> v;

  Tensor(int64_t a, int64_t b, int64_t t, int64_t f)
      : a(a), b(b), t(t), f(f), v(static_cast<size_t>(a * b * t * f)) {}
  double& at(int64_t i, int64_t j, int64_t k, int64_t l) {
    return v[static_cast<size_t>(((i * b + j) * t + k) * f + l)];
  }
  Tensor& randomize() {
    for (double& x : v) x = uniform();
    return *this;
  }
  template <typename Layout>
  std::vector<float> pack(const Layout& layout) {
    std::vector<float> out(static_cast<size_t>(layout.size()), 0.0f);
    for (int64_t i = 0; i < a; ++i)
      for (int64_t j = 0; j < b; ++j)
        for (int64_t k = 0; k < t; ++k)
          for (int64_t l = 0; l < f; ++l)
            out[static_cast<size_t>(layout.at(i, j, k, l))] = static_cast<float>(at(i, j, k, l));
    return out;
  }
};

// Visits every product of the convolution: x (n, ci, ti, fi), w (o, i, kt, kf), y (n, o, to, fo).
template <typename Visit>
void each_product(const ConvShape& s, Visit visit) {
  const int64_t out_group = s.out_c / s.groups, in_group = s.in_c / s.groups;
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t o = 0; o < s.out_c; ++o)
      for (int64_t i = 0; i < in_group; ++i)
        for (int64_t kt = 0; kt < s.kernel_t; ++kt)
          for (int64_t kf = 0; kf < s.kernel_f; ++kf)
            for (int64_t to = 0; to < s.out_t(); ++to) {
              const int64_t ti = to * s.stride_t - s.pad_t + kt * s.dilation_t;
              if (ti < 0 || ti >= s.in_t) continue;
              for (int64_t fo = 0; fo < s.out_f(); ++fo) {
                const int64_t fi = fo * s.stride_f - s.pad_f + kf * s.dilation_f;
                if (fi < 0 || fi >= s.in_f) continue;
                visit(n, o, i, o / out_group * in_group + i, kt, kf, to, fo, ti, fi);
              }
            }
}

struct Case {
  ConvShape s;
  Tensor x, w, dy, y, dx, dw;
  double products = 0;

  explicit Case(const ConvShape& s)
      : s(s),
        x(s.n, s.in_c, s.in_t, s.in_f),
        w(s.out_c, s.in_c / s.groups, s.kernel_t, s.kernel_f),
        dy(s.n, s.out_c, s.out_t(), s.out_f()),
        y(s.n, s.out_c, s.out_t(), s.out_f()),
        dx(s.n, s.in_c, s.in_t, s.in_f),
        dw(s.out_c, s.in_c / s.groups, s.kernel_t, s.kernel_f) {
    x.randomize();
    w.randomize();
    dy.randomize();
    each_product(s, [&](int64_t n, int64_t o, int64_t i, int64_t c, int64_t kt, int64_t kf,
                        int64_t to, int64_t fo, int64_t ti, int64_t fi) {
      y.at(n, o, to, fo) += x.at(n, c, ti, fi) * w.at(o, i, kt, kf);
      dx.at(n, c, ti, fi) += dy.at(n, o, to, fo) * w.at(o, i, kt, kf);
      dw.at(o, i, kt, kf) += dy.at(n, o, to, fo) * x.at(n, c, ti, fi);
      ++products;
    });
  }
  // The deviation of a result: of a product of two numbers in [-1, 1) it is 1/3.
  double typical(const Tensor& result) const {
    return std::sqrt(products / static_cast<double>(result.v.size())) / 3;
  }
};

// 64-byte aligned, full of NaN.
class Poisoned {
 public:
  explicit Poisoned(int64_t floats) : data_(static_cast<size_t>(floats + 32)) {
    std::fill(data_.begin(), data_.end(), std::numeric_limits<float>::quiet_NaN());
    const auto at = reinterpret_cast<uintptr_t>(data_.data());
    start_ = data_.data() + ((64 - at % 64) % 64) / sizeof(float);
    end_ = start_ + floats;
  }
  float* get() { return start_; }
  bool untouched_beyond() const { return std::isnan(*end_); }

 private:
  std::vector<float> data_;
  float *start_, *end_;
};

struct Run {
  ConvAlgo algo;
  Tier tier;
  int threads = 1;
  bool frozen = false;
};

// Runs one pass; the bits of its whole output, padding included.
std::vector<float> compute(Case& c, ConvPass pass, const Run& run, const ConvEpilogue& epilogue,
                           std::string* complaint) {
  ThreadPool pool(run.threads);
  const Conv conv(c.s, pass, {run.algo, run.threads, run.frozen, run.tier});
  Poisoned workspace(static_cast<int64_t>(conv.workspace() / sizeof(float)));
  const int64_t step = epilogue.avg_pool_2x2 ? 2 : 1;
  const Map out{c.s.n, c.s.out_c, c.s.out_t() / step, c.s.out_f() / step};
  const auto w = c.w.pack(c.s.filter());
  Poisoned packed(static_cast<int64_t>(conv.packed_size() / sizeof(float)));
  const float* weights = w.data();
  if (conv.packed_size() > 0) {
    conv.prepare_weights(pool, w.data(), packed.get());
    weights = packed.get();
  }
  int64_t size = 0;
  std::vector<float> a, b;
  switch (pass) {
    case ConvPass::forward:
      size = out.size();
      break;
    case ConvPass::backward_data:
      size = c.s.in().size();
      break;
    default:
      size = c.s.filter().size();
  }
  Poisoned result(size);
  switch (pass) {
    case ConvPass::forward:
      a = c.x.pack(c.s.in());
      conv.forward(pool, a.data(), weights, result.get(), epilogue, workspace.get());
      break;
    case ConvPass::backward_data:
      a = c.dy.pack(c.s.out());
      conv.backward_data(pool, a.data(), weights, result.get(), workspace.get());
      break;
    default:
      a = c.x.pack(c.s.in());
      b = c.dy.pack(c.s.out());
      conv.backward_weight(pool, a.data(), b.data(), result.get(), workspace.get());
  }
  if (!workspace.untouched_beyond()) *complaint = "wrote beyond its workspace";
  if (!result.untouched_beyond()) *complaint = "wrote beyond its output";
  if (!packed.untouched_beyond()) *complaint = "wrote beyond its packed weight";
  return {result.get(), result.get() + size};
}

// Largest error over the largest value, or over a typical one: all of a few sums may cancel by
// chance. Infinite where a padding lane is not zero.
template <typename Layout>
double error(const std::vector<float>& got, Tensor& want, const Layout& layout, double typical) {
  std::vector<double> all(got.size(), 0.0);
  std::vector<char> real(got.size(), 0);
  double largest = typical, worst = 0;
  for (int64_t i = 0; i < want.a; ++i)
    for (int64_t j = 0; j < want.b; ++j)
      for (int64_t k = 0; k < want.t; ++k)
        for (int64_t l = 0; l < want.f; ++l) {
          const auto at = static_cast<size_t>(layout.at(i, j, k, l));
          all[at] = want.at(i, j, k, l);
          real[at] = 1;
          largest = std::max(largest, std::fabs(all[at]));
        }
  for (size_t i = 0; i < got.size(); ++i) {
    const double e = std::fabs(got[i] - all[i]);
    if (!real[i] && !(got[i] == 0)) return std::numeric_limits<double>::infinity();
    if (!(e <= worst)) worst = std::isnan(e) ? std::numeric_limits<double>::infinity() : e;
  }
  return largest > 0 ? worst / largest : worst;
}

Tensor with_epilogue(Case& c, const ConvEpilogue& e) {
  Tensor full = c.y;
  for (int64_t n = 0; n < full.a; ++n)
    for (int64_t o = 0; o < full.b; ++o)
      for (int64_t t = 0; t < full.t; ++t)
        for (int64_t f = 0; f < full.f; ++f) {
          double& v = full.at(n, o, t, f);
          if (e.bias != nullptr) v += e.bias[o];
          if (e.relu) v = std::max(v, 0.0);
        }
  if (!e.avg_pool_2x2) return full;
  Tensor pooled(full.a, full.b, full.t / 2, full.f / 2);
  for (int64_t n = 0; n < pooled.a; ++n)
    for (int64_t o = 0; o < pooled.b; ++o)
      for (int64_t t = 0; t < pooled.t; ++t)
        for (int64_t f = 0; f < pooled.f; ++f)
          for (int64_t d = 0; d < 4; ++d)
            pooled.at(n, o, t, f) += full.at(n, o, 2 * t + d / 2, 2 * f + d % 2) / 4;
  return pooled;
}

const char* name(ConvAlgo a) {
  return a == ConvAlgo::generic     ? "generic"
         : a == ConvAlgo::direct    ? "direct"
         : a == ConvAlgo::depthwise ? "depthwise"
         : a == ConvAlgo::winograd  ? "winograd"
                                    : "automatic";
}
const char* name(ConvPass p) {
  return p == ConvPass::forward         ? "forward"
         : p == ConvPass::backward_data ? "backward_data"
                                        : "backward_weight";
}
std::string name(const ConvShape& s) {
  return cat("n", s.n, " c", s.in_c, "-", s.out_c, " g", s.groups, " t", s.in_t, " f", s.in_f, " k",
             s.kernel_t, "x", s.kernel_f, " s", s.stride_t, "x", s.stride_f, " p", s.pad_t, "x",
             s.pad_f, " d", s.dilation_t, "x", s.dilation_f);
}

constexpr ConvPass kPasses[] = {ConvPass::forward, ConvPass::backward_data,
                                ConvPass::backward_weight};
constexpr ConvAlgo kAlgos[] = {ConvAlgo::automatic, ConvAlgo::generic, ConvAlgo::direct,
                               ConvAlgo::depthwise, ConvAlgo::winograd};

// The worst error of each (tier, family, pass) over all shapes, and where.
struct Tally {
  double worst = 0;
  int runs = 0;
  std::string where, complaint;
};

constexpr size_t kAlgoCount = std::size(kAlgos);
using Tallies = Tally[kAlgoCount][3];

void check_case(Case& c, Tier tier, Tallies& tally) {
  const ConvShape& s = c.s;
  for (size_t a = 0; a < kAlgoCount; ++a) {
    for (size_t p = 0; p < 3; ++p) {
      if (!Conv::supports(s, kPasses[p], kAlgos[a])) continue;
      for (const bool frozen : {false, true}) {
        if (frozen && kPasses[p] == ConvPass::backward_weight) continue;
        Tally& t = tally[a][p];
        std::string complaint;
        const auto got = compute(c, kPasses[p], {kAlgos[a], tier, 1, frozen}, {}, &complaint);
        const auto e_of = [&](Tensor& want, const auto& layout) {
          return error(got, want, layout, c.typical(want));
        };
        const double e = kPasses[p] == ConvPass::forward         ? e_of(c.y, s.out())
                         : kPasses[p] == ConvPass::backward_data ? e_of(c.dx, s.in())
                                                                 : e_of(c.dw, s.filter());
        ++t.runs;
        if (!(e <= t.worst)) {
          t.worst = e;
          t.where = name(s);
        }
        if (!complaint.empty()) t.complaint = complaint + " at " + name(s);
      }
    }
  }
}

ConvShape square(int64_t n, int64_t in_c, int64_t out_c, int64_t t, int64_t f, int64_t k) {
  return {.n = n,
          .in_c = in_c,
          .out_c = out_c,
          .in_t = t,
          .in_f = f,
          .kernel_t = k,
          .kernel_f = k,
          .pad_t = k / 2,
          .pad_f = k / 2};
}

ConvShape depthwise(int64_t n, int64_t c, int64_t t, int64_t f, int64_t k, int64_t stride) {
  ConvShape s = square(n, c, c, t, f, k);
  s.stride_t = s.stride_f = stride;
  s.groups = c;
  return s;
}

ConvShape wave(int64_t n, int64_t in_c, int64_t out_c, int64_t t, int64_t dilation) {
  return {.n = n,
          .in_c = in_c,
          .out_c = out_c,
          .in_t = t,
          .kernel_t = 3,
          .pad_t = dilation,
          .dilation_t = dilation};
}

std::vector<ConvShape> chosen_shapes() {
  std::vector<ConvShape> list;
  for (int64_t k : {1, 3, 5, 7}) {
    list.push_back(square(2, 32, 48, 13, 6, k));
    list.push_back(square(1, 20, 24, 9, 5, k));
    list.push_back(square(2, 1, 20, 31, 7, k));
    list.push_back(square(1, 24, 1, 11, 4, k));
  }
  list.push_back(square(1, 32, 32, 260, 3, 3));  // several tiles along time
  list.push_back(square(1, 64, 128, 62, 4, 3));
  list.push_back(square(3, 16, 256, 31, 2, 3));  // more out channels than pixels
  list.push_back(square(1, 128, 32, 200, 2, 5));
  list.push_back(square(2, 4, 4, 8, 8, 3));
  list.push_back(square(1, 1, 1, 9, 9, 3));
  list.push_back(square(1, 240, 248, 193, 3, 3));  // Winograd with a large weight, both tile sizes
  list.push_back(square(1, 300, 304, 10, 2, 3));
  list.push_back(square(1, 16, 16, 900, 33, 3));  // and with several chunks of tiles
  for (int64_t s : {2, 3}) {                      // strided, and the 1x1 shortcut beside it
    ConvShape a = square(2, 32, 20, 15, 9, 3);
    a.stride_t = a.stride_f = s;
    list.push_back(a);
    a.kernel_t = a.kernel_f = 1;
    a.pad_t = a.pad_f = 0;
    list.push_back(a);
  }
  // Wavegram: 1-d, first a long strided filter on the signal, then dilated ones.
  list.push_back({.n = 2,
                  .in_c = 1,
                  .out_c = 64,
                  .in_t = 700,
                  .in_f = 1,
                  .kernel_t = 11,
                  .kernel_f = 1,
                  .stride_t = 5,
                  .pad_t = 5});
  list.push_back({.n = 1,
                  .in_c = 64,
                  .out_c = 64,
                  .in_t = 333,
                  .in_f = 1,
                  .kernel_t = 3,
                  .kernel_f = 1,
                  .pad_t = 2,
                  .dilation_t = 2});
  list.push_back({.n = 2,
                  .in_c = 16,
                  .out_c = 32,
                  .in_t = 21,
                  .in_f = 6,
                  .kernel_t = 3,
                  .kernel_f = 3,
                  .stride_t = 2,
                  .stride_f = 1,
                  .pad_t = 4,
                  .pad_f = 2,
                  .dilation_t = 4,
                  .dilation_f = 2});
  for (int64_t c : {32, 20}) {  // depthwise, with and without stride
    ConvShape d = square(2, c, c, 14, 7, 3);
    d.groups = c;
    list.push_back(d);
    d.stride_t = d.stride_f = 2;
    list.push_back(d);
    d.out_c = 2 * c;
    list.push_back(d);
  }
  // Three taps along time, as Winograd computes them: dilations that leave tiles half outside.
  for (int64_t d : {1, 2, 3}) {
    for (int64_t t : {1, 2, 5, 24, 97}) list.push_back(wave(2, 32, 20, t, d));
    list.push_back(wave(1, 48, 64, 1003, d));
  }
  list.push_back(wave(1, 18, 32, 9000, 2));         // several chunks of tiles
  list.push_back(wave(1, 600, 590, 30, 1));         // a large weight
  list.push_back(depthwise(1, 24, 261, 19, 5, 1));  // several stretches of time, tasks of rows
  list.push_back(depthwise(3, 40, 259, 10, 5, 2));
  list.push_back(depthwise(2, 17, 130, 9, 3, 1));
  list.push_back(depthwise(1, 72, 31, 2, 3, 1));
  list.push_back(depthwise(2, 16, 1, 1, 3, 2));
  list.push_back(depthwise(2, 33, 18, 5, 2, 2));
  list.push_back(depthwise(70, 3, 9, 4, 4, 1));  // more tasks than partial gradients
  ConvShape g = square(1, 48, 24, 10, 5, 3);
  g.groups = 4;
  list.push_back(g);
  g.in_c = 64;
  g.out_c = 96;
  g.groups = 2;
  list.push_back(g);
  return list;
}

ConvShape random_shape() {
  constexpr int64_t kChannels[] = {1, 4, 16, 20, 24, 32, 48};
  for (;;) {
    ConvShape s{.n = pick(1, 3),
                .in_c = kChannels[pick(0, 6)],
                .out_c = kChannels[pick(0, 6)],
                .in_t = pick(1, 40),
                .in_f = pick(1, 9),
                .kernel_t = pick(1, 5),
                .kernel_f = pick(1, 5),
                .stride_t = pick(1, 3),
                .stride_f = pick(1, 3),
                .pad_t = pick(0, 3),
                .pad_f = pick(0, 3),
                .dilation_t = pick(1, 3),
                .dilation_f = pick(1, 2),
                .groups = 1};
    if (pick(0, 3) == 0) {
      for (int64_t g : {8, 4, 2}) {
        if (s.in_c % g == 0 && s.out_c % g == 0) s.groups = g;
      }
    } else if (pick(0, 3) == 0) {  // depthwise
      s.out_c = s.groups = s.in_c;
      s.dilation_t = 1;
    }
    if (pick(0, 2) == 0) {  // Winograd's own shapes
      s.kernel_t = s.kernel_f = pick(0, 1) == 0 ? 3 : 5;
      s.stride_t = s.stride_f = s.dilation_t = s.dilation_f = 1;
      s.pad_t = s.pad_f = s.kernel_t / 2;
    } else if (pick(0, 3) == 0) {
      s.kernel_t = 3;
      s.in_f = s.kernel_f = s.stride_t = s.stride_f = 1;
      s.pad_f = 0;
      s.pad_t = s.dilation_t;
    }
    if (s.in_t + 2 * s.pad_t > s.dilation_t * (s.kernel_t - 1) &&
        s.in_f + 2 * s.pad_f > s.dilation_f * (s.kernel_f - 1)) {
      return s;
    }
  }
}

std::vector<Tier> tiers() {
  std::vector<Tier> list;
  for (Tier t : {Tier::scalar, Tier::avx2, Tier::avx512}) {
    if (t <= tier()) list.push_back(t);
  }
  return list;
}

void test_shapes() {
  std::vector<ConvShape> shapes = chosen_shapes();
  for (int i = 0; i < 60; ++i) shapes.push_back(random_shape());
  const std::vector<Tier> all = tiers();
  std::vector<Tallies> tallies(all.size());
  for (const ConvShape& s : shapes) {
    Case c(s);
    for (size_t i = 0; i < all.size(); ++i) check_case(c, all[i], tallies[i]);
  }
  for (size_t i = 0; i < all.size(); ++i) {
    for (size_t a = 0; a < kAlgoCount; ++a) {
      for (size_t p = 0; p < 3; ++p) {
        const Tally& t = tallies[i][a][p];
        const bool winograd = kAlgos[a] == ConvAlgo::winograd || kAlgos[a] == ConvAlgo::automatic;
        const double limit = winograd ? kWinogradTolerance : kTolerance;
        tap::ok(t.runs > 0 && t.worst <= limit && t.complaint.empty(),
                cat(tier_name(all[i]), " ", name(kAlgos[a]), " ", name(kPasses[p]), ": ", t.runs,
                    " runs, worst ", t.worst, " of the largest, at ", t.where,
                    t.complaint.empty() ? "" : "; " + t.complaint));
      }
    }
  }
}

void test_epilogues() {
  std::vector<float> bias(300);
  for (float& b : bias) b = uniform();
  for (Tier tier : tiers()) {
    for (ConvAlgo algo : kAlgos) {
      double worst = 0;
      std::string complaint, where;
      for (const ConvShape& s :
           {square(2, 32, 48, 13, 7, 3), square(1, 20, 24, 9, 4, 3), square(2, 1, 20, 31, 6, 3),
            square(1, 16, 1, 8, 4, 3), square(1, 32, 256, 31, 2, 3), square(1, 32, 32, 263, 5, 3),
            square(1, 32, 40, 10, 10, 5), square(1, 16, 16, 1, 1, 3),
            depthwise(2, 24, 263, 11, 3, 1), wave(2, 32, 40, 200, 2),
            depthwise(1, 40, 21, 8, 5, 2)}) {
        if (!Conv::supports(s, ConvPass::forward, algo)) continue;
        Case c(s);
        for (int bits = 1; bits < 8; ++bits) {
          const ConvEpilogue e{(bits & 1) != 0 ? bias.data() : nullptr, (bits & 2) != 0,
                               (bits & 4) != 0};
          Tensor want = with_epilogue(c, e);
          const Map out{s.n, s.out_c, want.t, want.f};
          const bool frozen = (bits & 1) != 0;
          const auto got = compute(c, ConvPass::forward, {algo, tier, 1, frozen}, e, &complaint);
          const double err = error(got, want, out, c.typical(c.y));
          if (!(err <= worst)) {
            worst = err;
            where = name(s);
          }
        }
      }
      tap::ok(worst <= kWinogradTolerance && complaint.empty(),
              cat(tier_name(tier), " ", name(algo), " epilogues: worst ", worst, " at ", where, " ",
                  complaint));
    }
  }
}

void test_threads() {
  for (ConvAlgo algo : kAlgos) {
    bool equal = true;
    std::string complaint;
    for (const ConvShape& s :
         {square(2, 32, 64, 150, 6, 3), square(1, 64, 160, 31, 2, 3), square(2, 1, 32, 200, 9, 3),
          square(1, 48, 32, 40, 5, 5), wave(2, 32, 48, 700, 2), wave(1, 64, 64, 60, 1),
          depthwise(2, 40, 200, 18, 3, 1), depthwise(1, 24, 150, 9, 5, 2)}) {
      Case c(s);
      for (ConvPass pass : kPasses) {
        if (!Conv::supports(s, pass, algo)) continue;
        const auto one = compute(c, pass, {algo, tier(), 1, false}, {}, &complaint);
        for (int threads : {2, 3}) {
          const auto more = compute(c, pass, {algo, tier(), threads, false}, {}, &complaint);
          equal = equal && std::memcmp(one.data(), more.data(), one.size() * sizeof(float)) == 0;
        }
      }
    }
    tap::ok(equal && complaint.empty(), cat(name(algo), " gives the same bits on 1, 2, 3 threads"));
  }
}

bool throws(const char* code, const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code() == code;
  }
  return false;
}

void test_errors() {
  ConvShape small = square(1, 16, 16, 2, 2, 3);
  small.pad_t = small.pad_f = 0;
  ConvShape grouped = square(1, 16, 16, 8, 8, 3);
  grouped.groups = 3;
  const ConvShape seven = square(1, 16, 16, 8, 8, 7);
  const auto make = [](const ConvShape& s, ConvAlgo algo) {
    return [=] { Conv conv(s, ConvPass::forward, {.algo = algo}); };
  };
  tap::ok(throws("ERR_PANNS_SHAPE", make(small, ConvAlgo::automatic)),
          "a kernel that does not fit");
  tap::ok(throws("ERR_PANNS_SHAPE", make(grouped, ConvAlgo::automatic)),
          "groups that do not divide");
  tap::ok(throws("ERR_PANNS_UNSUPPORTED", make(seven, ConvAlgo::winograd)), "7x7 by Winograd");
}

}  // namespace

int main() {
  test_shapes();
  test_epilogues();
  test_threads();
  test_errors();
  return tap::done();
}
