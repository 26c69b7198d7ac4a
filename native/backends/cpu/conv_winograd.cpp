// Forward and backward_data of 3x3, 5x5 and 3x1 convolutions in the Winograd domain.
//
// Two orders. Where the transformed weight is small next to the caches it is made once and groups
// of tiles are shared out, each transformed into its thread's scratch. Where it is large (24 or 36
// floats for each 9, 36 for each 25, 6 for each 3) or the tiles are few, all tiles are transformed
// first and out blocks are shared out; each thread transforms the weights of its out blocks piece
// by piece, so that they never leave its cache.
#include <algorithm>

#include "backends/cpu/conv_kernels.h"
#include "backends/cpu/conv_winograd_tiles.h"

namespace panns::cpu {
namespace {

constexpr int64_t kCell = kChannelBlock * kChannelBlock;
constexpr int64_t kMostTaps = 25;

// Above this many floats (8 MB) the weight is transformed piece by piece.
constexpr int64_t kSmallWeight = 2 << 20;
// Tiles that pass by while one point's weights are in the first-level cache.
constexpr int64_t kTileGroup = 48;
constexpr int64_t kLateTileGroup = 126;
// Fewer tiles than this make too few groups to share out: out blocks are, as for a large weight.
constexpr int64_t kFewTiles = 4 * kTileGroup;
// Out blocks computed together: they share the read of the transformed input.
constexpr int64_t kOutGroup = 4;
constexpr int64_t kLateOutGroup = 2;
// In blocks of one piece of transformed weights: 2 * 24 * 4 KB is under half of a 512 KB cache.
constexpr int64_t kLateInBlocks = 8;

class WinogradConv final : public ConvRunner {
 public:
  WinogradConv(const ConvShape& s, ConvPass pass, const ConvOptions& options);

  int64_t workspace() const override { return floats_; }
  int64_t packed() const override { return frozen_ && small_ ? weight_floats_ : 0; }
  void prepare(ThreadPool& pool, const float* w, float* packed) const override {
    if (this->packed() > 0) transform_all(pool, w, packed);
  }
  void run(ThreadPool& pool, const float* src, const float* w, float* dst,
           const ConvEpilogue& epilogue, float* workspace) const override;

 private:
  struct Job {
    const float* src;
    const float* w;
    float* dst;
    const float* bias;
    const float* zeros;
    bool relu, pool;
  };

  const float* source_weight(const float* w, int64_t d, int64_t s, float* scratch) const;
  void transform_all(ThreadPool& pool, const float* w, float* u) const;
  void transform_input(const float* src, int64_t first, int64_t last, int64_t block,
                       float* v) const;
  void write_output(const Job& job, int64_t first, int64_t last, int64_t block,
                    const float* m) const;
  void early(const Job& job, const float* u, int64_t group, float* scratch) const;
  void late(const Job& job, const float* v, int64_t group, int64_t out_group, float* scratch) const;

