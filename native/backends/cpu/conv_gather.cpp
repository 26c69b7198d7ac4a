// Forward and backward_data by the direct and the generic family: tiles of the destination, each
// with a copy of the source it reads (rows by blocks by time, the time padding written as zeros),
// so that the kernels meet no border along time. Rows beyond the frequency border are left out.
#include <algorithm>
#include <cstring>

#include "backends/cpu/conv_kernels.h"
#include "backends/cpu/conv_plan.h"
#include "backends/cpu/conv_runner.h"

namespace panns::cpu {
namespace {

// A tile holds about this many pixels: they are what a block of weights, fetched from an outer
// cache, is used for. Much more would push the tile's source out of the second-level cache.
constexpr int64_t kTilePixels = 256;
constexpr int64_t kTileTime = 96;    // a multiple of every register tile's 3, 6 or 12 pixels
constexpr int64_t kWholeTime = 128;  // a row up to this long is not cut

// Weights that stay in the first-level cache while a tile passes by: half of 32 KB or one block.
constexpr int64_t kWeightFloats = 4608;

// Fewer tiles than this do not share out evenly: the out channels are then shared out instead.
constexpr int64_t kEnoughTiles = 16;

struct Tile {
  int64_t n, f0, f1, t0, t1;  // q ranges
};

class GatherConv final : public ConvRunner {
 public:
  GatherConv(const ConvShape& s, ConvPass pass, ConvAlgo algo, const ConvOptions& options);

  int64_t workspace() const override { return floats_; }
  void run(ThreadPool& pool, const float* src, const float* w, float* dst,
           const ConvEpilogue& epilogue, float* workspace) const override;

 private:
  struct Job {
    const float* src;
    const float* w;
    float* dst;
    const float* bias;  // padded to whole blocks
    const float* zeros;
    bool relu, pool;
  };
  struct Scratch {
    float *acc, *weights;
    int32_t* lanes;
  };

  int64_t tile_count() const { return s_.n * f_tiles_ * t_tiles_; }
  Tile tile(int64_t index) const;
  void plan_tiles();
  void plan_patch();
  void plan_taps();
  void pack(const Tile& tile, const float* src, float* patch) const;
  const float* patch_of(const Job& job, const Tile& tile, const float* patch) const;
  void direct(const Job& job, const float* patches, int64_t first, int64_t tiles, int64_t group,
              const Scratch& scratch) const;
  const float* direct_weights(const Job& job, int64_t group, int64_t blocks, int64_t s0,
                              int64_t count, float* to) const;
  void generic(const Job& job, const float* patch, const Tile& tile, int64_t block,
               const Scratch& scratch) const;
  LaneSource find_lanes(int64_t block, int64_t j0, int64_t count, int32_t* lanes) const;
  void gather_weights(const float* w, int64_t block, int64_t j0, int64_t count, int64_t phase_f,
                      int64_t phase_t, float* to) const;
  void finish(const Job& job, const Tile& tile, int64_t block, const float* acc,
              const float* bias) const;

  ConvShape s_;
  bool forward_, direct_;
  const ConvKernels& k_;
  Map src_, dst_;
  Filter w_;
  GatherAxis f_, t_;
  int64_t kk_;  // kernel positions

  int64_t tile_f_ = 0, tile_t_ = 0, f_tiles_ = 0, t_tiles_ = 0;
  int64_t group_ = 1, groups_ = 0;  // destination blocks computed at once, and how many such
  int64_t chunk_ = 1;               // source blocks (direct) or channels (generic) at once
  bool shared_ = false;             // all tiles are packed first, then out channels shared out

  bool in_place_ = false;  // no copy: the kernels read the source map itself
  int64_t rows_ = 0, row_ = 0, block_ = 0, length_ = 0;  // of a patch
  std::vector<int64_t> columns_;    // residues of time, modulo its step, that are read
  std::vector<int64_t> column_at_;  // and where in columns_ a residue is
  int64_t patch_ = 0, acc_ = 0;     // floats of one tile's source copy and of its results

  std::vector<std::vector<ConvTap>> taps_;  // [phase_f * t phases + phase_t], f-major

