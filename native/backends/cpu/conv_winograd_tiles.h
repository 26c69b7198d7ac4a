// The tiles of a Winograd convolution, numbered through the batch (n, tile_f, tile_t), so that a
// group of consecutive ones has no waste at the ends of rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backends/cpu/conv_runner.h"
#include "backends/cpu/conv_winograd_kernels.h"

namespace panns::cpu {

struct WinogradTiles {
  int64_t kt, kf;    // kernel size: 3 by 3, 5 by 5, or 3 by 1
  int64_t dilation;  // along time
  int64_t mf, mt;    // outputs of a tile along frequency and time
  int64_t rows;      // inputs of a tile along frequency
  int64_t points;
  int64_t t, f, count;  // along time, along frequency, in the batch

  explicit WinogradTiles(const ConvShape& s)
      : kt(s.kernel_t),
        kf(s.kernel_f),
        dilation(s.dilation_t),
        mf(choose_mf(s)),
        mt(kWinogradTimePoints - kt + 1),
        rows(mf + kf - 1),
        points(rows * kWinogradTimePoints),
        t(div_up(s.in_t, mt * dilation) * dilation),
        f(div_up(s.in_f, mf)),
        count(s.n * t * f) {}

  const WinogradKernels& kernels(Tier tier) const {
    const WinogradTable& table = winograd_kernels(tier);
    if (kf == 1) return table.k3_time;
    return kt == 5 ? table.k5 : mf == 2 ? table.k3_by2 : table.k3_by4;
  }
  int64_t taps() const { return kt * kf; }

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
  // 3x3: 4 where that means fewer products (36 for each 4 rows against 24 for each 2) and there
  // are enough tiles to pay for the larger transformed weight.
  static int64_t choose_mf(const ConvShape& s) {
    if (s.kernel_f == 1) return 1;
    if (s.kernel_t == 5) return 2;
    const int64_t tiles = s.n * div_up(s.in_f, 4) * div_up(s.in_t, 4);
    return tiles >= 48 && 36 * div_up(s.in_f, 4) < 24 * div_up(s.in_f, 2) ? 4 : 2;
  }
};

}  // namespace panns::cpu
