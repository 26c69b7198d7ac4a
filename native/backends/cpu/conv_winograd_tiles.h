// The tiles of a Winograd convolution, numbered through the batch (n, tile_f, tile_t), so that a
// group of consecutive ones has no waste at the ends of rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/conv_runner.h"
#include "backends/cpu/conv_winograd_kernels.h"

namespace panns::cpu {

constexpr int64_t kWinogradTimePoints = 6;

struct WinogradTiles {
  int64_t mf;            // outputs of a tile along frequency: 2 or 4
  int64_t points;
  int64_t t, f, count;   // along time, along frequency, in the batch

  explicit WinogradTiles(const ConvShape& s)
      : mf(rows(s)),
        points((mf + 2) * kWinogradTimePoints),
        t(div_up(s.in_t, kWinogradTime)),
        f(div_up(s.in_f, mf)),
        count(s.n * t * f) {}

  const WinogradKernels& kernels(Tier tier) const {
    return mf == 2 ? winograd_kernels(tier).by2 : winograd_kernels(tier).by4;
  }

  // Calls visit(n, tile_f, tile_t, count, at) for each stretch of one row in tiles [first, last);
  // `at` counts tiles from first.
  template <typename Visit>
  void stretches(int64_t first, int64_t last, Visit visit) const {
    for (int64_t i = first; i < last;) {
      const int64_t it = i % t, row = i / t;
      const int64_t n = std::min(last - i, t - it);
      visit(row / f, row % f, it, n, i - first);
      i += n;
    }
  }

 private:
  // 4 where that means fewer products (36 for each 4 rows against 24 for each 2) and there are
  // enough tiles to pay for the larger transformed weight.
  static int64_t rows(const ConvShape& s) {
    const int64_t tiles = s.n * div_up(s.in_f, 4) * div_up(s.in_t, kWinogradTime);
    return tiles >= 48 && 36 * div_up(s.in_f, 4) < 24 * div_up(s.in_f, 2) ? 4 : 2;
  }
};

}  // namespace panns::cpu
