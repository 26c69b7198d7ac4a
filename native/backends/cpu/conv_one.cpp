#include "backends/cpu/conv_one.h"

#include <algorithm>

#include "backends/cpu/conv_runner.h"

namespace panns::cpu {
namespace {

// Frames of a piece of work: the rows of dy that five neighbouring rows of dx share (64 channels,
// 160 KB) then stay in the L2 cache while frequency runs.
constexpr int64_t kPiece = 128;

// More taps than this in frequency would not fit the row list; generic takes such a kernel.
constexpr int64_t kMostRows = 64;

class OneRunner final : public ConvRunner {
 public:
  OneRunner(const ConvShape& shape, const ConvOptions& options)
      : shape_(shape), kernels_(conv_one_kernels(options.tier)) {}
  int64_t workspace() const override { return 0; }

  void run(ThreadPool& pool, const float* dy, const float* w, float* dx, const ConvEpilogue&,
           float*) const override {
    const ConvShape& s = shape_;
    const Map in = s.in(), out = s.out();
    const Filter filter = s.filter();
    const int64_t pieces = div_up(s.in_t, kPiece);
    pool.run(s.n * pieces * s.in_f, [&](int64_t index, int) {
      const int64_t f = index % s.in_f, piece = index / s.in_f % pieces,
                    n = index / s.in_f / pieces;
      ConvOneRow rows[kMostRows];
      ConvOne c;
      c.rows = rows;
      c.row_count = 0;
      for (int64_t k = 0; k < s.kernel_f; ++k) {
        const int64_t from = f + s.pad_f - k;
        if (from < 0 || from >= out.f) continue;
        rows[c.row_count++] = {dy + out.at(n, 0, 0, from), w + filter.at(0, 0, 0, k)};
      }
      c.blocks = out.blocks();
      c.dy_block = out.panel();
      c.w_block = filter.kt * filter.kf * filter.tap();
      c.kernel_t = s.kernel_t;
      c.pad_t = s.pad_t;
      c.out_t = out.t;
      c.dx = dx + in.at(n, 0, 0, f);
      c.begin = piece * kPiece;
      c.end = std::min(s.in_t, c.begin + kPiece);
      kernels_.run(c);
    });
  }

 private:
  ConvShape shape_;
  const ConvOneKernels& kernels_;
};

}  // namespace

bool one_conv_supports(const ConvShape& s) {
  return s.groups == 1 && s.in_c == 1 && s.out_c > 1 && s.stride_t == 1 && s.stride_f == 1 &&
         s.dilation_t == 1 && s.dilation_f == 1 && s.kernel_f <= kMostRows;
}

std::unique_ptr<ConvRunner> make_one_conv(const ConvShape& shape, const ConvOptions& options) {
  return std::make_unique<OneRunner>(shape, options);
}

}  // namespace panns::cpu
