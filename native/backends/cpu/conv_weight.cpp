// The gradient of the weight by the direct and the generic family. The sum over the batch and the
// output pixels is cut into items (a stretch of time of one row, or some short rows) and the items
// into chunks, both fixed by the shape; each chunk makes a partial gradient, added in order.
#include <algorithm>
#include <cstring>
#include <vector>

#include "backends/cpu/conv_kernels.h"
#include "backends/cpu/conv_runner.h"

namespace panns::cpu {
namespace {

// Pixels of one item. x and dy take 64 bytes a pixel each, and both are to stay in the first-level
// cache while the time taps and the groups of in channels pass over them.
constexpr int64_t kItemPixels = 160;

// Where the weight alone makes fewer units of work than this, the pixels are shared out too.
constexpr int64_t kEnoughUnits = 32;

// A direct unit is this many out blocks by this many in blocks: they reread x and dy while these
// are in the second-level cache.
constexpr int64_t kUnitBlocks = 2;

constexpr int64_t kTapGroup = 6;

class WeightConv final : public ConvRunner {
 public:
  WeightConv(const ConvShape& s, ConvAlgo algo, const ConvOptions& options);

  int64_t workspace() const override { return floats_; }
  void run(ThreadPool& pool, const float* x, const float* dy, float* dw,
           const ConvEpilogue& epilogue, float* workspace) const override;

 private:
  struct Item {
    int64_t n, f0, f1, t0, t1;  // of the output
  };
  Item item(int64_t index) const;
  // The output positions in [begin, end) whose source at kernel position k lies inside the input.
  static void clip(int64_t k, int64_t stride, int64_t pad, int64_t dilation, int64_t in,
                   int64_t* begin, int64_t* end);
  void pad_input(ThreadPool& pool, const float* x, float* padded) const;
  void direct(const Item& it, int64_t unit, const float* x, const float* dy, float* dw) const;
  void direct_one(const Item& it, int64_t unit, const float* x, const float* dy, float* dw) const;
  void generic(const Item& it, int64_t unit, const float* x, const float* dy, float* dw) const;

