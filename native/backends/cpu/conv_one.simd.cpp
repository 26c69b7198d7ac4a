#include "backends/cpu/conv_one.h"

#include "backends/cpu/vec.h"

namespace panns::cpu::PANNS_TIER {
namespace {

// Frames of a register tile: 8 accumulators on AVX2, enough to cover the FMA's latency.
constexpr int kFrames = kVecs >= 4 ? 2 : kVecs == 2 ? 4 : 8;

PANNS_INLINE float sum_lanes(const V* a) {
  float s = 0;
  alignas(64) float lanes[kBlock];
  for (int v = 0; v < kVecs; ++v) store(lanes + v * kLanes, a[v]);
  for (int i = 0; i < kBlock; ++i) s += lanes[i];
  return s;
}

// Frames [t, t + PX), whose taps first..last all lie inside dy.
template <int PX>
PANNS_INLINE void tile(const ConvOne& c, int64_t t, int64_t first, int64_t last) {
  V a[PX][kVecs];
  for (int p = 0; p < PX; ++p) {
    for (int v = 0; v < kVecs; ++v) a[p][v] = zero();
  }
  for (int64_t r = 0; r < c.row_count; ++r) {
    for (int64_t b = 0; b < c.blocks; ++b) {
      const float* dy = c.rows[r].dy + b * c.dy_block + (t + c.pad_t) * kBlock;
      const float* w = c.rows[r].w + b * c.w_block;
      for (int64_t k = first; k < last; ++k) {
        V wv[kVecs];
        for (int v = 0; v < kVecs; ++v) wv[v] = load(w + k * kBlock + v * kLanes);
        for (int p = 0; p < PX; ++p) {
          for (int v = 0; v < kVecs; ++v) {
            a[p][v] += load(dy + (p - k) * kBlock + v * kLanes) * wv[v];
          }
        }
      }
    }
  }
  for (int p = 0; p < PX; ++p) c.dx[t + p] = sum_lanes(a[p]);
}

void run(const ConvOne& c) {
  // Frames whose every tap lies inside: t + pad - k in [0, out_t) for k in [0, kernel_t).
  const int64_t inner_begin = c.kernel_t - 1 - c.pad_t, inner_end = c.out_t - c.pad_t;
  int64_t t = c.begin;
  while (t < c.end) {
    if (t >= inner_begin && t + kFrames <= inner_end && t + kFrames <= c.end) {
      tile<kFrames>(c, t, 0, c.kernel_t);
      t += kFrames;
      continue;
    }
    int64_t first = t + c.pad_t - (c.out_t - 1), last = t + c.pad_t + 1;
    if (first < 0) first = 0;
    if (last > c.kernel_t) last = c.kernel_t;
    tile<1>(c, t, first, last);
    ++t;
  }
}

}  // namespace

const ConvOneKernels conv_one_kernels = {run};

}  // namespace panns::cpu::PANNS_TIER