  int64_t bias_at_ = 0, zeros_at_ = 0, patches_at_ = 0, slots_at_ = 0;
  int64_t acc_at_ = 0, weights_at_ = 0, lanes_at_ = 0, patch_at_ = 0, slot_ = 0, floats_ = 0;
};

GatherConv::GatherConv(const ConvShape& s, ConvPass pass, ConvAlgo algo, const ConvOptions& options)
    : s_(s),
      forward_(pass == ConvPass::forward),
      direct_(algo == ConvAlgo::direct),
      k_(conv_kernels(options.tier)),
      src_(forward_ ? s.in() : s.out()),
      dst_(forward_ ? s.out() : s.in()),
      w_(s.filter()),
      kk_(s.kernel_t * s.kernel_f) {
  const auto axis = forward_ ? forward_axis : backward_axis;
  f_ = axis(s.in_f, s.out_f(), s.kernel_f, s.stride_f, s.pad_f, s.dilation_f);
  t_ = axis(s.in_t, s.out_t(), s.kernel_t, s.stride_t, s.pad_t, s.dilation_t);
  plan_tiles();
  plan_patch();
  plan_taps();

  const int64_t block_weights = kk_ * src_.block() * kChannelBlock;
  chunk_ = direct_ ? std::clamp<int64_t>(kWeightFloats / block_weights, 1, src_.blocks())
                   : std::clamp<int64_t>(1024 / kk_, 1, forward_ ? w_.i : s.out_c / s.groups);
  acc_ = group_ * tile_f_ * f_.phases * tile_t_ * t_.phases * kChannelBlock;

  Carve all;
  bias_at_ = all.take(groups_ * group_ * kChannelBlock);
  zeros_at_ = all.take(group_ * kChannelBlock);
  patches_at_ = all.take(shared_ && !in_place_ ? tile_count() * patch_ : 0);
  slots_at_ = all.size();
  Carve slot;
  acc_at_ = slot.take(acc_ * (shared_ ? tile_count() : 1));
  patch_at_ = slot.take(shared_ || in_place_ ? 0 : patch_);
  weights_at_ = slot.take(direct_ ? (forward_ ? 0 : group_ * chunk_ * block_weights)
                                  : chunk_ * kk_ * kChannelBlock);
  lanes_at_ = slot.take(direct_ ? 0 : chunk_ * kChannelBlock);
  slot_ = slot.size();
  floats_ = slots_at_ + slot_ * std::max(1, options.threads);
}

void GatherConv::plan_tiles() {
  const int64_t count_t = t_.count(), count_f = f_.count();
  // Even sizes, so that no 2x2 average crosses tiles.
  tile_t_ = count_t;
  if (count_t * t_.phases > kWholeTime) {
    const int64_t most = std::max<int64_t>(kTileTime / t_.phases, 6);
    tile_t_ = round_up(div_up(count_t, div_up(count_t, most)), 6);
  }
  t_tiles_ = div_up(count_t, tile_t_);
  const int64_t rows = kTilePixels / (tile_t_ * t_.phases * f_.phases);
  tile_f_ = std::min(std::max<int64_t>(rows / 2 * 2, 2), count_f);
  f_tiles_ = div_up(count_f, tile_f_);
  group_ = direct_ ? std::min(k_.out_blocks, dst_.blocks()) : 1;
  groups_ = div_up(dst_.blocks(), group_);
  shared_ = direct_ && (tile_count() < kEnoughTiles || w_.size() > src_.size()) &&
            groups_ > tile_count() / 4;
}

void GatherConv::plan_patch() {
  column_at_.assign(static_cast<size_t>(t_.step), -1);
  for (const auto& phase : t_.taps) {
    for (const AxisTap& tap : phase) {
      int64_t& at = column_at_[static_cast<size_t>((tap.offset - t_.low) % t_.step)];
      if (at < 0) {
        at = static_cast<int64_t>(columns_.size());
        columns_.push_back((tap.offset - t_.low) % t_.step);
      }
    }
  }
  in_place_ = t_.step == 1 && t_.low >= 0 && t_.count() - 1 + t_.high < t_.src;
  length_ = tile_t_ + (t_.high - t_.low) / t_.step;
  rows_ = (tile_f_ - 1) * f_.step + f_.high - f_.low + 1;
  if (in_place_) {
    length_ = src_.t;
    block_ = src_.panel();
    row_ = src_.row();
  } else {
    block_ = static_cast<int64_t>(columns_.size()) * length_ * src_.block();
    row_ = src_.blocks() * block_;
    patch_ = rows_ * row_;
  }
}

void GatherConv::plan_taps() {
  const int64_t weights = direct_ ? src_.block() * kChannelBlock : kChannelBlock;
  for (const auto& phase_f : f_.taps) {
    for (const auto& phase_t : t_.taps) {
      auto& list = taps_.emplace_back();
      for (const AxisTap& tf : phase_f) {
        for (const AxisTap& tt : phase_t) {
          const int64_t at = tt.offset - t_.low;
          const int64_t column = column_at_[static_cast<size_t>(at % t_.step)];
          const int64_t x =
              (tf.offset - f_.low) * row_ + (column * length_ + at / t_.step) * src_.block();
          const int64_t w = direct_ ? tf.k * s_.kernel_t + tt.k : static_cast<int64_t>(list.size());
          list.push_back({static_cast<int32_t>(x), static_cast<int32_t>(w * weights)});
        }
      }
    }
  }
}

Tile GatherConv::tile(int64_t index) const {
  const int64_t t = index % t_tiles_, f = index / t_tiles_ % f_tiles_;
  return {index / t_tiles_ / f_tiles_, f * tile_f_, std::min((f + 1) * tile_f_, f_.count()),
          t * tile_t_, std::min((t + 1) * tile_t_, t_.count())};
}

void GatherConv::pack(const Tile& tile, const float* src, float* patch) const {
  const int64_t cb = src_.block();
  const int64_t length = tile.t1 - tile.t0 + (t_.high - t_.low) / t_.step;
  for (int64_t r = 0; r < rows_; ++r) {
    const int64_t row = tile.f0 * f_.step + f_.low + r;
    if (row < 0 || row >= src_.f || !f_.reads(tile.f0, tile.f1, row)) continue;
    for (int64_t b = 0; b < src_.blocks(); ++b) {
      const float* from = src + tile.n * src_.image() + row * src_.row() + b * src_.panel();
      for (size_t c = 0; c < columns_.size(); ++c) {
        float* to = patch + r * row_ + b * block_ + static_cast<int64_t>(c) * length_ * cb;
        const int64_t start = tile.t0 * t_.step + t_.low + columns_[c];
        // Positions before `first` and from `last` on fall outside the source.
        const int64_t first = std::min(length, start < 0 ? div_up(-start, t_.step) : 0);
        const int64_t last =
            std::max(first, std::min(length, start < src_.t ? div_up(src_.t - start, t_.step) : 0));
        std::memset(to, 0, static_cast<size_t>(first * cb) * sizeof(float));
        std::memset(to + last * cb, 0, static_cast<size_t>((length - last) * cb) * sizeof(float));
        if (t_.step == 1) {
          std::memcpy(to + first * cb, from + (start + first) * cb,
                      static_cast<size_t>((last - first) * cb) * sizeof(float));
        } else {
          for (int64_t p = first; p < last; ++p) {
            for (int64_t i = 0; i < cb; ++i) to[p * cb + i] = from[(start + p * t_.step) * cb + i];
          }
        }
      }
    }
  }
}

const float* GatherConv::patch_of(const Job& job, const Tile& tile, const float* patch) const {
  if (!in_place_) return patch;
  return job.src + tile.n * src_.image() + (tile.f0 * f_.step + f_.low) * row_ +
         (tile.t0 + t_.low) * src_.block();
}

const float* GatherConv::direct_weights(const Job& job, int64_t group, int64_t blocks, int64_t s0,
                                        int64_t count, float* to) const {
  const int64_t tap = w_.tap();
  if (forward_) return job.w + (group * group_ * w_.in_blocks() + s0) * kk_ * tap;
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t s = 0; s < count; ++s) {
      k_.transpose(job.w + ((s0 + s) * w_.in_blocks() + group * group_ + b) * kk_ * tap,
                   to + (b * chunk_ + s) * kk_ * tap, kk_);
    }
  }
  return to;
}

