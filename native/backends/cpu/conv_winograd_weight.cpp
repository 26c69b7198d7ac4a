// The gradient of 3x3, 5x5 and 3x1 weights in the Winograd domain: the forward's algorithm
// transposed. For each point, tiles of x times tiles of dy are summed over all tiles; one transform
// back gives dw.
//
// The tiles go in chunks whose transforms fit the last-level cache; the sums of a chunk are shared
// out by pairs of blocks, so that no sum depends on the number of threads.
#include <algorithm>
#include <vector>

#include "backends/cpu/conv_kernels.h"
#include "backends/cpu/conv_winograd_tiles.h"

namespace panns::cpu {
namespace {

constexpr int64_t kCell = kChannelBlock * kChannelBlock;

// Both transforms of one chunk, in floats for each point: 12 MB for 36 points, within a shared
// last-level cache; 2 MB for 6, whose smaller sums allow shorter chunks.
constexpr int64_t kPointFloats = (3 << 20) / 36;
// A unit's sums, 2 x 4 pairs of 6 to 36 KB, stay in the second-level cache.
constexpr int64_t kUnitOut = 2, kUnitIn = 4;
// Where that makes fewer units than this, they are 1 x 2 pairs.
constexpr int64_t kFewUnits = 8;
// Above this many floats (32 MB) the sums of all units are not kept between chunks: one chunk.
constexpr int64_t kKeptFloats = 8 << 20;
// Tiles that one task transforms, of one block.
constexpr int64_t kTransformTiles = 128;

class WinogradWeightConv final : public ConvRunner {
 public:
  WinogradWeightConv(const ConvShape& s, const ConvOptions& options);

  int64_t workspace() const override { return floats_; }
  void run(ThreadPool& pool, const float* x, const float* dy, float* dw,
           const ConvEpilogue& epilogue, float* workspace) const override;

 private:
  void transform(const float* x, const float* dy, int64_t first, int64_t task, float* v,
                 float* d) const;
  void unit(int64_t index, int64_t tiles, bool start, bool end, const float* v, const float* d,
            float* sums, float* dw) const;

