// The micro-kernels of the direct convolution: tiles of pixels x out channels held in registers.
#include "backends/cpu/conv_kernels.h"
#include "backends/cpu/conv_lanes.h"
#include "backends/cpu/vec.h"

namespace panns::cpu::PANNS_TIER {
namespace {

// Pixels of a register tile for NB out blocks. 12 accumulators of 16 registers hide the latency of
// two FMA units and leave room for the weights and a broadcast; 24 of 32 likewise.
template <int NB>
constexpr int kPixels = kLanes == 16  ? (NB == 4 ? 6 : 12)
                        : kLanes == 8 ? 6
                                      : 3;

constexpr int kOutBlocks = kLanes == 16 ? 4 : 1;

template <int PX, int NB, int CB>
PANNS_INLINE void tile(const ConvRow& r, const float* x0, float* y) {
  const float* const from = r.start != nullptr ? r.start : y;
  const int64_t from_pixel = r.start != nullptr ? 0 : r.y_pixel;
  const int64_t from_out = r.start != nullptr ? kBlock : r.y_out;
  V a[PX][NB][kVecs];
#pragma GCC unroll 16
  for (int p = 0; p < PX; ++p) {
#pragma GCC unroll 4
    for (int b = 0; b < NB; ++b) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        a[p][b][v] = load(from + p * from_pixel + b * from_out + v * kLanes);
      }
    }
  }
  const ConvTap* const end = r.taps + r.tap_count;
  for (int64_t block = 0; block < r.blocks; ++block) {
    const float* const xb = x0 + block * r.x_block;
    const float* const wb = r.w + block * r.w_block;
    // A single channel has no block to be the last of.
    const int channels = CB > 1 && block + 1 == r.blocks ? static_cast<int>(r.last) : CB;
    for (const ConvTap* tap = r.taps; tap != end; ++tap) {
      const float* x = xb + tap->x;
      const float* w = wb + tap->w;
      constexpr int kUnroll = CB < 4 ? CB : 4;
      for (int c = 0; c < channels; c += kUnroll) {
#pragma GCC unroll 4
        for (int u = 0; u < kUnroll; ++u) {
          V wv[NB][kVecs];
#pragma GCC unroll 4
          for (int b = 0; b < NB; ++b) {
#pragma GCC unroll 4
            for (int v = 0; v < kVecs; ++v) {
              wv[b][v] = load(w + b * r.w_out + u * kBlock + v * kLanes);
            }
          }
#pragma GCC unroll 16
          for (int p = 0; p < PX; ++p) {
            const V s = set1(x[p * CB + u]);
#pragma GCC unroll 4
            for (int b = 0; b < NB; ++b) {
#pragma GCC unroll 4
              for (int v = 0; v < kVecs; ++v) a[p][b][v] += s * wv[b][v];
            }
          }
        }
        x += kUnroll;
        w += kUnroll * kBlock;
      }
    }
  }
  const V floor = set1(r.relu ? 0.0f : -__builtin_inff());
#pragma GCC unroll 16
  for (int p = 0; p < PX; ++p) {
#pragma GCC unroll 4
    for (int b = 0; b < NB; ++b) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        store(y + p * r.y_pixel + b * r.y_out + v * kLanes, vmax(floor, a[p][b][v]));
      }
    }
  }
}

// noinline: each tile keeps a register allocation of its own.
template <int PX, int NB, int CB>
__attribute__((noinline)) void tile_of(const ConvRow& r, const float* x, float* y) {
  tile<PX, NB, CB>(r, x, y);
}

template <int PX, int NB, int CB>
void tile_at_most(int64_t px, const ConvRow& r, const float* x, float* y) {
  if constexpr (PX > 1) {
    if (px < PX) return tile_at_most<PX - 1, NB, CB>(px, r, x, y);
  }
  tile_of<PX, NB, CB>(r, x, y);
}

template <int NB, int CB>
void row_of(const ConvRow& r) {
  constexpr int kPx = kPixels<NB>;
  // Tiles of nearly equal width: 31 pixels as 6+5+5+5+5+5, since a tile of one pixel waits for
  // its own results.
  int64_t left = r.pixels, tiles = (left + kPx - 1) / kPx;
  const float* x = r.x;
  float* y = r.y;
  for (; tiles > 0; --tiles) {
    const int64_t px = (left + tiles - 1) / tiles;
    tile_at_most<kPx, NB, CB>(px, r, x, y);
    x += px * CB;
    y += px * r.y_pixel;
    left -= px;
  }
}

template <int CB>
void rows_of(const ConvRow& r) {
  ConvRow part = r;
  int64_t left = r.out_blocks;
  const auto advance = [&](int64_t blocks) {
    left -= blocks;
    part.w += blocks * r.w_out;
    part.y += blocks * r.y_out;
    if (part.start != nullptr) part.start += blocks * kBlock;
  };
  if constexpr (kOutBlocks == 4) {
    for (; left >= 4; advance(4)) row_of<4, CB>(part);
    for (; left >= 2; advance(2)) row_of<2, CB>(part);
  }
  for (; left >= 1; advance(1)) row_of<1, CB>(part);
}

