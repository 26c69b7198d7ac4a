// What the convolution drivers (conv_*.cpp) ask of the instruction-set tiers (conv*.simd.cpp).
// All offsets and steps count floats.
#pragma once

#include <stdint.h>

#include "backends/cpu/tier.h"

namespace panns::cpu {

// One kernel position: where its source lies from the row's first pixel, and its weights from the
// block's first.
struct ConvTap {
  int32_t x, w;
};

// y[b][p][0..16) (+)= sum over blocks and taps of x[block][tap][p][c] * w[b][block][tap][c][0..16)
// for `pixels` consecutive p and for `out_blocks` blocks b.
struct ConvRow {
  const float* x;
  const ConvTap* taps;
  int64_t tap_count;
  int64_t blocks, x_block, w_block;
  int64_t last = 16;  // channels of the last block that are not padding, rounded up to 4
  const float* w;
  int64_t w_out;  // from one out block's weights to the next one's
  float* y;
  int64_t y_pixel, y_out;
  int64_t out_blocks;  // at most ConvKernels::out_blocks
  int64_t pixels;
  const float* start;  // 16 floats an out block to start from; null: go on from y
  bool relu;
};

// How a generic kernel's 16 lanes find their source channels.
enum class LaneSource { broadcast, contiguous, gather };

// y[p][lane] (+)= sum over j, taps of x[p * x_pixel + tap.x + lanes[j][lane]] * w[j][tap.w + lane]
struct ConvLaneRow {
  const float* x;
  int64_t x_pixel;
  const ConvTap* taps;
  int64_t tap_count;
  const int32_t* lanes;  // [count][16]
  int64_t count;
  LaneSource source;
  const float* w;
  int64_t w_next;  // from one j to the next
  float* y;
  int64_t y_pixel;
  int64_t pixels;
  bool start;  // from zero; else go on from y
};

// dw[i][0..16) += sum over rows and pixels of x[row][p][i] * dy[row][p][0..16), i < channels; up to
// i = 16 where that is as fast.
struct ConvWeightRows {
  const float* x;
  int64_t x_pixel, x_row;
  const float* dy;  // [row][pixel][16]
  int64_t dy_row;
  int64_t pixels, rows;
  int64_t channels = 16;
  float* dw;
};

// dw[m][0..16) += sum over pixels of x[p * x_pixel + offset[m]] * dy[p][0..16), m < count <= 6.
struct ConvWeightTaps {
  const float* x;
  int64_t x_pixel;
  const int32_t* offset;
  int64_t count;
  const float* dy;
  int64_t pixels;
  float* dw;
};

// dw[lane] += sum over pixels of x[p * x_pixel + lanes[lane]] * dy[p][lane].
struct ConvWeightLanes {
  const float* x;
  int64_t x_pixel;
  const int32_t* lanes;
  LaneSource source;
  const float* dy;
  int64_t dy_pixel;  // 16, or 1 for a map of one channel, which every lane then reads
  int64_t pixels;
  float* dw;
};

// Adds the bias, clamps, averages 2x2 and stores: a[row][pixel][16] to y.
struct ConvFinish {
  const float* a;
  int64_t a_row;
  float* y;
  int64_t y_row;
  int64_t rows, pixels;  // of a
  const float* bias;     // 16 floats
  bool relu, pool, one_channel;
};

struct ConvKernels {
  int64_t out_blocks;  // blocks that one call of `row` computes best at once
  void (*row)(const ConvRow&);
  void (*row_one)(const ConvRow&);  // x has one channel: pixel step 1, w[tap][0..16)
  void (*lane_row)(const ConvLaneRow&);
  void (*weight_rows)(const ConvWeightRows&);
  void (*weight_taps)(const ConvWeightTaps&);
  void (*weight_lanes)(const ConvWeightLanes&);
  void (*finish)(const ConvFinish&);
  void (*transpose)(const float* from, float* to, int64_t blocks);  // 16x16 blocks
  void (*add)(float* to, const float* from, int64_t count);         // count a multiple of 16
};

PANNS_TIERED(ConvKernels, conv_kernels)

}  // namespace panns::cpu