void GatherConv::direct(const Job& job, const float* patches, int64_t first, int64_t tiles,
                        int64_t group, const Scratch& scratch) const {
  const int64_t blocks = std::min(group_, dst_.blocks() - group * group_);
  const int64_t cell = kk_ * src_.block() * kChannelBlock;
  const auto kernel = src_.block() == 1 ? k_.row_one : k_.row;
  ConvRow r{};
  r.x_block = block_;
  r.w_block = cell;
  r.w_out = forward_ ? w_.in_blocks() * cell : chunk_ * cell;
  r.y_pixel = t_.phases * kChannelBlock;
  r.out_blocks = blocks;
  for (int64_t s0 = 0; s0 < src_.blocks(); s0 += chunk_) {
    r.blocks = std::min(chunk_, src_.blocks() - s0);
    r.last = s0 + r.blocks == src_.blocks() ? last_channels(src_.c) : kChannelBlock;
    r.w = direct_weights(job, group, blocks, s0, r.blocks, scratch.weights);
    r.start = s0 == 0 ? job.bias + group * group_ * kChannelBlock : nullptr;
    r.relu = job.relu && s0 + r.blocks == src_.blocks();
    for (int64_t i = 0; i < tiles; ++i) {
      const Tile tl = tile(first + i);
      const float* patch = patch_of(job, tl, patches + i * patch_) + s0 * block_;
      const int64_t f_base = tl.f0 * f_.phases, t_base = tl.t0 * t_.phases;
      const int64_t acc_row = tile_t_ * t_.phases * kChannelBlock;
      for (int64_t pf = 0; pf < f_.phases; ++pf) {
        const int64_t rows = f_.inside(pf, tl.f0, tl.f1);
        for (int64_t q = 0; q < rows; ++q) {
          int64_t a, b;
          f_.valid(pf, tl.f0 + q, &a, &b);
          const int64_t f = (tl.f0 + q) * f_.phases + pf;
          for (int64_t pt = 0; pt < t_.phases; ++pt) {
            r.pixels = t_.inside(pt, tl.t0, tl.t1);
            if (r.pixels <= 0) continue;
            const auto per_f = static_cast<int64_t>(t_.taps[static_cast<size_t>(pt)].size());
            r.taps = taps_[static_cast<size_t>(pf * t_.phases + pt)].data() + a * per_f;
            r.tap_count = (b - a) * per_f;
            r.x = patch + q * f_.step * row_;
            if (job.pool) {
              r.y = scratch.acc + i * acc_ + (f - f_base) * acc_row + pt * kChannelBlock;
              r.y_out = tile_f_ * f_.phases * acc_row;
            } else {
              r.y = job.dst + tl.n * dst_.image() + f * dst_.row() + group * group_ * dst_.panel() +
                    (t_base + pt) * kChannelBlock;
              r.y_out = dst_.panel();
            }
            kernel(r);
          }
        }
      }
    }
  }
  if (!job.pool) return;
  for (int64_t i = 0; i < tiles; ++i) {
    for (int64_t b = 0; b < blocks; ++b) {
      finish(job, tile(first + i), group * group_ + b, scratch.acc + i * acc_ + b * (acc_ / group_),
             job.zeros);
    }
  }
}

