// The CUDA kernels of activations, sums, casts and dropout, on the host; and the stand-in for CUDA
// itself: its 16-bit types, its barriers, and that it notices what it is there to notice.
#include "cuda_on_host.h"
// The kernels' sources after it.
#include "backends/cuda/activation.cu"
#include "backends/cuda/dropout.cu"
#include "cuda_values.h"

using namespace cuda_test;
namespace cuda = panns::cuda;

namespace {

using Forward = void (*)(const Launch&, const Run&, const void*, void*);
using Backward = void (*)(const Launch&, const Run&, const void*, const void*, void*);

struct Case {
  const char* name;
  Forward forward;
  Backward backward;
  double (*value)(double x);
  double (*slope)(double x);
  bool from_output;  // backward reads y, not x
};

double clamp6(double x) { return std::min(std::max(x, 0.0), 6.0); }
double logistic(double x) { return 1 / (1 + std::exp(-x)); }

const Case kCases[] = {
    {"relu", cuda::relu, cuda::relu_backward, [](double x) { return std::max(x, 0.0); },
     [](double x) { return x > 0 ? 1.0 : 0.0; }, true},
    {"relu6", cuda::relu6, cuda::relu6_backward, clamp6,
     [](double x) { return x > 0 && x < 6 ? 1.0 : 0.0; }, true},
    {"hard_swish", cuda::hard_swish, cuda::hard_swish_backward,
     [](double x) { return x * clamp6(x + 3) / 6; },
     [](double x) { return x <= -3  ? 0
                           : x >= 3 ? 1
                                    : (2 * x + 3) / 6; }, false},
};

void activation(const Case& c, const Run& run) {
  Floats x = rounded(run.type, normal(run.count, 0, 4));
  const Floats dy = rounded(run.type, normal(run.count));
  for (size_t i = 0; i + 8 < x.size(); i += 8) x[i] = std::round(x[i]);  // on the kinks, too
  Doubles want, want_dx;
  for (size_t i = 0; i < x.size(); ++i) {
    want.push_back(c.value(x[i]));
    // Backward from the output sees it rounded: a value just below 6 may have become 6.
    const double at = c.from_output ? round_to(run.type, static_cast<float>(want[i])) : x[i];
    want_dx.push_back(c.slope(at) * dy[i]);
  }
  on_orders(
      cat(c.name, " ", run.count, " ", text(run.type)),
      [&] {
        Array in(x, run.type), g(dy, run.type), y(run), dx(run);
        c.forward(kLaunch, run, in, y);
        c.backward(kLaunch, run, c.from_output ? y.data() : in.data(), g, dx);
        return std::vector<Array>{y, dx};
      },
      [&](const std::vector<Array>& o) {
        // Up to four roundings of 6e-8; a lone slope of hard_swish may cancel.
        return std::max(excess(o[0].floats(), want, run.type, 3e-7, 1),
                        excess(o[1].floats(), want_dx, run.type, 3e-7, 1));
      });
}

void sigmoid_map(const Map& map) {
  const Floats x = random_map(map, 0, 8), dy = random_map(map);
  Doubles want, want_dx;
  for (size_t i = 0; i < x.size(); ++i) {
    want.push_back(logistic(x[i]));
    const double y = round_to(map.storage(), static_cast<float>(want[i]));
    want_dx.push_back(dy[i] * y * (1 - y));
  }
  on_orders(
      cat("sigmoid ", text(map)),
      [&] {
        Array in = pack(map, x), g = pack(map, dy), y(map), dx(map);
        cuda::sigmoid(kLaunch, map, in, y.data());
        cuda::sigmoid_backward(kLaunch, map, y, g, dx);
        return std::vector<Array>{y, dx};
      },
      [&](const std::vector<Array>& o) {
        return std::max(excess(unpack(map, o[0]), want, map.storage(), 3e-7),
                        excess(unpack(map, o[1]), want_dx, map.storage(), 1e-6));
      });
}

void add(const Run& run) {
  const Floats a = rounded(run.type, normal(run.count)), b = rounded(run.type, normal(run.count));
  Doubles want;
  for (size_t i = 0; i < a.size(); ++i) want.push_back(double{a[i]} + b[i]);
  on_orders(
      cat("add ", run.count, " ", text(run.type)),
      [&] {
        Array u(a, run.type), v(b, run.type), y(run);
        cuda::add(kLaunch, run, u, v, y);
        return std::vector<Array>{y};
      },
      [&](const std::vector<Array>& o) { return excess(o[0].floats(), want, run.type, 1e-7); });
}

void casts(int64_t count, Storage from, Storage to) {
  const Floats x = rounded(from, normal(count, 0, 100));
  on_orders(
      cat("cast ", text(from), " to ", text(to)),
      [&] {
        Array in(x, from), out(Run(count, to));
        cuda::cast(kLaunch, count, from, in, to, out);
        return std::vector<Array>{out};
      },
      [&](const std::vector<Array>& o) {
        return o[0].same_bits(Array(rounded(to, x), to)) ? 0.0 : INFINITY;
      });
}

void dropout_map(const Map& map, float p) {
  const panns::backends::StepState state = random_state();
  const cuda::Dropout dropout{p, 7};
  Floats x = random_map(map);
  for (float& v : x) v += v == 0;  // what is kept shows
  Doubles want(x.size());
  each(map, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    const auto word = panns::random_word({state.seed, state.step, 7}, nhwc(map, n, c, t, f));
    const bool kept = word >= panns::drop_threshold(p);
    const size_t i = dense_at(map, n, c, t, f);
    want[i] = kept ? x[i] / (1 - double{p}) : 0;
  });
  on_orders(
      cat("dropout ", p, " ", text(map)),
      [&] {
        Array in = pack(map, x), y(map);
        cuda::dropout(kLaunch, dropout, map, &state, in, y.data());
        return std::vector<Array>{y};
      },
      [&](const std::vector<Array>& o) {
        return excess(unpack(map, o[0]), want, map.storage(), 2e-7);
      });
}