void row(const ConvRow& r) { rows_of<kBlock>(r); }
void row_one(const ConvRow& r) { rows_of<1>(r); }

// ---- gradient of the weight: a tile of M in channels x 16 out channels, summed over pixels

constexpr int kWeightRows = kLanes == 16 ? 16 : kLanes == 8 ? 6 : 3;

template <int M>
__attribute__((noinline)) void weight_tile(const ConvWeightRows& r, int64_t i) {
  V a[M][kVecs];
  float* const dw = r.dw + i * kBlock;
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) a[m][v] = load(dw + m * kBlock + v * kLanes);
  }
  for (int64_t row = 0; row < r.rows; ++row) {
    const float* x = r.x + row * r.x_row + i;
    const float* dy = r.dy + row * r.dy_row;
    const int64_t step = r.x_pixel;
#pragma GCC unroll 2
    for (int64_t p = 0; p < r.pixels; ++p) {
      V d[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) d[v] = load(dy + v * kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const V s = set1(x[m]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) a[m][v] += s * d[v];
      }
      x += step;
      dy += kBlock;
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) store(dw + m * kBlock + v * kLanes, a[m][v]);
  }
}

void weight_rows(const ConvWeightRows& r) {
  if constexpr (kWeightRows == 16) {
    weight_tile<16>(r, 0);
  } else if constexpr (kWeightRows == 6) {
    weight_tile<6>(r, 0);
    if (r.channels > 6) weight_tile<5>(r, 6);
    if (r.channels > 11) weight_tile<5>(r, 11);
  } else {
    for (int64_t i = 0; i < 15 && i < r.channels; i += 3) weight_tile<3>(r, i);
    if (r.channels > 15) weight_tile<1>(r, 15);
  }
}

template <int M>
void weight_taps_of(const ConvWeightTaps& r) {
  V a[M][kVecs];
  int64_t offset[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    offset[m] = r.offset[m];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) a[m][v] = load(r.dw + m * kBlock + v * kLanes);
  }
  const float* x = r.x;
  const float* dy = r.dy;
  for (int64_t p = 0; p < r.pixels; ++p) {
    V d[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) d[v] = load(dy + v * kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const V s = set1(x[offset[m]]);
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) a[m][v] += s * d[v];
    }
    x += r.x_pixel;
    dy += kBlock;
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) store(r.dw + m * kBlock + v * kLanes, a[m][v]);
  }
}

void weight_taps(const ConvWeightTaps& r) {
  switch (r.count) {
    case 6:
      return weight_taps_of<6>(r);
    case 5:
      return weight_taps_of<5>(r);
    case 4:
      return weight_taps_of<4>(r);
    case 3:
      return weight_taps_of<3>(r);
    case 2:
      return weight_taps_of<2>(r);
    default:
      return weight_taps_of<1>(r);
  }
}

// ---- around them

void finish(const ConvFinish& f) {
  V bias[kVecs];
  for (int v = 0; v < kVecs; ++v) bias[v] = load(f.bias + v * kLanes);
  const int64_t step = f.pool ? 2 : 1;
  const int64_t out_px = f.one_channel ? 1 : kBlock;
  for (int64_t row = 0; row < f.rows / step; ++row) {
    const float* a = f.a + row * step * f.a_row;
    float* y = f.y + row * f.y_row;
    for (int64_t p = 0; p < f.pixels / step; ++p, a += step * kBlock, y += out_px) {
      V out[kVecs];
      for (int v = 0; v < kVecs; ++v) {
        const auto at = [&](int64_t dr, int64_t dp) {
          const V s = load(a + dr * f.a_row + dp * kBlock + v * kLanes) + bias[v];
          return f.relu ? vmax(zero(), s) : s;
        };
        out[v] = f.pool ? ((at(0, 0) + at(0, 1)) + (at(1, 0) + at(1, 1))) * set1(0.25f) : at(0, 0);
      }
      if (f.one_channel) {
        *y = out[0][0];
      } else {
        for (int v = 0; v < kVecs; ++v) store(y + v * kLanes, out[v]);
      }
    }
  }
}

#if PANNS_LANES >= 8
PANNS_INLINE void transpose8(const float* from, float* to) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(from + i * kBlock);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * kBlock, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * kBlock, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}
#endif

void transpose(const float* from, float* to, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, from += kBlock * kBlock, to += kBlock * kBlock) {
#if PANNS_LANES >= 8
    for (int i = 0; i < kBlock; i += 8) {
      for (int j = 0; j < kBlock; j += 8) transpose8(from + i * kBlock + j, to + j * kBlock + i);
    }
#else
    for (int i = 0; i < kBlock; ++i) {
      for (int j = 0; j < kBlock; ++j) to[j * kBlock + i] = from[i * kBlock + j];
    }
#endif
  }
}

void add(float* to, const float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) store(to + i, load(to + i) + load(from + i));
}

}  // namespace

extern const ConvKernels conv_kernels = {
    kOutBlocks,        row,    row_one,   conv_lane_row, weight_rows, weight_taps,
    conv_weight_lanes, finish, transpose, add,
};

}  // namespace panns::cpu::PANNS_TIER