  ConvShape s_;
  WinogradTiles tiles_;
  const ConvKernels& k_;
  const WinogradKernels& wk_;
  Map x_, y_;
  Filter w_;
  int64_t unit_out_ = kUnitOut, unit_in_ = kUnitIn;
  int64_t chunk_, chunks_, units_i_, units_;
  int64_t v_point_, d_point_, unit_floats_;
  int64_t v_at_, d_at_, sums_at_, floats_;
};

WinogradWeightConv::WinogradWeightConv(const ConvShape& s, const ConvOptions& options)
    : s_(s),
      tiles_(s),
      k_(conv_kernels(options.tier)),
      wk_(tiles_.kernels(options.tier)),
      x_(s.in()),
      y_(s.out()),
      w_(s.filter()) {
  if (div_up(x_.blocks(), kUnitIn) * div_up(y_.blocks(), kUnitOut) < kFewUnits) {
    unit_out_ = 1;
    unit_in_ = 2;
  }
  units_i_ = div_up(x_.blocks(), unit_in_);
  units_ = units_i_ * div_up(y_.blocks(), unit_out_);
  unit_floats_ = unit_out_ * unit_in_ * tiles_.points * kCell;
  const int64_t per_tile = tiles_.points * (x_.blocks() + y_.blocks()) * kChannelBlock;
  const bool keep = units_ * unit_floats_ <= kKeptFloats;
  chunks_ = keep ? div_up(tiles_.count * per_tile, kPointFloats * tiles_.points) : 1;
  chunk_ = div_up(tiles_.count, chunks_);
  chunks_ = div_up(tiles_.count, chunk_);
  // One cache line more: the points of one tile then fall into different sets of the cache.
  v_point_ = x_.blocks() * chunk_ * kChannelBlock + kChannelBlock;
  d_point_ = y_.blocks() * chunk_ * kChannelBlock + kChannelBlock;
  Carve all;
  v_at_ = all.take(tiles_.points * v_point_);
  d_at_ = all.take(tiles_.points * d_point_);
  sums_at_ = all.take(unit_floats_ * (chunks_ > 1 ? units_ : std::max(1, options.threads)));
  floats_ = all.size();
}

void WinogradWeightConv::transform(const float* x, const float* dy, int64_t first, int64_t task,
                                   float* v, float* d) const {
  const int64_t block = task % (x_.blocks() + y_.blocks());
  const int64_t from = task / (x_.blocks() + y_.blocks()) * kTransformTiles;
  const int64_t last = std::min({first + from + kTransformTiles, first + chunk_, tiles_.count});
  const bool of_x = block < x_.blocks();
  const int64_t b = of_x ? block : block - x_.blocks();
  const Map& map = of_x ? x_ : y_;
  tiles_.stretches(first + from, last,
                   [&](int64_t n, int64_t tile_f, int64_t tile_t, int64_t count, int64_t at) {
                     const int64_t row = tile_f * tiles_.mf - (of_x ? tiles_.kf / 2 : 0);
                     const int64_t rows = of_x ? tiles_.rows : tiles_.mf;
                     const WinogradInput in{
                         .x = (of_x ? x : dy) + n * map.image() + row * map.row() + b * map.panel(),
                         .x_row = map.row(),
                         .first_row = std::max<int64_t>(0, -row),
                         .last_row = std::min(rows, map.f - row),
                         .t = map.t,
                         .dilation = tiles_.dilation,
                         .tile = tile_t,
                         .count = count,
                         .v = (of_x ? v : d) + (b * chunk_ + from + at) * kChannelBlock,
                         .v_point = of_x ? v_point_ : d_point_};
                     of_x ? wk_.input(in) : wk_.gradient(in);
                   });
}

void WinogradWeightConv::unit(int64_t index, int64_t tiles, bool start, bool end, const float* v,
                              const float* d, float* sums, float* dw) const {
  const int64_t o0 = index / units_i_ * unit_out_, o1 = std::min(o0 + unit_out_, y_.blocks());
  const int64_t i0 = index % units_i_ * unit_in_, i1 = std::min(i0 + unit_in_, x_.blocks());
  if (start) std::fill_n(sums, unit_floats_, 0.0f);
  ConvWeightRows r{};
  r.x_pixel = kChannelBlock;
  r.pixels = tiles;
  r.rows = 1;
  const auto pair = [&](int64_t o, int64_t i) {
    return sums + ((o - o0) * unit_in_ + i - i0) * tiles_.points * kCell;
  };
  for (int64_t p = 0; p < tiles_.points; ++p) {
    for (int64_t o = o0; o < o1; ++o) {
      for (int64_t i = i0; i < i1; ++i) {
        r.x = v + p * v_point_ + i * chunk_ * kChannelBlock;
        r.dy = d + p * d_point_ + o * chunk_ * kChannelBlock;
        r.dw = pair(o, i) + p * kCell;
        r.channels = channels_in_block(x_.c, i);
        k_.weight_rows(r);
      }
    }
  }
  if (!end) return;
  for (int64_t o = o0; o < o1; ++o) {
    for (int64_t i = i0; i < i1; ++i) {
      wk_.weight_back(pair(o, i), dw + (o * w_.in_blocks() + i) * tiles_.taps() * kCell);
    }
  }
}

void WinogradWeightConv::run(ThreadPool& pool, const float* x, const float* dy, float* dw,
                             const ConvEpilogue&, float* workspace) const {
  float* const v = workspace + v_at_;
  float* const d = workspace + d_at_;
  float* const sums = workspace + sums_at_;
  const int64_t tasks = div_up(chunk_, kTransformTiles) * (x_.blocks() + y_.blocks());
  for (int64_t c = 0; c < chunks_; ++c) {
    const int64_t first = c * chunk_, tiles = std::min(chunk_, tiles_.count - first);
    pool.run(tasks, [&](int64_t task, int) { transform(x, dy, first, task, v, d); });
    pool.run(units_, [&](int64_t index, int slot) {
      unit(index, tiles, c == 0, c + 1 == chunks_, v, d,
           sums + (chunks_ > 1 ? index : slot) * unit_floats_, dw);
    });
  }
}

}  // namespace

std::unique_ptr<ConvRunner> make_winograd_weight_conv(const ConvShape& shape,
                                                      const ConvOptions& options) {
  return std::make_unique<WinogradWeightConv>(shape, options);
}

}  // namespace panns::cpu
