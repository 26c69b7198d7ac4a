// The transforms of the Winograd convolution: 3x3 taps as F(MF, 3) along frequency, MF = 2 or 4, by
// F(4, 3) along time; 5x5 taps as F(2, 5) by F(2, 5); three taps along time, dilated or not, as
// F(4, 3). A tile of MF x MT outputs reads (MF + KF - 1) x (MT + KT - 1) inputs and has as many
// points, 6 of them along time. The sums over channels between the transforms are conv_kernels'
// `row` (and `weight_rows`).
//
// With a dilation D a tile's outputs are D apart, and D neighbouring tiles interleave: tile i
// begins at output i / D * MT * D + i % D.
// All offsets and steps count floats; a point (f, t) has the index 6 f + t.
#pragma once

#include <stdint.h>

#include "backends/cpu/tier.h"

namespace panns::cpu {

constexpr int64_t kWinogradTimePoints = 6;

// Transforms `count` tiles side by side in time, 16 channels: to v[point][tile][16].
struct WinogradInput {
  const float* x;  // the block's row MF * tile_f - KF / 2, also where that is outside
  int64_t x_row;
  int64_t first_row, last_row;  // which of the tile's rows are inside: [first, last)
  int64_t t;                    // length of a row
  int64_t dilation;             // along time
  int64_t tile, count;          // the first tile's place along time
  float* v;
  int64_t v_point;
};

// Transforms 16 x 16 weights of KF x KT taps [kf][kt][256] to u[point][256], for the points of some
// rows [first, last) along frequency; u begins with the first of these.
struct WinogradWeight {
  const float* w;
  bool flip;  // backward_data: the taps in reverse order
  int64_t first_row, last_row;
  float* u;
  int64_t u_point;
};

// Sums m[point][tile][16] back to outputs, then adds the bias, clamps, averages 2x2 and stores.
struct WinogradOutput {
  const float* m;
  int64_t m_point;
  float* y;  // the block's row MF * tile_f (pooled: half of it)
  int64_t y_row;
  int64_t rows, t;  // rows of the tile that are inside, length of a row, before pooling
  int64_t dilation;
  int64_t tile, count;
  const float* bias;  // 16 floats
  bool relu, pool;
};

struct WinogradKernels {
  void (*input)(const WinogradInput&);
  void (*weight)(const WinogradWeight&);
  void (*output)(const WinogradOutput&);
  // backward_weight: dy's tiles of MF x MT (x and the rows then begin at MF * tile_f) to points,
  // and the sums u[point][256] over all tiles to dw[kf][kt][256].
  void (*gradient)(const WinogradInput&);
  void (*weight_back)(const float* u, float* dw);
};

struct WinogradTable {
  WinogradKernels k3_by2, k3_by4, k5, k3_time;  // 3x3 with MF = 2, with MF = 4; 5x5; 3x1
};

PANNS_TIERED(WinogradTable, winograd_kernels)

}  // namespace panns::cpu
