// Convolution speed, layer by layer: ms, GFLOP/s of the direct definition (so that Winograd may
// exceed the peak), and per cent of the FMA peak measured just before on the same threads.
//
//   conv [cnn14|cnn6] [batch] [threads] [ms for each line] [wall|cpu]
//
// With "cpu" time is this process's CPU time over the number of threads: the figure to compare
// kernels by on a machine that others use too (with one thread; waiting threads count as well).
#include "backends/cpu/conv.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

using namespace panns;
using namespace panns::cpu;

namespace {

bool cpu_time = false;
int thread_count = 1;

double seconds() {
  if (cpu_time) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC / thread_count;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

#if defined(__x86_64__)
// 12 independent chains of fused multiply-adds: enough for two units of latency four.
__attribute__((target("avx2,fma"))) void fma_loop_avx2(int64_t count) {
  __m256 a[12];
  for (__m256& v : a) v = _mm256_set1_ps(1.0f);
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
  for (int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) a[j] = _mm256_fmadd_ps(a[j], x, y);
  }
#pragma GCC unroll 12
  for (int j = 0; j < 12; ++j) asm volatile("" ::"x"(a[j]));
}
__attribute__((target("avx512f"))) void fma_loop_avx512(int64_t count) {
  __m512 a[12];
  for (__m512& v : a) v = _mm512_set1_ps(1.0f);
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
  for (int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) a[j] = _mm512_fmadd_ps(a[j], x, y);
  }
#pragma GCC unroll 12
  for (int j = 0; j < 12; ++j) asm volatile("" ::"v"(a[j]));
}
#endif

// Best of some short runs, GFLOP/s of the whole pool; 0 where there is no fused multiply-add.
double fma_peak(ThreadPool& pool) {
#if defined(__x86_64__)
  if (tier() == Tier::scalar) return 0;
  const bool wide = tier() == Tier::avx512;
  constexpr int64_t kCount = 1 << 20;
  double best = 0;
  for (int rep = 0; rep < 40; ++rep) {
    const double start = seconds();
    pool.run(pool.size(),
             [&](int64_t, int) { wide ? fma_loop_avx512(kCount) : fma_loop_avx2(kCount); });
    const double flops = 2.0 * 12 * (wide ? 16 : 8) * kCount * pool.size();
    best = std::max(best, flops / (seconds() - start) * 1e-9);
  }
  return best;
#else
  return 0;
#endif
}

