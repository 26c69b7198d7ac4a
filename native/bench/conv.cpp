// Convolution speed, layer by layer: ms, GFLOP/s of the direct definition (so that Winograd may
// exceed the peak), GB/s of reading and writing each map and weight once, and per cent of the
// floor: the longer of the arithmetic at the FMA peak and a copy of as many bytes, both measured
// in the same run on the same threads.
//
//   conv [set] [batch] [threads] [ms for each line] [wall|cpu|serve|serve-cpu] [part of the title]
//
// Layers whose title lacks the part are left out. Sets: cnn14 cnn6 resnet54 mobilenet_v1
// mobilenet_v2 mobilenet_v3 wave. With "cpu" time is this process's CPU time over the number of
// threads: the figure to compare kernels by on a machine that others use too (with one thread;
// waiting threads count as well). With "serve" or "serve-cpu" it announces one layer and pass after
// another as JSON, and answers each line it is sent with the median ms of runs that fill the time,
// until the line "next": a peer can then be timed in turn.
#include "backends/cpu/conv.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iostream>
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
  int times = 1;        // how often the network has it
  bool pooled = false;  // an average over 2x2 follows
  bool first = false;   // nothing wants the gradient of its input
};
using Layers = std::vector<Layer>;

std::vector<Layer> cnn(int64_t kernel) {
  Layers list;
  int64_t t = 1001, f = 64, c = 1;
  const bool small = kernel == 5;
  for (int64_t out : {64, 128, 256, 512, 1024, 2048}) {
    if (small && out > 512) break;
    for (int i = 0; i < (small ? 1 : 2); ++i) {
      const bool last = small || i == 1;
      list.push_back({{.in_c = c,
                       .out_c = out,
                       .in_t = t,
                       .in_f = f,
                       .kernel_t = kernel,
                       .kernel_f = kernel,
                       .pad_t = kernel / 2,
                       .pad_f = kernel / 2},
                      1,
                      last && out != 2048});
      c = out;
    }
    t /= 2;
    f /= 2;
  }
  return list;
}

Layer dense(int64_t in, int64_t out, int64_t t, int64_t f, int64_t k, int times = 1,
            int64_t stride = 1) {
  return {{.in_c = in,
           .out_c = out,
           .in_t = t,
           .in_f = f,
           .kernel_t = k,
           .kernel_f = k,
           .stride_t = stride,
           .stride_f = stride,
           .pad_t = k / 2,
           .pad_f = k / 2},
          times};
}

Layer depthwise(int64_t c, int64_t t, int64_t f, int64_t k, int times = 1, int64_t stride = 1) {
  Layer layer = dense(c, c, t, f, k, times, stride);
  layer.shape.groups = c;
  return layer;
}

Layer wave(int64_t in, int64_t out, int64_t t, int64_t k, int64_t dilation = 1, int times = 1) {
  return {{.in_c = in,
           .out_c = out,
           .in_t = t,
           .kernel_t = k,
           .pad_t = k / 2 * dilation,
           .dilation_t = dilation},
          times};
}

Layer signal(int64_t t, int64_t k, int64_t stride, int64_t pad) {
  return {
      {.out_c = 64, .in_t = t, .kernel_t = k, .stride_t = stride, .pad_t = pad}, 1, false, true};
}

// A layer whose input needs no gradient.
Layer unwanted(Layer layer) {
  layer.first = true;
  return layer;
}

