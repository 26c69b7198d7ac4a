// Convolution of feature maps: forward, with respect to the data, with respect to the weight.
// fp32, in the layouts of layout.h; time is PyTorch's height (kernel_t), frequency its width.
//
// Four families compute it. `generic` serves every shape. `direct` serves dense convolutions
// between blocks of 16 channels (forward also from one channel), near the machine's FMA peak.
// `depthwise` serves a filter for each channel, near the speed of memory. `winograd` serves 3x3 and
// 5x5 with stride 1 that keep the size: F(4,3) or F(2,3) along frequency by F(4,3) along time, and
// F(2,5) by F(2,5): a fourth to a third of the multiplications. A Conv is planned once for its
// shape; running it allocates nothing, and gives the same bits for every number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "backends/cpu/layout.h"
#include "backends/cpu/tier.h"
#include "core/threads.h"

namespace panns::cpu {

struct ConvShape {
  int64_t n = 1, in_c = 1, out_c = 1, in_t = 1, in_f = 1;
  int64_t kernel_t = 1, kernel_f = 1;
  int64_t stride_t = 1, stride_f = 1;
  int64_t pad_t = 0, pad_f = 0;
  int64_t dilation_t = 1, dilation_f = 1;
  int64_t groups = 1;

  int64_t out_t() const {
    return (in_t + 2 * pad_t - dilation_t * (kernel_t - 1) - 1) / stride_t + 1;
  }
  int64_t out_f() const {
    return (in_f + 2 * pad_f - dilation_f * (kernel_f - 1) - 1) / stride_f + 1;
  }
  Map in() const { return {n, in_c, in_t, in_f}; }
  Map out() const { return {n, out_c, out_t(), out_f()}; }
  Filter filter() const { return {out_c, in_c / groups, kernel_t, kernel_f}; }
  // Multiplications and additions of the definition, the padding's zeros included.
  double flops() const {
    return 2.0 * n * out_c * out_t() * out_f() * (in_c / groups) * kernel_t * kernel_f;
  }
};

enum class ConvPass { forward, backward_data, backward_weight };
enum class ConvAlgo { automatic, generic, direct, depthwise, winograd };

// What a forward convolution does to its result before storing it, in this order.
struct ConvEpilogue {
  const float* bias = nullptr;  // out_c floats
  bool relu = false;
  bool avg_pool_2x2 = false;  // the output map is then (n, out_c, out_t / 2, out_f / 2)
};

struct ConvOptions {
  ConvAlgo algo = ConvAlgo::automatic;
  int threads = 1;      // the largest pool that will run it
  bool frozen = false;  // forward and backward_data: w is what prepare_weights made
  Tier tier = cpu::tier();
};

class ConvRunner;

class Conv {
 public:
  // Throws ERR_PANNS_SHAPE where the shape has no output, ERR_PANNS_UNSUPPORTED where the wanted
  // family does not serve it.
  Conv(const ConvShape& shape, ConvPass pass, const ConvOptions& options = {});
  ~Conv();
  Conv(Conv&&) noexcept;
  Conv& operator=(Conv&&) noexcept;

  static bool supports(const ConvShape& shape, ConvPass pass, ConvAlgo algo);

  const ConvShape& shape() const { return shape_; }
  ConvPass pass() const { return pass_; }
  ConvAlgo algo() const { return algo_; }

  // Bytes of scratch memory for one run, aligned to 64; whatever they hold is not read.
  size_t workspace() const;

  // A frozen Conv's packed weight in bytes; 0 where it takes w as it is.
  size_t packed_size() const;
  void prepare_weights(ThreadPool& pool, const float* w, float* packed) const;

  // Each overwrites the whole of its last map or weight, padding lanes with zeros included.
  // Padding lanes of the inputs must hold zeros. workspace may be null where workspace() is 0.
  void forward(ThreadPool& pool, const float* x, const float* w, float* y,
               const ConvEpilogue& epilogue, void* workspace) const;
  void backward_data(ThreadPool& pool, const float* dy, const float* w, float* dx,
                     void* workspace) const;
  void backward_weight(ThreadPool& pool, const float* x, const float* dy, float* dw,
                       void* workspace) const;

 private:
  ConvShape shape_;
  ConvPass pass_;
  ConvAlgo algo_;
  int threads_;
  std::unique_ptr<ConvRunner> runner_;
};

}  // namespace panns::cpu