// 2 MB pages where the system gives them, as the program's arena has: otherwise a large layer
// spends its time in page walks.
class Buffer {
 public:
  explicit Buffer(int64_t bytes) {
    constexpr size_t kPage = size_t{2} << 20;
    const size_t size = (static_cast<size_t>(bytes) + kPage) / kPage * kPage;
    data_ = static_cast<float*>(std::aligned_alloc(kPage, size));
#if defined(__linux__)
    madvise(data_, size, MADV_HUGEPAGE);
#endif
    std::minstd_rand random(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    float pattern[1021];
    for (float& v : pattern) v = uniform(random);
    for (size_t i = 0; i < size / sizeof(float); ++i) data_[i] = pattern[i % 1021];
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  float* get() { return data_; }

 private:
  float* data_;
};

struct Layer {
  ConvShape shape;
  bool pooled;
};

std::vector<Layer> layers(const std::string& net, int64_t batch) {
  std::vector<Layer> list;
  int64_t t = 1001, f = 64, c = 1;
  const bool small = net == "cnn6";
  const int64_t kernel = small ? 5 : 3;
  for (int64_t out : {64, 128, 256, 512, 1024, 2048}) {
    if (small && out > 512) break;
    for (int i = 0; i < (small ? 1 : 2); ++i) {
      const bool last = small || i == 1;
      list.push_back({{.n = batch,
                       .in_c = c,
                       .out_c = out,
                       .in_t = t,
                       .in_f = f,
                       .kernel_t = kernel,
                       .kernel_f = kernel,
                       .pad_t = kernel / 2,
                       .pad_f = kernel / 2},
                      last && out != 2048});
      c = out;
    }
    t /= 2;
    f /= 2;
  }
  return list;
}

// Median ms of runs that fill `budget` ms, three at least.
template <typename F>
double median_ms(double budget, F&& f) {
  f();
  std::vector<double> times;
  const double start = seconds();
  while (times.size() < 3 || (seconds() - start) * 1e3 < budget) {
    const double t = seconds();
    f();
    times.push_back((seconds() - t) * 1e3);
  }
  std::nth_element(times.begin(), times.begin() + static_cast<long>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const std::string net = argc > 1 ? argv[1] : "cnn14";
  const int64_t batch = argc > 2 ? std::atoll(argv[2]) : 1;
  ThreadPool pool(argc > 3 ? std::atoi(argv[3]) : 0);
  const double budget = argc > 4 ? std::atof(argv[4]) : 200;
  cpu_time = argc > 5 && std::string(argv[5]) == "cpu";
  thread_count = pool.size();
  const double peak = fma_peak(pool);
  std::printf("%s, batch %lld, %d threads, tier %s, FMA peak %.1f GFLOP/s\n", net.c_str(),
              static_cast<long long>(batch), pool.size(), tier_name(tier()), peak);
  std::printf("%-22s %-16s %-9s %9s %8s %7s\n", "layer", "pass", "family", "ms", "GFLOP/s",
              "% peak");
  struct Family {
    ConvAlgo algo;
    const char* name;
  };
  struct Pass {
    ConvPass pass;
    const char* name;
    bool frozen;
  };
  // "inference": frozen weights, bias, ReLU and pool fused; the others as training runs them.
  const Pass passes[] = {{ConvPass::forward, "inference", true},
                         {ConvPass::forward, "forward", false},
                         {ConvPass::backward_data, "backward_data", false},
                         {ConvPass::backward_weight, "backward_weight", false}};
  const Family families[] = {{ConvAlgo::direct, "direct"}, {ConvAlgo::winograd, "winograd"}};
  double best_sum[4] = {}, automatic_sum[4] = {}, flops = 0;
  for (const Layer& layer : layers(net, batch)) {
    const ConvShape& s = layer.shape;
    flops += s.flops();
    Buffer x(s.in().size() * 4), y(s.out().size() * 4), w(s.filter().size() * 4);
    Buffer dw(s.filter().size() * 4);
    for (size_t p = 0; p < 4; ++p) {
      const Pass& pass = passes[p];
      const ConvAlgo automatic = Conv(s, pass.pass).algo();
      double best = 0;
      for (const Family& family : families) {
        if (!Conv::supports(s, pass.pass, family.algo)) continue;
        const Conv conv(s, pass.pass, {family.algo, pool.size(), pass.frozen, tier()});
        Buffer workspace(static_cast<int64_t>(conv.workspace()));
        Buffer packed(static_cast<int64_t>(conv.packed_size()));
        if (conv.packed_size() > 0) conv.prepare_weights(pool, w.get(), packed.get());
        const float* weights = conv.packed_size() > 0 ? packed.get() : w.get();
        const ConvEpilogue epilogue =
            pass.frozen ? ConvEpilogue{w.get(), true, layer.pooled} : ConvEpilogue{};
        const double ms = median_ms(budget, [&] {
          switch (pass.pass) {
            case ConvPass::forward:
              return conv.forward(pool, x.get(), weights, y.get(), epilogue, workspace.get());
            case ConvPass::backward_data:
              return conv.backward_data(pool, y.get(), weights, x.get(), workspace.get());
            default:
              return conv.backward_weight(pool, x.get(), y.get(), dw.get(), workspace.get());
          }
        });
        const double rate = s.flops() / ms * 1e-6;
        const std::string name = std::to_string(s.in_c) + "-" + std::to_string(s.out_c) + " " +
                                 std::to_string(s.in_t) + "x" + std::to_string(s.in_f);
        std::printf("%-22s %-16s %-9s %9.3f %8.1f %6.1f%%%s\n", name.c_str(), pass.name,
                    family.name, ms, rate, peak > 0 ? 100 * rate / peak : 0.0,
                    automatic == family.algo ? " *" : "");
        std::fflush(stdout);
        if (best == 0 || ms < best) best = ms;
        if (automatic == family.algo) automatic_sum[p] += ms;
      }
      best_sum[p] += best;
    }
  }
  for (size_t p = 0; p < 4; ++p) {
    std::printf("all layers, %-16s automatic (*) %9.2f ms, best family %9.2f ms, %6.1f%% of peak\n",
                passes[p].name, automatic_sum[p], best_sum[p],
                peak > 0 ? 100 * flops / best_sum[p] * 1e-6 / peak : 0.0);
  }
  return 0;
}