// An output may be the same array as an input.
void in_place() {
  const Map map{2, 17, 31, 3, Storage::bf16};
  const panns::backends::StepState state = random_state();
  const Floats x = random_map(map);
  Array apart(map), in = pack(map, x), same = in;
  cuda::dropout(kLaunch, {0.3f, 1}, map, &state, in, apart.data());
  cuda::dropout(kLaunch, {0.3f, 1}, map, &state, same, same.data());
  bool equal = same.same_bits(apart);
  cuda::hard_swish(kLaunch, map, in, apart);
  same = in;
  cuda::hard_swish(kLaunch, map, same, same);
  equal = equal && same.same_bits(apart);
  tap::ok(equal, "dropout and activations work in place");
}

void divisors() {
  bool right = true;
  for (int i = 0; i < 200000; ++i) {
    const uint32_t d = static_cast<uint32_t>(rng() >> (33 + rng() % 31)) + 1;
    if (d >= 1u << 31) continue;
    const uint32_t multiple = (0x7FFFFFFFu / d) * d, random = static_cast<uint32_t>(rng() >> 33);
    for (uint32_t x : {random, multiple, multiple - 1, d - 1, 0x7FFFFFFFu, 0u}) {
      const cuda::Division got = cuda::divide(x, cuda::Divisor(d));
      right = right && got.quotient == x / d && got.rest == x % d;
    }
  }
  tap::ok(right, "a Divisor divides all numbers below 2^31");
}

#if defined(__aarch64__)
using Half = __fp16;  // g++ 12 knows _Float16 on x86 alone
#else
using Half = _Float16;
#endif

