// Depthwise convolutions: bound by memory, so that all the kernel's rows of a short stretch of time
// pass through the first-level cache together, and nothing is copied.
#include "backends/cpu/conv_depthwise.h"

#include <algorithm>

#include "backends/cpu/conv_kernels.h"
#include "backends/cpu/conv_plan.h"
#include "backends/cpu/conv_runner.h"

namespace panns::cpu {
namespace {

// A stretch of time: its rows of 8 KB, three or five of them, stay in the first-level cache while
// frequency runs. Even, so that no 2x2 average crosses stretches.
constexpr int64_t kStretch = 128;
// Rows of the destination that one task computes: enough that the rows two tasks share are few.
constexpr int64_t kTaskRows = 8;
// Partial gradients for one block of channels, at most: enough for many threads, and to keep the
// sums short.
constexpr int64_t kMostPartials = 64;

// The tasks that cut a map of rows x pixels, all blocks: blocks run fastest but for time, as in
// memory.
struct Tasks {
  int64_t n, blocks, rows, pixels;
  int64_t row_tasks, stretches;

  Tasks(int64_t n, int64_t blocks, int64_t rows, int64_t pixels)
      : n(n),
        blocks(blocks),
        rows(rows),
        pixels(pixels),
        row_tasks(div_up(rows, kTaskRows)),
        stretches(div_up(pixels, kStretch)) {}

  struct Task {
    int64_t n, block, f0, f1, p0, p1;
  };
  int64_t per_block() const { return n * row_tasks * stretches; }
  Task of_block(int64_t index, int64_t block) const {
    const int64_t p0 = index % stretches * kStretch;
    const int64_t f0 = index / stretches % row_tasks * kTaskRows;
    return {index / stretches / row_tasks,  block, f0,
            std::min(f0 + kTaskRows, rows), p0,    std::min(p0 + kStretch, pixels)};
  }
  int64_t count() const { return per_block() * blocks; }
  Task task(int64_t index) const {
    const int64_t stretch = index % stretches, block = index / stretches % blocks;
    return of_block(index / stretches / blocks * stretches + stretch, block);
  }
};

class DepthwiseConv final : public ConvRunner {
 public:
  DepthwiseConv(const ConvShape& s, ConvPass pass, const ConvOptions& options)
      : k_(depthwise_kernels(options.tier)),
        finish_(conv_kernels(options.tier).finish),
        src_(pass == ConvPass::forward ? s.in() : s.out()),
        dst_(pass == ConvPass::forward ? s.out() : s.in()),
        w_(s.filter()),
        tasks_(0, 0, 0, 0) {
    const auto axis = pass == ConvPass::forward ? forward_axis : backward_axis;
    f_ = axis(s.in_f, s.out_f(), s.kernel_f, s.stride_f, s.pad_f, s.dilation_f);
    t_ = axis(s.in_t, s.out_t(), s.kernel_t, s.stride_t, s.pad_t, s.dilation_t);
    tasks_ = Tasks(dst_.n, dst_.blocks(), dst_.f, t_.count());
    Carve all;
    bias_at_ = all.take(dst_.blocks() * kChannelBlock);
    slots_at_ = all.size();
    floats_ = slots_at_ + 2 * kRow * std::max(1, options.threads);
  }

  int64_t workspace() const override { return floats_; }

  void run(ThreadPool& pool, const float* src, const float* w, float* dst,
           const ConvEpilogue& epilogue, float* workspace) const override {
    float* const bias = workspace + bias_at_;
    std::fill_n(bias, dst_.blocks() * kChannelBlock, 0.0f);
    if (epilogue.bias != nullptr) std::copy_n(epilogue.bias, dst_.c, bias);
    pool.run(tasks_.count(), [&](int64_t index, int slot) {
      const Tasks::Task task = tasks_.task(index);
      if (epilogue.avg_pool_2x2) {
        pooled(task, src, w, dst, bias, epilogue.relu, workspace + slots_at_ + slot * 2 * kRow);
        return;
      }
      for (int64_t f = task.f0; f < task.f1; ++f) {
        row(task, f, src, w, bias + task.block * kChannelBlock, epilogue.relu,
            dst + dst_.at(task.n, task.block * kChannelBlock, task.p0 * t_.phases, f));
      }
    });
  }

 private:
  static constexpr int64_t kRow = kStretch * kChannelBlock;

  // One row of the destination, all phases, to y.
  void row(const Tasks::Task& task, int64_t f, const float* src, const float* w, const float* start,
           bool relu, float* y) const {
    const int64_t phase_f = f % f_.phases, q = f / f_.phases;
    const float* const weights = w + task.block * w_.kt * w_.kf * kChannelBlock;
    int64_t a, b;
    f_.valid(phase_f, q, &a, &b);
    DepthwiseGather g;
    g.step = t_.step;
    g.length = src_.t;
    g.y_pixel = t_.phases * kChannelBlock;
    g.start = start;
    g.relu = relu;
    for (int64_t phase = 0; phase < t_.phases; ++phase) {
      const auto& taps = t_.taps[static_cast<size_t>(phase)];
      g.pixels = t_.inside(phase, task.p0, task.p1);
      if (g.pixels <= 0) continue;
      g.rows = g.at = g.w_tap = 0;
      g.taps = 1;
      if (!taps.empty()) {
        g.taps = static_cast<int64_t>(taps.size());
        g.w_tap = g.taps > 1 ? (taps[1].k - taps[0].k) * kChannelBlock : 0;
        g.at = task.p0 * t_.step + taps[0].offset;
        for (int64_t i = a; i < b; ++i) {
          const AxisTap& tap = f_.taps[static_cast<size_t>(phase_f)][static_cast<size_t>(i)];
          g.x[g.rows] =
              src + src_.at(task.n, task.block * kChannelBlock, 0, q * f_.step + tap.offset);
          g.w[g.rows] = weights + (tap.k * w_.kt + taps[0].k) * kChannelBlock;
          ++g.rows;
        }
      }
      g.y = y + phase * kChannelBlock;
      k_.gather(g);
    }
  }