// The layers that take most of each network's time on a clip of 10 s at 32 kHz.
Layers layers(const std::string& set) {
  if (set == "cnn14") return cnn(3);
  if (set == "cnn6") return cnn(5);
  if (set == "resnet54") {
    return {dense(64, 64, 500, 32, 1, 1),   dense(64, 256, 500, 32, 1, 4),
            dense(256, 64, 500, 32, 1, 2),  dense(64, 64, 500, 32, 3, 3),
            dense(256, 128, 250, 16, 1),    dense(128, 512, 250, 16, 1, 4),
            dense(512, 128, 250, 16, 1, 3), dense(128, 128, 250, 16, 3, 4),
            dense(256, 1024, 125, 8, 1, 6), dense(1024, 256, 125, 8, 1, 5),
            dense(256, 256, 125, 8, 3, 6),  dense(512, 512, 62, 4, 3, 3),
            dense(512, 2048, 62, 4, 1, 3),  dense(2048, 512, 62, 4, 1, 2)};
  }
  if (set == "mobilenet_v1") {
    return {dense(1, 32, 1001, 64, 3),    depthwise(32, 500, 32, 3),  dense(32, 64, 500, 32, 1),
            depthwise(64, 500, 32, 3),    dense(64, 128, 250, 16, 1), depthwise(128, 250, 16, 3, 2),
            dense(128, 128, 250, 16, 1),  dense(128, 256, 125, 8, 1), depthwise(256, 125, 8, 3, 2),
            dense(256, 256, 125, 8, 1),   dense(256, 512, 62, 4, 1),  depthwise(512, 62, 4, 3, 6),
            dense(512, 512, 62, 4, 1, 5), dense(512, 1024, 31, 2, 1), depthwise(1024, 31, 2, 3),
            dense(1024, 1024, 31, 2, 1)};
  }
  if (set == "mobilenet_v2") {
    return {
        dense(1, 32, 1001, 64, 3),     depthwise(32, 500, 32, 3),     dense(32, 16, 500, 32, 1),
        dense(16, 96, 500, 32, 1),     depthwise(96, 500, 32, 3),     dense(96, 24, 250, 16, 1),
        dense(24, 144, 250, 16, 1, 2), depthwise(144, 250, 16, 3, 2), dense(144, 24, 250, 16, 1),
        dense(32, 192, 125, 8, 1, 3),  depthwise(192, 125, 8, 3, 3),  dense(192, 32, 125, 8, 1, 2),
        dense(64, 384, 62, 4, 1, 4),   depthwise(384, 62, 4, 3, 4),   dense(384, 64, 62, 4, 1, 3),
        dense(96, 576, 31, 2, 1, 3),   depthwise(576, 31, 2, 3, 3),   dense(160, 960, 31, 2, 1, 3),
        depthwise(960, 31, 2, 3, 3),   dense(320, 1280, 31, 2, 1)};
  }
  if (set == "mobilenet_v3") {
    return {unwanted(dense(1, 16, 1001, 128, 3, 1, 2)),
            depthwise(16, 501, 64, 3),
            dense(16, 16, 501, 64, 1),
            dense(16, 64, 501, 64, 1),
            depthwise(64, 501, 64, 3, 1, 2),
            dense(64, 24, 251, 32, 1),
            dense(24, 72, 251, 32, 1, 2),
            depthwise(72, 251, 32, 3),
            dense(72, 24, 251, 32, 1),
            depthwise(72, 251, 32, 5, 1, 2),
            dense(72, 40, 126, 16, 1),
            dense(40, 120, 126, 16, 1, 2),
            depthwise(120, 126, 16, 5, 2),
            dense(120, 40, 126, 16, 1, 2),
            dense(40, 240, 126, 16, 1),
            depthwise(240, 126, 16, 3, 1, 2),
            dense(80, 200, 63, 8, 1),
            depthwise(200, 63, 8, 3),
            depthwise(184, 63, 8, 3, 2),
            dense(184, 80, 63, 8, 1, 2),
            dense(112, 672, 63, 8, 1, 2),
            depthwise(672, 63, 8, 3),
            depthwise(672, 63, 8, 5, 1, 2),
            dense(672, 160, 32, 4, 1),
            dense(160, 960, 32, 4, 1, 3),
            depthwise(960, 32, 4, 5, 2),
            dense(960, 160, 32, 4, 1, 2)};
  }
  if (set == "wave") {
    return {signal(320000, 3, 3, 1),    signal(320000, 11, 5, 5),  signal(320000, 80, 4, 0),
            wave(64, 64, 64000, 3),     wave(64, 64, 64000, 3, 2), wave(64, 64, 16000, 3),
            wave(64, 64, 16000, 3, 2),  wave(64, 128, 16000, 3),   wave(128, 128, 4000, 3),
            wave(128, 128, 4000, 3, 2), wave(256, 256, 1317, 3),   wave(256, 256, 439, 3),
            wave(512, 512, 147, 3),     wave(512, 512, 49, 3),     wave(2048, 2048, 15, 3, 2),
            wave(64, 128, 16000, 1),    dense(4, 64, 1000, 32, 3)};
  }
  std::fprintf(stderr, "no set of layers named %s\n", set.c_str());
  std::exit(1);
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

struct Pass {
  ConvPass pass;
  const char* name;
  bool frozen;
};
// "inference": frozen weights, bias, ReLU and pool fused; the others as training runs them.
constexpr Pass kPasses[] = {{ConvPass::forward, "inference", true},
                            {ConvPass::forward, "forward", false},
                            {ConvPass::backward_data, "backward_data", false},
                            {ConvPass::backward_weight, "backward_weight", false}};

struct Family {
  ConvAlgo algo;
  const char* name;
};
constexpr Family kFamilies[] = {{ConvAlgo::generic, "generic"},
                                {ConvAlgo::direct, "direct"},
                                {ConvAlgo::depthwise, "depthwise"},
                                {ConvAlgo::winograd, "winograd"}};

const char* name_of(ConvAlgo algo) {
  for (const Family& family : kFamilies) {
    if (family.algo == algo) return family.name;
  }
  return "?";
}

double bytes_of(const ConvShape& s) {
  return 4.0 * static_cast<double>(s.in().size() + s.out().size() + s.filter().size());
}

// One layer's buffers, and a pass of it as a call.
class Bench {
 public:
  Bench(const Layer& layer, ThreadPool& pool)
      : layer_(layer),
        pool_(pool),
        x_(layer.shape.in().size() * 4),
        y_(layer.shape.out().size() * 4),
        w_(layer.shape.filter().size() * 4),
        dw_(layer.shape.filter().size() * 4) {}

  double run(const Pass& pass, ConvAlgo algo, double budget) {
    const Conv conv(layer_.shape, pass.pass, {algo, pool_.size(), pass.frozen, tier()});
    Buffer workspace(static_cast<int64_t>(conv.workspace()));
    Buffer packed(static_cast<int64_t>(conv.packed_size()));
    if (conv.packed_size() > 0) conv.prepare_weights(pool_, w_.get(), packed.get());
    const float* weights = conv.packed_size() > 0 ? packed.get() : w_.get();
    const ConvEpilogue epilogue =
        pass.frozen ? ConvEpilogue{w_.get(), true, layer_.pooled} : ConvEpilogue{};
    return median_ms(budget, [&] {
      switch (pass.pass) {
        case ConvPass::forward:
          return conv.forward(pool_, x_.get(), weights, y_.get(), epilogue, workspace.get());
        case ConvPass::backward_data:
          return conv.backward_data(pool_, y_.get(), weights, x_.get(), workspace.get());
        default:
          return conv.backward_weight(pool_, x_.get(), y_.get(), dw_.get(), workspace.get());
      }
    });
  }

  // Reads half of the layer's bytes and writes the other half.
  double copy_ms(double budget) {
    const auto half = static_cast<int64_t>(bytes_of(layer_.shape) / 2);
    Buffer from(half), to(half);
    constexpr int64_t kPiece = 1 << 16;
    return median_ms(budget, [&] {
      pool_.run((half + kPiece - 1) / kPiece, [&](int64_t i, int) {
        const int64_t at = i * kPiece;
        std::memcpy(reinterpret_cast<char*>(to.get()) + at,
                    reinterpret_cast<const char*>(from.get()) + at,
                    static_cast<size_t>(std::min(kPiece, half - at)));
      });
    });
  }

 private:
  const Layer& layer_;
  ThreadPool& pool_;
  Buffer x_, y_, w_, dw_;
};

bool wanted(const Layer& layer, const Pass& pass) {
  return !layer.first || pass.pass != ConvPass::backward_data;
}

std::string title(const ConvShape& s) {
  std::string name = std::to_string(s.in_c) + "-" + std::to_string(s.out_c) + " " +
                     std::to_string(s.in_t) + "x" + std::to_string(s.in_f) + " k" +
                     std::to_string(s.kernel_t);
  if (s.kernel_f != s.kernel_t) name += "x" + std::to_string(s.kernel_f);
  if (s.stride_t > 1) name += " s" + std::to_string(s.stride_t);
  if (s.dilation_t > 1) name += " d" + std::to_string(s.dilation_t);
  if (s.groups > 1) name += " dw";
  return name;
}

void serve(const Layers& list, ThreadPool& pool, double peak, double budget) {
  std::string line;
  for (const Layer& layer : list) {
    const ConvShape& s = layer.shape;
    Bench bench(layer, pool);
    for (const Pass& pass : kPasses) {
      if (pass.frozen || !wanted(layer, pass)) continue;
      const ConvAlgo algo = Conv(s, pass.pass).algo();
      std::printf(
          "{\"layer\":\"%s\",\"pass\":\"%s\",\"times\":%d,\"family\":\"%s\",\"gflop\":%.6f,"
          "\"mb\":%.4f,\"peak\":%.1f,\"copyMs\":%.4f,\"x\":[%d,%d,%d,%d],\"w\":[%d,%d,%d,%d],"
          "\"stride\":[%d,%d],\"pad\":[%d,%d],\"dilation\":[%d,%d],\"groups\":%d}\n",
          title(s).c_str(), pass.name, layer.times, name_of(algo), s.flops() * 1e-9,
          bytes_of(s) * 1e-6, peak, bench.copy_ms(budget), int(s.n), int(s.in_c), int(s.in_t),
          int(s.in_f), int(s.out_c), int(s.in_c / s.groups), int(s.kernel_t), int(s.kernel_f),
          int(s.stride_t), int(s.stride_f), int(s.pad_t), int(s.pad_f), int(s.dilation_t),
          int(s.dilation_f), int(s.groups));
      std::fflush(stdout);
      while (std::getline(std::cin, line) && line != "next") {
        std::printf("%.5f\n", bench.run(pass, ConvAlgo::automatic, budget));
        std::fflush(stdout);
      }
    }
  }
}

void table(const Layers& list, ThreadPool& pool, double peak, double budget) {
  std::printf("%-26s %-16s %-9s %9s %8s %7s %7s\n", "layer", "pass", "family", "ms", "GFLOP/s",
              "GB/s", "% floor");
  double sum[4] = {}, floors[4] = {};
  for (const Layer& layer : list) {
    const ConvShape& s = layer.shape;
    Bench bench(layer, pool);
    const double floor =
        std::max(peak > 0 ? s.flops() / peak * 1e-6 : 0, bench.copy_ms(budget / 4));
    for (size_t p = 0; p < 4; ++p) {
      const Pass& pass = kPasses[p];
      if (!wanted(layer, pass)) continue;
      const ConvAlgo automatic = Conv(s, pass.pass).algo();
      for (const Family& family : kFamilies) {
        if (!Conv::supports(s, pass.pass, family.algo)) continue;
        if (family.algo == ConvAlgo::generic && automatic != ConvAlgo::generic) continue;
        const double ms = bench.run(pass, family.algo, budget);
        std::printf("%-26s %-16s %-9s %9.3f %8.1f %7.1f %6.1f%%%s\n", title(s).c_str(), pass.name,
                    family.name, ms, s.flops() / ms * 1e-6, bytes_of(s) / ms * 1e-6,
                    100 * floor / ms, automatic == family.algo ? " *" : "");
        std::fflush(stdout);
        if (automatic == family.algo) {
          sum[p] += ms * layer.times;
          floors[p] += floor * layer.times;
        }
      }
    }
  }
  for (size_t p = 0; p < 4; ++p) {
    std::printf("all layers as often as the network has them, %-16s %9.2f ms, %6.1f%% of floor\n",
                kPasses[p].name, sum[p], 100 * floors[p] / sum[p]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string set = argc > 1 ? argv[1] : "cnn14";
  const int64_t batch = argc > 2 ? std::atoll(argv[2]) : 1;
  ThreadPool pool(argc > 3 ? std::atoi(argv[3]) : 0);
  const double budget = argc > 4 ? std::atof(argv[4]) : 200;
  const std::string mode = argc > 5 ? argv[5] : "wall";
  cpu_time = mode == "cpu" || mode == "serve-cpu";
  thread_count = pool.size();
  const std::string part = argc > 6 ? argv[6] : "";
  Layers list = layers(set);
  std::erase_if(
      list, [&](const Layer& layer) { return title(layer.shape).find(part) == std::string::npos; });
  for (Layer& layer : list) layer.shape.n = batch;
  const double peak = fma_peak(pool);
  if (mode == "serve" || mode == "serve-cpu") {
    serve(list, pool, peak, budget);
    return 0;
  }
  std::printf("%s, batch %lld, %d threads, tier %s, FMA peak %.1f GFLOP/s\n", set.c_str(),
              static_cast<long long>(batch), pool.size(), tier_name(tier()), peak);
  table(list, pool, peak, budget);
  return 0;
}