LaneSource GatherConv::find_lanes(int64_t block, int64_t j0, int64_t count, int32_t* lanes) const {
  const int64_t dst_group = dst_.c / s_.groups, src_group = src_.c / s_.groups;
  bool same = true, contiguous = src_.block() == kChannelBlock;
  for (int64_t j = 0; j < count; ++j) {
    int32_t* row = lanes + j * kChannelBlock;
    for (int64_t lane = 0; lane < kChannelBlock; ++lane) {
      const int64_t c = block * kChannelBlock + lane;
      if (c >= dst_.c) {
        row[lane] = row[0];
        continue;
      }
      const int64_t from = c / dst_group * src_group + j0 + j;
      row[lane] = static_cast<int32_t>(from / src_.block() * block_ + from % src_.block());
      same = same && row[lane] == row[0];
      contiguous = contiguous && from % kChannelBlock == lane && row[lane] == row[0] + lane;
    }
  }
  return same ? LaneSource::broadcast : contiguous ? LaneSource::contiguous : LaneSource::gather;
}

void GatherConv::gather_weights(const float* w, int64_t block, int64_t j0, int64_t count,
                                int64_t phase_f, int64_t phase_t, float* to) const {
  for (int64_t j = j0; j < j0 + count; ++j) {
    for (const AxisTap& tf : f_.taps[static_cast<size_t>(phase_f)]) {
      for (const AxisTap& tt : t_.taps[static_cast<size_t>(phase_t)]) {
        for (int64_t lane = 0; lane < kChannelBlock; ++lane) {
          const int64_t c = block * kChannelBlock + lane;
          float value = 0;
          if (c < dst_.c) {
            const int64_t out_group = s_.out_c / s_.groups;
            value = forward_ ? w[w_.at(c, j, tt.k, tf.k)]
                             : w[w_.at(c / w_.i * out_group + j, c % w_.i, tt.k, tf.k)];
          }
          *to++ = value;
        }
      }
    }
  }
}

