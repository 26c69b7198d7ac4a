// What an op needs to know beyond its inputs. Every struct prints itself for the graph dump, and
// those that a spec may name read themselves from an AttrMap.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "ops/attr_map.h"

namespace panns::ops {

using Pair = std::array<int64_t, 2>;  // (time, frequency)

struct NoAttrs {
  static NoAttrs parse(AttrMap&) { return {}; }
  std::string text() const { return ""; }
};

enum class MelScale : uint8_t { slaney, kaldi };
enum class LogKind : uint8_t { decibel, natural };  // 10 log10(max(x, 1e-10)), ln(x + 1e-5)

// The defaults are PANNs' front-end; those of the second half differ in MobileNetV3's.
struct LogmelAttrs {
  int64_t sample_rate = 32000, window_size = 1024, hop_size = 320, mel_bins = 64;
  double fmin = 50, fmax = 14000;
  int64_t window_length = 1024;  // of the Hann window, centred in window_size; parse: window_size
  bool periodic = true;          // the Hann window; false: symmetric
  double preemphasis = 0;        // not 0: of y[i] = x[i + 1] - preemphasis * x[i] instead of x
  MelScale mel_scale = MelScale::slaney;
  LogKind log = LogKind::decibel;
  double shift = 0, scale = 1;  // (log + shift) * scale
  static LogmelAttrs parse(AttrMap& map);
  std::string text() const;
};

enum class Axis : uint8_t { channel, time, freq };

enum class PoolKind : uint8_t { avg, max, avg_max };  // avg_max is the sum of both, as in PANNs

struct PoolAttrs {
  PoolKind kind = PoolKind::avg;
  Pair kernel{1, 1}, stride{1, 1}, padding{0, 0};
  static PoolAttrs parse(AttrMap& map);
  std::string text() const;
};

struct DropoutAttrs {
  float p = 0;
  // Names the mask: the spec's node number, so that backward and every fused form draw the same.
  int32_t mask = 0;
  static DropoutAttrs parse(AttrMap& map);
  std::string text() const;
};

// Two stripes of time and two of frequency are blanked per clip; widths are drawn from [0, width).
struct SpecAugmentAttrs {
  int64_t time_width = 64, freq_width = 8;
  int32_t mask = 0;
  static SpecAugmentAttrs parse(AttrMap& map);
  std::string text() const;
};

// Normalises over axis; in training by the batch's own statistics, which also move the running
// ones: running = (1 - momentum) * running + momentum * batch. The epilogue is set by fusion only.
struct BatchNormAttrs {
  Axis axis = Axis::channel;
  float eps = 1e-5f, momentum = 0.1f;
  bool training = false;
  bool over_processes = false;  // training: the batch is that of all processes, equal parts of it
  bool zero_gamma = false;      // initialise gamma to 0: the last norm of a residual branch
  bool from_sums = false;       // training, set by fusion only: the sums of x and of x^2 are given
  // Training, set by fusion only: what is normalised is the convolution of x, a map of one channel,
  // by input 5, of an odd kernel and padding of half of it, in these strides. Only where both are 1
  // there may be a gradient of x.
  std::optional<Pair> of_conv{};
  // epilogue: y = dropout(avg_pool_2x2(relu(norm(x)))), or y = mixup(spec_augment(norm(x)))
  bool relu = false, avg_pool_2x2 = false;
  DropoutAttrs dropout{};
  std::optional<SpecAugmentAttrs> spec_augment{};
  bool mixup = false;  // the clips' weights are input 5
  bool augments() const { return spec_augment.has_value() || mixup; }
  static BatchNormAttrs parse(AttrMap& map);
  std::string text() const;
};

struct FoldAttrs {
  float eps = 1e-5f;
  static FoldAttrs parse(AttrMap&) { return {}; }
  std::string text() const { return ""; }
};

// How a weight begins: Xavier uniform (PANNs), Kaiming normal by fan-out (MobileNetV3's
// convolutions), normal with a standard deviation of 0.01 (its linear layers).
enum class Init : uint8_t { xavier, kaiming, normal, zeros, ones };

struct ConvAttrs {
  int64_t out_channels = 0;
  Pair kernel{1, 1}, stride{1, 1}, padding{0, 0}, dilation{1, 1};
  int64_t groups = 1;
  bool bias = false;
  Init init = Init::xavier;
  // epilogue, set by fusion only: y = avg_pool_2x2(relu(conv(x) + bias))
  bool relu = false, avg_pool_2x2 = false;
  // Set by fusion only: also the sums of y and of y^2 over all but channels.
  bool statistics = false;
  // The weight does not change between calls, so a backend may keep it in a form of its own.
  bool frozen = false;
  // backward_data needs the extent of the input it restores.
  Pair in_extent{0, 0};
  int64_t in_channels = 0;
  static ConvAttrs parse(AttrMap& map);
  std::string text() const;
};

enum class ReduceKind : uint8_t { mean, max, max_mean };  // max_mean is max + mean: the PANNs head

// freq: (N, C, T, F) to (N, C, T, 1). time: (N, C, T, 1) to (N, C).
struct ReduceAttrs {
  Axis axis = Axis::freq;
  ReduceKind kind = ReduceKind::mean;
  static ReduceAttrs parse(AttrMap& map);
  std::string text() const;
};

// The channels of the two maps, first and second; set by differentiation only.
struct ConcatAttrs {
  Pair channels{0, 0};
  static ConcatAttrs parse(AttrMap&) { return {}; }
  std::string text() const { return ""; }
};

struct BinsAttrs {
  int64_t bins = 1;
  static BinsAttrs parse(AttrMap& map);
  std::string text() const;
};

// Frames that stand for one of the map's.
struct UpsampleAttrs {
  int64_t ratio = 1;
  static UpsampleAttrs parse(AttrMap& map);
  std::string text() const;
};

struct LinearAttrs {
  int64_t out_features = 0;
  bool bias = true;
  Init init = Init::xavier;
  bool relu = false;  // set by fusion only
  static LinearAttrs parse(AttrMap& map);
  std::string text() const;
};

// torch.optim.Adam; weight_decay is added to the gradient, or decoupled as in AdamW.
struct AdamAttrs {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool amsgrad = false, decoupled = false;
  double rate = 1;  // the step's learning rate is multiplied by it: a parameter group's
  static AdamAttrs parse(AttrMap& map);
  std::string text() const;
};

struct SgdAttrs {
  double momentum = 0, weight_decay = 0;
  bool nesterov = false;
  double rate = 1;
  static SgdAttrs parse(AttrMap& map);
  std::string text() const;
};

using Attrs = std::variant<NoAttrs, LogmelAttrs, BatchNormAttrs, FoldAttrs, SpecAugmentAttrs,
                           ConvAttrs, PoolAttrs, DropoutAttrs, ReduceAttrs, ConcatAttrs, BinsAttrs,
                           UpsampleAttrs, LinearAttrs, AdamAttrs, SgdAttrs>;

std::string text(const Attrs& attrs);

}  // namespace panns::ops