  void pooled(const Tasks::Task& task, const float* src, const float* w, float* dst,
              const float* bias, bool relu, float* rows) const {
    const Map out{dst_.n, dst_.c, dst_.t / 2, dst_.f / 2};
    ConvFinish finish{};
    finish.a = rows;
    finish.a_row = kRow;
    finish.rows = 2;
    finish.pixels = task.p1 - task.p0;
    finish.bias = bias + task.block * kChannelBlock;
    finish.relu = relu;
    finish.pool = true;
    alignas(64) constexpr float kZeros[kChannelBlock] = {};
    for (int64_t f = task.f0; f + 1 < task.f1; f += 2) {
      for (int64_t i = 0; i < 2; ++i) row(task, f + i, src, w, kZeros, false, rows + i * kRow);
      finish.y = dst + out.at(task.n, task.block * kChannelBlock, task.p0 / 2, f / 2);
      finish_(finish);
    }
  }

  const DepthwiseKernels& k_;
  void (*finish_)(const ConvFinish&);
  Map src_, dst_;
  Filter w_;
  GatherAxis f_, t_;
  Tasks tasks_;
  int64_t bias_at_, slots_at_, floats_;
};

// The tasks of one block are cut into chunks, both fixed by the shape; each chunk makes a partial
// gradient, added in order.
class DepthwiseWeightConv final : public ConvRunner {
 public:
  DepthwiseWeightConv(const ConvShape& s, const ConvOptions& options)
      : s_(s),
        k_(depthwise_kernels(options.tier)),
        add_(conv_kernels(options.tier).add),
        x_(s.in()),
        y_(s.out()),
        cell_(s.kernel_t * s.kernel_f * kChannelBlock),
        f_(forward_axis(s.in_f, s.out_f(), s.kernel_f, s.stride_f, s.pad_f, s.dilation_f)),
        tasks_(y_.n, y_.blocks(), y_.f, y_.t),
        chunks_(std::min(tasks_.per_block(), kMostPartials)) {}

  int64_t workspace() const override { return chunks_ * y_.blocks() * cell_; }

  void run(ThreadPool& pool, const float* x, const float* dy, float* dw, const ConvEpilogue&,
           float* workspace) const override {
    const int64_t blocks = y_.blocks();
    pool.run(chunks_ * blocks, [&](int64_t index, int) {
      const int64_t chunk = index / blocks, block = index % blocks;
      float* const to = workspace + index * cell_;
      std::fill_n(to, cell_, 0.0f);
      const int64_t end = (chunk + 1) * tasks_.per_block() / chunks_;
      for (int64_t i = chunk * tasks_.per_block() / chunks_; i < end; ++i) {
        add_task(tasks_.of_block(i, block), x, dy, to);
      }
    });
    pool.run(blocks, [&](int64_t block, int) {
      float* const to = dw + block * cell_;
      std::copy_n(workspace + block * cell_, cell_, to);
      for (int64_t chunk = 1; chunk < chunks_; ++chunk) {
        add_(to, workspace + (chunk * blocks + block) * cell_, cell_);
      }
    });
  }

 private:
  void add_task(const Tasks::Task& task, const float* x, const float* dy, float* dw) const {
    const int64_t c = task.block * kChannelBlock;
    DepthwiseWeight g;
    g.taps = s_.kernel_t;
    g.at = task.p0 * s_.stride_t - s_.pad_t;
    g.step = s_.stride_t;
    g.length = x_.t;
    g.pixels = task.p1 - task.p0;
    for (int64_t f = task.f0; f < task.f1; ++f) {
      int64_t a, b;
      f_.valid(0, f, &a, &b);
      g.rows = 0;
      for (int64_t i = a; i < b; ++i) {
        const AxisTap& tap = f_.taps[0][static_cast<size_t>(i)];
        g.x[g.rows] = x + x_.at(task.n, c, 0, f * s_.stride_f + tap.offset);
        g.dw[g.rows] = dw + tap.k * s_.kernel_t * kChannelBlock;
        ++g.rows;
      }
      g.dy = dy + y_.at(task.n, c, task.p0, f);
      k_.weight(g);
    }
  }

  ConvShape s_;
  const DepthwiseKernels& k_;
  void (*add_)(float* to, const float* from, int64_t count);
  Map x_, y_;
  int64_t cell_;
  GatherAxis f_;
  Tasks tasks_;
  int64_t chunks_;
};

}  // namespace

bool depthwise_conv_supports(const ConvShape& s) {
  return s.groups > 1 && s.groups == s.in_c && s.groups == s.out_c &&
         s.kernel_t <= kDepthwiseTaps && s.kernel_f <= kDepthwiseRows && s.stride_t <= 2 &&
         s.dilation_t == 1;
}

std::unique_ptr<ConvRunner> make_depthwise_conv(const ConvShape& shape, ConvPass pass,
                                                const ConvOptions& options) {
  if (pass == ConvPass::backward_weight) {
    return std::make_unique<DepthwiseWeightConv>(shape, options);
  }
  return std::make_unique<DepthwiseConv>(shape, pass, options);
}

}  // namespace panns::cpu