void GatherConv::generic(const Job& job, const float* patch, const Tile& tl, int64_t block,
                         const Scratch& scratch) const {
  const int64_t channels = src_.c / s_.groups;
  const int64_t acc_row = tile_t_ * t_.phases * kChannelBlock;
  ConvLaneRow r{};
  r.x_pixel = src_.block();
  r.y_pixel = t_.phases * kChannelBlock;
  r.lanes = scratch.lanes;
  r.w = scratch.weights;
  for (int64_t j0 = 0; j0 < channels; j0 += chunk_) {
    r.count = std::min(chunk_, channels - j0);
    r.source = find_lanes(block, j0, r.count, scratch.lanes);
    r.start = j0 == 0;
    for (int64_t pf = 0; pf < f_.phases; ++pf) {
      for (int64_t pt = 0; pt < t_.phases; ++pt) {
        r.pixels = t_.inside(pt, tl.t0, tl.t1);
        if (r.pixels <= 0) continue;
        const auto& list = taps_[static_cast<size_t>(pf * t_.phases + pt)];
        const auto per_f = static_cast<int64_t>(t_.taps[static_cast<size_t>(pt)].size());
        gather_weights(job.w, block, j0, r.count, pf, pt, scratch.weights);
        r.w_next = static_cast<int64_t>(list.size()) * kChannelBlock;
        for (int64_t q = 0; q < f_.inside(pf, tl.f0, tl.f1); ++q) {
          int64_t a, b;
          f_.valid(pf, tl.f0 + q, &a, &b);
          r.taps = list.data() + a * per_f;
          r.tap_count = (b - a) * per_f;
          r.x = patch + q * f_.step * row_;
          r.y = scratch.acc + (q * f_.phases + pf) * acc_row + pt * kChannelBlock;
          k_.lane_row(r);
        }
      }
    }
  }
  finish(job, tl, block, scratch.acc, job.bias + block * kChannelBlock);
}

void GatherConv::finish(const Job& job, const Tile& tl, int64_t block, const float* acc,
                        const float* bias) const {
  const int64_t step = job.pool ? 2 : 1;
  const Map out{dst_.n, dst_.c, dst_.t / step, dst_.f / step};
  const int64_t f0 = tl.f0 * f_.phases, t0 = tl.t0 * t_.phases;
  ConvFinish f{};
  f.a = acc;
  f.a_row = tile_t_ * t_.phases * kChannelBlock;
  f.y = job.dst + tl.n * out.image() + f0 / step * out.row() + block * out.panel() +
        t0 / step * out.block();
  f.y_row = out.row();
  f.rows = std::min(tl.f1 * f_.phases, f_.dst) - f0;
  f.pixels = std::min(tl.t1 * t_.phases, t_.dst) - t0;
  f.bias = bias;
  f.relu = job.relu;
  f.pool = job.pool;
  f.one_channel = dst_.block() == 1;
  k_.finish(f);
}

void GatherConv::run(ThreadPool& pool, const float* src, const float* w, float* dst,
                     const ConvEpilogue& epilogue, float* workspace) const {
  float* const bias = workspace + bias_at_;
  float* const zeros = workspace + zeros_at_;
  std::fill_n(bias, groups_ * group_ * kChannelBlock, 0.0f);
  std::fill_n(zeros, group_ * kChannelBlock, 0.0f);
  if (epilogue.bias != nullptr) std::copy_n(epilogue.bias, dst_.c, bias);
  const Job job{src, w, dst, bias, zeros, epilogue.relu, epilogue.avg_pool_2x2};
  const auto scratch = [&](int slot) {
    float* const base = workspace + slots_at_ + slot * slot_;
    return Scratch{base + acc_at_, base + weights_at_,
                   reinterpret_cast<int32_t*>(base + lanes_at_)};
  };
  if (shared_) {
    float* const patches = workspace + patches_at_;
    if (!in_place_) {
      pool.run(tile_count(), [&](int64_t i, int) { pack(tile(i), src, patches + i * patch_); });
    }
    pool.run(groups_, [&](int64_t group, int slot) {
      direct(job, patches, 0, tile_count(), group, scratch(slot));
    });
    return;
  }
  pool.run(tile_count(), [&](int64_t i, int slot) {
    const Tile tl = tile(i);
    float* const patch = workspace + slots_at_ + slot * slot_ + patch_at_;
    if (!in_place_) pack(tl, src, patch);
    for (int64_t group = 0; group < groups_; ++group) {
      if (direct_) {
        direct(job, patch, i, 1, group, scratch(slot));
      } else {
        generic(job, patch_of(job, tl, patch), tl, group, scratch(slot));
      }
    }
  });
}

}  // namespace

std::unique_ptr<ConvRunner> make_gather_conv(const ConvShape& shape, ConvPass pass, ConvAlgo algo,
                                             const ConvOptions& options) {
  return std::make_unique<GatherConv>(shape, pass, algo, options);
}

}  // namespace panns::cpu