  ConvShape s_;
  bool forward_, frozen_;
  WinogradTiles tiles_;
  const ConvKernels& k_;
  const WinogradKernels& wk_;
  Map src_, dst_;
  Filter w_;
  bool small_;
  int64_t group_, groups_;  // tiles computed together, and how many such groups
  int64_t out_group_, out_groups_;
  int64_t piece_;  // in blocks of one piece of weights
  int64_t u_point_, weight_floats_, v_block_, v_point_, m_point_;
  int64_t bias_at_, zeros_at_, u_at_ = 0, v_at_ = 0, slots_at_;
  int64_t slot_v_ = 0, slot_u_ = 0, slot_m_, slot_t_, slot_, floats_;
};

WinogradConv::WinogradConv(const ConvShape& s, ConvPass pass, const ConvOptions& options)
    : s_(s),
      forward_(pass == ConvPass::forward),
      frozen_(options.frozen),
      tiles_(s),
      k_(conv_kernels(options.tier)),
      wk_(tiles_.kernels(options.tier)),
      src_(forward_ ? s.in() : s.out()),
      dst_(forward_ ? s.out() : s.in()),
      w_(s.filter()) {
  small_ = dst_.blocks() * src_.blocks() * tiles_.points * kCell <= kSmallWeight &&
           tiles_.count >= kFewTiles;
  group_ = std::min(small_ ? kTileGroup : kLateTileGroup, tiles_.count);
  groups_ = div_up(tiles_.count, group_);
  group_ = div_up(tiles_.count, groups_);
  groups_ = div_up(tiles_.count, group_);
  out_group_ = std::min(small_ ? kOutGroup : kLateOutGroup, dst_.blocks());
  out_groups_ = div_up(dst_.blocks(), out_group_);
  piece_ = small_ ? src_.blocks() : std::min(kLateInBlocks, src_.blocks());
  // One cache line more than a power of two: the points of one tile, written in turn, then fall
  // into different sets of the cache.
  u_point_ = piece_ * kCell + kChannelBlock;
  weight_floats_ = dst_.blocks() * tiles_.points * u_point_;
  v_block_ = group_ * kChannelBlock;
  v_point_ = src_.blocks() * v_block_ + kChannelBlock;
  m_point_ = group_ * kChannelBlock + kChannelBlock;

  Carve all;
  bias_at_ = all.take(dst_.blocks() * kChannelBlock);
  zeros_at_ = all.take(out_group_ * kChannelBlock);
  if (small_ && !frozen_) u_at_ = all.take(weight_floats_);
  if (!small_) v_at_ = all.take(groups_ * tiles_.points * v_point_);
  slots_at_ = all.size();
  Carve slot;
  if (small_) slot_v_ = slot.take(tiles_.points * v_point_);
  if (!small_) slot_u_ = slot.take(out_group_ * kWinogradTimePoints * u_point_);
  slot_m_ = slot.take(out_group_ * tiles_.points * m_point_);
  slot_t_ = slot.take(forward_ || small_ ? 0 : out_group_ * piece_ * tiles_.taps() * kCell);
  slot_ = slot.size();
  floats_ = slots_at_ + slot_ * std::max(1, options.threads);
}

// The weights from source block s to destination block d, source channels first.
const float* WinogradConv::source_weight(const float* w, int64_t d, int64_t s,
                                         float* scratch) const {
  const int64_t block = forward_ ? d * w_.in_blocks() + s : s * w_.in_blocks() + d;
  const float* const from = w + block * tiles_.taps() * kCell;
  if (forward_) return from;
  k_.transpose(from, scratch, tiles_.taps());
  return scratch;
}

// To u[d][point][s][16][16].
void WinogradConv::transform_all(ThreadPool& pool, const float* w, float* u) const {
  pool.run(dst_.blocks() * src_.blocks(), [&](int64_t i, int) {
    alignas(64) float scratch[kMostTaps * kCell];
    const int64_t d = i / src_.blocks(), s = i % src_.blocks();
    wk_.weight({source_weight(w, d, s, scratch), !forward_, 0, tiles_.rows,
                u + d * tiles_.points * u_point_ + s * kCell, u_point_});
  });
}

void WinogradConv::transform_input(const float* src, int64_t first, int64_t last, int64_t block,
                                   float* v) const {
  tiles_.stretches(
      first, last, [&](int64_t n, int64_t tile_f, int64_t t, int64_t count, int64_t at) {
        const int64_t row = tile_f * tiles_.mf - tiles_.kf / 2;
        wk_.input({.x = src + n * src_.image() + row * src_.row() + block * src_.panel(),
                   .x_row = src_.row(),
                   .first_row = std::max<int64_t>(0, -row),
                   .last_row = std::min(tiles_.rows, src_.f - row),
                   .t = src_.t,
                   .dilation = tiles_.dilation,
                   .tile = t,
                   .count = count,
                   .v = v + block * v_block_ + at * kChannelBlock,
                   .v_point = v_point_});
      });
}

void WinogradConv::write_output(const Job& job, int64_t first, int64_t last, int64_t block,
                                const float* m) const {
  const int64_t step = job.pool ? 2 : 1;
  const Map out{dst_.n, dst_.c, dst_.t / step, dst_.f / step};
  tiles_.stretches(first, last,
                   [&](int64_t n, int64_t tile_f, int64_t t, int64_t count, int64_t at) {
                     wk_.output({.m = m + at * kChannelBlock,
                                 .m_point = m_point_,
                                 .y = job.dst + n * out.image() +
                                      tile_f * tiles_.mf / step * out.row() + block * out.panel(),
                                 .y_row = out.row(),
                                 .rows = std::min(tiles_.mf, dst_.f - tile_f * tiles_.mf),
                                 .t = dst_.t,
                                 .dilation = tiles_.dilation,
                                 .tile = t,
                                 .count = count,
                                 .bias = job.bias + block * kChannelBlock,
                                 .relu = job.relu,
                                 .pool = job.pool});
                   });
}

constexpr ConvTap kOneTap{0, 0};

void WinogradConv::early(const Job& job, const float* u, int64_t group, float* scratch) const {
  const int64_t first = group * group_, last = std::min(first + group_, tiles_.count);
  float* const v = scratch + slot_v_;
  float* const m = scratch + slot_m_;
  for (int64_t b = 0; b < src_.blocks(); ++b) transform_input(job.src, first, last, b, v);
  ConvRow r{};
  r.taps = &kOneTap;
  r.tap_count = 1;
  r.blocks = src_.blocks();
  r.last = last_channels(src_.c);
  r.x_block = v_block_;
  r.w_block = kCell;
  r.w_out = tiles_.points * u_point_;
  r.y_pixel = kChannelBlock;
  r.y_out = tiles_.points * m_point_;
  r.pixels = last - first;
  r.start = job.zeros;
  for (int64_t d = 0; d < dst_.blocks(); d += out_group_) {
    r.out_blocks = std::min(out_group_, dst_.blocks() - d);
    for (int64_t p = 0; p < tiles_.points; ++p) {
      r.x = v + p * v_point_;
      r.w = u + (d * tiles_.points + p) * u_point_;
      r.y = m + p * m_point_;
      k_.row(r);
    }
    for (int64_t b = 0; b < r.out_blocks; ++b) {
      write_output(job, first, last, d + b, m + b * tiles_.points * m_point_);
    }
  }
}

void WinogradConv::late(const Job& job, const float* v, int64_t group, int64_t out_group,
                        float* scratch) const {
  const int64_t first = group * group_, last = std::min(first + group_, tiles_.count);
  const int64_t d = out_group * out_group_;
  float* const u = scratch + slot_u_;
  float* const m = scratch + slot_m_;
  ConvRow r{};
  r.taps = &kOneTap;
  r.tap_count = 1;
  r.x_block = v_block_;
  r.w_block = kCell;
  r.w_out = kWinogradTimePoints * u_point_;
  r.y_pixel = kChannelBlock;
  r.y_out = tiles_.points * m_point_;
  r.out_blocks = std::min(out_group_, dst_.blocks() - d);
  r.pixels = last - first;
  const int64_t cell = tiles_.taps() * kCell;
  for (int64_t s = 0; s < src_.blocks(); s += piece_) {
    r.blocks = std::min(piece_, src_.blocks() - s);
    r.last = s + r.blocks == src_.blocks() ? last_channels(src_.c) : kChannelBlock;
    r.start = s == 0 ? job.zeros : nullptr;
    for (int64_t f = 0; f < tiles_.rows; ++f) {
      for (int64_t b = 0; b < r.out_blocks; ++b) {
        for (int64_t i = 0; i < r.blocks; ++i) {
          float* const kept = scratch + slot_t_ + (b * piece_ + i) * cell;
          const float* const w =
              forward_ || f == 0 ? source_weight(job.w, d + b, s + i, kept) : kept;
          wk_.weight({w, !forward_, f, f + 1, u + b * kWinogradTimePoints * u_point_ + i * kCell,
                      u_point_});
        }
      }
      for (int64_t p = kWinogradTimePoints * f; p < kWinogradTimePoints * (f + 1); ++p) {
        r.x = v + p * v_point_ + s * v_block_;
        r.w = u + (p - kWinogradTimePoints * f) * u_point_;
        r.y = m + p * m_point_;
        k_.row(r);
      }
    }
  }
  for (int64_t b = 0; b < r.out_blocks; ++b) {
    write_output(job, first, last, d + b, m + b * tiles_.points * m_point_);
  }
}

void WinogradConv::run(ThreadPool& pool, const float* src, const float* w, float* dst,
                       const ConvEpilogue& epilogue, float* workspace) const {
  float* const bias = workspace + bias_at_;
  float* const zeros = workspace + zeros_at_;
  std::fill_n(bias, dst_.blocks() * kChannelBlock, 0.0f);
  std::fill_n(zeros, out_group_ * kChannelBlock, 0.0f);
  if (epilogue.bias != nullptr) std::copy_n(epilogue.bias, dst_.c, bias);
  const Job job{src, w, dst, bias, zeros, epilogue.relu, epilogue.avg_pool_2x2};
  float* const slots = workspace + slots_at_;
  if (small_) {
    const float* u = w;
    if (!frozen_) {
      transform_all(pool, w, workspace + u_at_);
      u = workspace + u_at_;
    }
    pool.run(groups_, [&](int64_t group, int slot) { early(job, u, group, slots + slot * slot_); });
    return;
  }
  float* const v = workspace + v_at_;
  pool.run(groups_ * src_.blocks(), [&](int64_t i, int) {
    const int64_t group = i / src_.blocks(), first = group * group_;
    transform_input(src, first, std::min(first + group_, tiles_.count), i % src_.blocks(),
                    v + group * tiles_.points * v_point_);
  });
  pool.run(groups_ * out_groups_, [&](int64_t i, int slot) {
    const int64_t group = i % groups_;
    late(job, v + group * tiles_.points * v_point_, group, i / groups_, slots + slot * slot_);
  });
}

}  // namespace

bool winograd_conv_supports(const ConvShape& s) {
  if (s.groups != 1 || s.out_c == 1 || s.in_c == 1 || s.stride_t != 1 || s.stride_f != 1) {
    return false;
  }
  if (s.kernel_t == 3 && s.kernel_f == 1) {
    // Tiles are of one row: no average over 2x2, which a map of one row has none of.
    return s.in_f == 1 && s.pad_f == 0 && s.pad_t == s.dilation_t;
  }
  return s.kernel_t == s.kernel_f && (s.kernel_t == 3 || s.kernel_t == 5) &&
         s.pad_t == s.kernel_t / 2 && s.pad_f == s.kernel_f / 2 && s.dilation_t == 1 &&
         s.dilation_f == 1;
}

std::unique_ptr<ConvRunner> make_winograd_conv(const ConvShape& shape, ConvPass pass,
                                               const ConvOptions& options) {
  return std::make_unique<WinogradConv>(shape, pass, options);
}

}  // namespace panns::cpu