  ConvShape s_;
  bool direct_;
  const ConvKernels& k_;
  Map x_, y_;
  Filter w_;
  int64_t item_f_ = 1, item_t_ = 1, f_items_ = 1, t_items_ = 1, items_ = 1;
  int64_t units_ = 1, chunks_ = 1;
  int64_t padded_row_ = 0, padded_image_ = 0;  // of the one input channel
  std::vector<int32_t> offsets_;               // of its taps
  int64_t padded_at_ = 0, partials_at_ = 0, floats_ = 0;
};

WeightConv::WeightConv(const ConvShape& s, ConvAlgo algo, const ConvOptions& options)
    : s_(s),
      direct_(algo == ConvAlgo::direct),
      k_(conv_kernels(options.tier)),
      x_(s.in()),
      y_(s.out()),
      w_(s.filter()) {
  item_t_ = std::min(y_.t, kItemPixels);
  item_f_ = std::clamp<int64_t>(kItemPixels / y_.t, 1, y_.f);
  t_items_ = div_up(y_.t, item_t_);
  f_items_ = div_up(y_.f, item_f_);
  items_ = y_.n * f_items_ * t_items_;
  if (!direct_) {
    units_ = w_.out_blocks() * w_.i;
  } else if (w_.i == 1) {
    units_ = w_.out_blocks();
  } else {
    units_ = div_up(w_.out_blocks(), kUnitBlocks) * div_up(w_.in_blocks(), kUnitBlocks);
  }
  chunks_ = std::min(div_up(kEnoughUnits, units_), items_);

  Carve all;
  if (direct_ && w_.i == 1) {
    padded_row_ = x_.t + 2 * s.pad_t;
    padded_image_ = (x_.f + 2 * s.pad_f) * padded_row_;
    for (int64_t kf = 0; kf < s.kernel_f; ++kf) {
      for (int64_t kt = 0; kt < s.kernel_t; ++kt) {
        offsets_.push_back(
            static_cast<int32_t>(kf * s.dilation_f * padded_row_ + kt * s.dilation_t));
      }
    }
    padded_at_ = all.take(x_.n * padded_image_);
  }
  partials_at_ = all.take(chunks_ > 1 ? chunks_ * w_.size() : 0);
  floats_ = all.size();
}

WeightConv::Item WeightConv::item(int64_t index) const {
  const int64_t t = index % t_items_, f = index / t_items_ % f_items_;
  return {index / t_items_ / f_items_, f * item_f_, std::min((f + 1) * item_f_, y_.f), t * item_t_,
          std::min((t + 1) * item_t_, y_.t)};
}

void WeightConv::clip(int64_t k, int64_t stride, int64_t pad, int64_t dilation, int64_t in,
                      int64_t* begin, int64_t* end) {
  const int64_t shift = k * dilation - pad;  // source = out * stride + shift
  if (shift < 0) *begin = std::max(*begin, div_up(-shift, stride));
  *end = std::min(*end, in > shift ? div_up(in - shift, stride) : 0);
}

void WeightConv::pad_input(ThreadPool& pool, const float* x, float* padded) const {
  const int64_t rows = x_.f + 2 * s_.pad_f;
  pool.run(x_.n * rows, [&](int64_t i, int) {
    float* const to = padded + i * padded_row_;
    const int64_t f = i % rows - s_.pad_f;
    std::fill_n(to, padded_row_, 0.0f);
    if (f >= 0 && f < x_.f) {
      std::copy_n(x + i / rows * x_.image() + f * x_.row(), x_.t, to + s_.pad_t);
    }
  });
}

void WeightConv::direct(const Item& it, int64_t unit, const float* x, const float* dy,
                        float* dw) const {
  const int64_t unit_rows = div_up(w_.in_blocks(), kUnitBlocks);
  const int64_t o0 = unit / unit_rows * kUnitBlocks, i0 = unit % unit_rows * kUnitBlocks;
  ConvWeightRows r{};
  r.x_pixel = s_.stride_t * kChannelBlock;
  r.x_row = s_.stride_f * x_.row();
  r.dy_row = y_.row();
  for (int64_t o = o0; o < std::min(o0 + kUnitBlocks, w_.out_blocks()); ++o) {
    for (int64_t i = i0; i < std::min(i0 + kUnitBlocks, w_.in_blocks()); ++i) {
      r.channels = channels_in_block(w_.i, i);
      for (int64_t kf = 0; kf < s_.kernel_f; ++kf) {
        int64_t f0 = it.f0, f1 = it.f1;
        clip(kf, s_.stride_f, s_.pad_f, s_.dilation_f, x_.f, &f0, &f1);
        if (f0 >= f1) continue;
        for (int64_t kt = 0; kt < s_.kernel_t; ++kt) {
          int64_t t0 = it.t0, t1 = it.t1;
          clip(kt, s_.stride_t, s_.pad_t, s_.dilation_t, x_.t, &t0, &t1);
          if (t0 >= t1) continue;
          r.rows = f1 - f0;
          r.pixels = t1 - t0;
          r.x = x + x_.at(it.n, i * kChannelBlock, t0 * s_.stride_t - s_.pad_t + kt * s_.dilation_t,
                          f0 * s_.stride_f - s_.pad_f + kf * s_.dilation_f);
          r.dy = dy + y_.at(it.n, o * kChannelBlock, t0, f0);
          r.dw = dw + w_.at(o * kChannelBlock, i * kChannelBlock, kt, kf);
          k_.weight_rows(r);
        }
      }
    }
  }
}

void WeightConv::direct_one(const Item& it, int64_t unit, const float* padded, const float* dy,
                            float* dw) const {
  const auto taps = static_cast<int64_t>(offsets_.size());
  ConvWeightTaps r{};
  r.x_pixel = s_.stride_t;
  r.pixels = it.t1 - it.t0;
  for (int64_t f = it.f0; f < it.f1; ++f) {
    r.x = padded + it.n * padded_image_ + f * s_.stride_f * padded_row_ + it.t0 * s_.stride_t;
    r.dy = dy + y_.at(it.n, unit * kChannelBlock, it.t0, f);
    const int64_t groups = div_up(taps, kTapGroup);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t a = g * taps / groups, b = (g + 1) * taps / groups;
      r.offset = offsets_.data() + a;
      r.count = b - a;
      r.dw = dw + (unit * taps + a) * kChannelBlock;
      k_.weight_taps(r);
    }
  }
}

void WeightConv::generic(const Item& it, int64_t unit, const float* x, const float* dy,
                         float* dw) const {
  const int64_t block = unit / w_.i, j = unit % w_.i;
  const int64_t out_group = s_.out_c / s_.groups;
  const int64_t lanes = std::min(kChannelBlock, s_.out_c - block * kChannelBlock);
  int32_t from[kChannelBlock];
  bool same = true, contiguous = x_.block() == kChannelBlock;
  for (int64_t lane = 0; lane < kChannelBlock; ++lane) {
    const int64_t o = block * kChannelBlock + std::min(lane, lanes - 1);
    const int64_t c = o / out_group * w_.i + j;
    from[lane] = static_cast<int32_t>(x_.at(0, c, 0, 0));
    if (lane >= lanes) continue;
    same = same && from[lane] == from[0];
    contiguous = contiguous && c % kChannelBlock == lane && from[lane] == from[0] + lane;
  }
  ConvWeightLanes r{};
  r.x_pixel = s_.stride_t * x_.block();
  r.lanes = from;
  r.source = same         ? LaneSource::broadcast
             : contiguous ? LaneSource::contiguous
                          : LaneSource::gather;
  r.dy_pixel = y_.block();
  for (int64_t kf = 0; kf < s_.kernel_f; ++kf) {
    int64_t f0 = it.f0, f1 = it.f1;
    clip(kf, s_.stride_f, s_.pad_f, s_.dilation_f, x_.f, &f0, &f1);
    for (int64_t kt = 0; kt < s_.kernel_t; ++kt) {
      int64_t t0 = it.t0, t1 = it.t1;
      clip(kt, s_.stride_t, s_.pad_t, s_.dilation_t, x_.t, &t0, &t1);
      if (t0 >= t1) continue;
      r.pixels = t1 - t0;
      r.dw = dw + w_.at(block * kChannelBlock, j, kt, kf);
      for (int64_t f = f0; f < f1; ++f) {
        r.x = x + x_.at(it.n, 0, t0 * s_.stride_t - s_.pad_t + kt * s_.dilation_t,
                        f * s_.stride_f - s_.pad_f + kf * s_.dilation_f);
        r.dy = dy + y_.at(it.n, block * kChannelBlock, t0, f);
        k_.weight_lanes(r);
      }
      // A lane past the last channel saw another lane's source.
      for (int64_t lane = lanes; lane < kChannelBlock; ++lane) r.dw[lane] = 0;
    }
  }
}

void WeightConv::run(ThreadPool& pool, const float* x, const float* dy, float* dw,
                     const ConvEpilogue&, float* workspace) const {
  const bool one = direct_ && w_.i == 1;
  float* const partials = chunks_ > 1 ? workspace + partials_at_ : dw;
  if (one) {
    pad_input(pool, x, workspace + padded_at_);
    x = workspace + padded_at_;
  }
  // Slices of whole vectors, for clearing and for adding.
  constexpr int64_t kSlice = 1 << 14;
  const int64_t slices = div_up(w_.size(), kSlice);
  const auto slice = [&](int64_t i) { return std::min(kSlice, w_.size() - i * kSlice); };
  pool.run(slices * chunks_, [&](int64_t i, int) {
    std::fill_n(partials + i / slices * w_.size() + i % slices * kSlice, slice(i % slices), 0.0f);
  });
  pool.run(units_ * chunks_, [&](int64_t index, int) {
    const int64_t unit = index % units_, chunk = index / units_;
    float* const to = partials + chunk * w_.size();
    const int64_t end = (chunk + 1) * items_ / chunks_;
    for (int64_t i = chunk * items_ / chunks_; i < end; ++i) {
      if (one) {
        direct_one(item(i), unit, x, dy, to);
      } else if (direct_) {
        direct(item(i), unit, x, dy, to);
      } else {
        generic(item(i), unit, x, dy, to);
      }
    }
  });
  if (chunks_ == 1) return;
  pool.run(slices, [&](int64_t i, int) {
    std::copy_n(partials + i * kSlice, slice(i), dw + i * kSlice);
    for (int64_t c = 1; c < chunks_; ++c) {
      k_.add(dw + i * kSlice, partials + c * w_.size() + i * kSlice, slice(i));
    }
  });
}

}  // namespace

std::unique_ptr<ConvRunner> make_weight_conv(const ConvShape& shape, ConvAlgo algo,
                                             const ConvOptions& options) {
  return std::make_unique<WeightConv>(shape, algo, options);
}

}  // namespace panns::cpu
