// What stands behind a Conv: one planned computation, and the factories of the families.
#pragma once

#include <cstdint>
#include <memory>

#include "backends/cpu/conv.h"

namespace panns::cpu {

class ConvRunner {
 public:
  virtual ~ConvRunner() = default;
  virtual int64_t workspace() const = 0;        // floats
  virtual int64_t packed() const { return 0; }  // floats
  virtual void prepare(ThreadPool&, const float*, float*) const {}
  // forward: (x, w, y); backward_data: (dy, w, dx); backward_weight: (x, dy, dw).
  virtual void run(ThreadPool& pool, const float* a, const float* b, float* out,
                   const ConvEpilogue& epilogue, float* workspace) const = 0;
};

// Forward and backward_data by `direct` or `generic`.
std::unique_ptr<ConvRunner> make_gather_conv(const ConvShape& shape, ConvPass pass, ConvAlgo algo,
                                             const ConvOptions& options);
// Forward and backward_data by `winograd`.
bool winograd_conv_supports(const ConvShape& shape);
std::unique_ptr<ConvRunner> make_winograd_conv(const ConvShape& shape, ConvPass pass,
                                               const ConvOptions& options);
// backward_data by `direct` into one channel (conv_one.h).
bool one_conv_supports(const ConvShape& shape);
std::unique_ptr<ConvRunner> make_one_conv(const ConvShape& shape, const ConvOptions& options);
// Every pass by `depthwise`.
bool depthwise_conv_supports(const ConvShape& shape);
std::unique_ptr<ConvRunner> make_depthwise_conv(const ConvShape& shape, ConvPass pass,
                                                const ConvOptions& options);
// backward_weight by `winograd`.
std::unique_ptr<ConvRunner> make_winograd_weight_conv(const ConvShape& shape,
                                                      const ConvOptions& options);
// backward_weight by `direct` or `generic`.
std::unique_ptr<ConvRunner> make_weight_conv(const ConvShape& shape, ConvAlgo algo,
                                             const ConvOptions& options);

constexpr int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Channels of a block that are not padding.
constexpr int64_t channels_in_block(int64_t channels, int64_t block) {
  const int64_t left = channels - block * kChannelBlock;
  return left < kChannelBlock ? left : kChannelBlock;
}
// How many channels of the last source block to sum over (ConvRow::last).
constexpr int64_t last_channels(int64_t channels) {
  return round_up(channels_in_block(channels, div_up(channels, kChannelBlock) - 1), 4);
}

// Splits one run's workspace into pieces aligned to 64 bytes.
class Carve {
 public:
  int64_t take(int64_t floats) {
    const int64_t at = size_;
    size_ += round_up(floats, 16);
    return at;
  }
  int64_t size() const { return size_; }

 private:
  int64_t size_ = 0;
};

}  // namespace panns::cpu