// The stand-in's conversions against the compiler's own.
void sixteen_bits() {
  bool halves = true, bfloats = true, back = true;
  for (int i = 0; i < 200000; ++i) {
    const auto bits = static_cast<uint32_t>(rng());
    float x;
    std::memcpy(&x, &bits, 4);
    if (i % 2 == 0) x = static_cast<float>(std::ldexp(x > 0 ? 1.5 : -1.25, i % 45 - 28)) + x * 0;
    if (std::isnan(x)) continue;
    const auto compiled = static_cast<Half>(x);
    uint16_t code;
    std::memcpy(&code, &compiled, 2);
    halves = halves && code == __float2half_rn(x).bits;
    // bfloat16 is the upper half of a float; adding half its last place, less one where the
    // tie goes down, rounds it.
    uint32_t whole;
    std::memcpy(&whole, &x, 4);
    const uint32_t tie = 0x7FFF + (whole >> 16 & 1);
    bfloats = bfloats && __float2bfloat16_rn(x).bits == (whole + tie) >> 16;
  }
  for (uint32_t code = 0; code < 65536; ++code) {
    const float h = __half2float({static_cast<uint16_t>(code)});
    const float b = __bfloat162float({static_cast<uint16_t>(code)});
    if (!std::isnan(h)) back = back && __float2half_rn(h).bits == code;
    if (!std::isnan(b)) back = back && __float2bfloat16_rn(b).bits == code;
  }
  tap::ok(halves, "float to fp16 rounds as the compiler's");
  tap::ok(bfloats, "float to bf16 rounds to nearest, ties to even");
  tap::ok(back, "all 65536 codes come back from float");
}

// ---- what the stand-in must notice ----

__global__ void without_barrier(float* y) {
  float* values = cuda::shared_memory<float>();
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  y[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}
__global__ void with_barrier(float* y) {
  float* values = cuda::shared_memory<float>();
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  y[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}
__global__ void divergent() {
  if (threadIdx.x < 3) __syncthreads();
}
__global__ void early_exit() {
  if (threadIdx.x == 40) return;
  __syncthreads();
}
__global__ void warp_sums(float* y) {
  float x = static_cast<float>(threadIdx.x);
  for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(~0u, x, mask);
  y[threadIdx.x] = x;
}

void stand_in() {
  using cuda_on_host::Order;
  const auto launched = [](void (*kernel)(float*), Order order) {
    cuda_on_host::order = order;
    Array y(Run(64));
    cuda::enqueue(kLaunch, "test", kernel, {.x = 1, .threads = 64, .shared = 256},
                  static_cast<float*>(y));
    return y.floats();
  };
  const auto race = [&](void (*kernel)(float*)) {
    const Floats a = launched(kernel, Order::ascending), b = launched(kernel, Order::descending);
    return !test::same_bits(a, b);
  };
  tap::ok(race(without_barrier), "a missing barrier shows");
  tap::ok(!race(with_barrier) && launched(with_barrier, Order::shuffled)[63] == 0,
          "a barrier lets every thread see what all wrote");
  const auto launch_of = [](void (*kernel)()) {
    return [kernel] { cuda::enqueue(kLaunch, "test", kernel, {.x = 1, .threads = 64}); };
  };
  tap::ok(throws("ERR_TEST_BARRIER", launch_of(divergent)), "a barrier that few reach shows");
  tap::ok(throws("ERR_TEST_BARRIER", launch_of(early_exit)), "a thread that left shows");
  const Floats sums = launched(warp_sums, Order::shuffled);
  tap::ok(sums[0] == 496 && sums[31] == 496 && sums[32] == 1520, "shuffles stay within a warp");
}

}  // namespace

int main() {
  sixteen_bits();
  stand_in();
  divisors();
  in_place();
  for (Storage type : kStorages) {
    for (int64_t count : {5, 20000}) {
      for (const Case& c : kCases)
        activation(c, Run(type == Storage::fp32 ? count : count / 5 * 8, type));
    }
    for (int64_t c : {3, 17, 64, 527}) sigmoid_map({2, c, 31, 3, type});
    add(Run(24008, type));
    for (Storage to : kStorages) casts(1003, type, to);
    for (int64_t c : {3, 17, 24, 64, 527}) dropout_map({2, c, 31, 2, type}, 0.2f);
    dropout_map({2, 64, 5, 1, type}, 1e-7f);
  }
  sigmoid_map({2, 1, 125, 3});
  add(Run(1003));
  dropout_map({3, 1, 125, 5}, 0.5f);
  const float nan[] = {NAN, 1};
  float out[2] = {0, 0};
  cuda::relu(kLaunch, Run(2), nan, out);
  tap::ok(std::isnan(out[0]) && out[1] == 1, "relu lets NaN through");
  return tap::done();
}
