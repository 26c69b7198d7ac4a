// The generic convolution: each of 16 lanes reads the source channel that its table names, so that
// one kernel serves dense, grouped and depthwise layers.
#include "backends/cpu/conv_lanes.h"

#include "backends/cpu/vec.h"

namespace panns::cpu::PANNS_TIER {
namespace {

// Pixels of a register tile: 8 accumulators of AVX2's 16 registers, since a depthwise layer also
// needs one for each pixel's source.
constexpr int kPixels = kLanes == 4 ? 2 : 4;

template <LaneSource S>
PANNS_INLINE void read_lanes(const float* x, const int32_t* lanes, V* out) {
  if constexpr (S == LaneSource::broadcast) {
    const V s = set1(x[lanes[0]]);
    for (int v = 0; v < kVecs; ++v) out[v] = s;
  } else if constexpr (S == LaneSource::contiguous) {
    for (int v = 0; v < kVecs; ++v) out[v] = load(x + lanes[0] + v * kLanes);
  } else {
    alignas(64) float s[kBlock];
    for (int k = 0; k < kBlock; ++k) s[k] = x[lanes[k]];
    for (int v = 0; v < kVecs; ++v) out[v] = load(s + v * kLanes);
  }
}

template <int PX, LaneSource S>
void lane_tile(const ConvLaneRow& r, const float* x, float* y) {
  V a[PX][kVecs];
  for (int p = 0; p < PX; ++p) {
    for (int v = 0; v < kVecs; ++v) {
      a[p][v] = r.start ? zero() : load(y + p * r.y_pixel + v * kLanes);
    }
  }
  for (int64_t j = 0; j < r.count; ++j) {
    const int32_t* lanes = r.lanes + j * kBlock;
    const float* w = r.w + j * r.w_next;
    for (int64_t t = 0; t < r.tap_count; ++t) {
      for (int p = 0; p < PX; ++p) {
        V s[kVecs];
        read_lanes<S>(x + p * r.x_pixel + r.taps[t].x, lanes, s);
        for (int v = 0; v < kVecs; ++v) a[p][v] += s[v] * load(w + r.taps[t].w + v * kLanes);
      }
    }
  }
  for (int p = 0; p < PX; ++p) {
    for (int v = 0; v < kVecs; ++v) store(y + p * r.y_pixel + v * kLanes, a[p][v]);
  }
}

template <LaneSource S>
void lane_row_of(const ConvLaneRow& r) {
  int64_t p = 0;
  for (; p + kPixels <= r.pixels; p += kPixels) {
    lane_tile<kPixels, S>(r, r.x + p * r.x_pixel, r.y + p * r.y_pixel);
  }
  for (; p < r.pixels; ++p) lane_tile<1, S>(r, r.x + p * r.x_pixel, r.y + p * r.y_pixel);
}

template <LaneSource S>
void weight_lanes_of(const ConvWeightLanes& r) {
  // Four partial sums in turn: a single one would wait for each addition.
  constexpr int kSums = 4;
  V a[kSums][kVecs];
  for (int k = 0; k < kSums; ++k) {
    for (int v = 0; v < kVecs; ++v) a[k][v] = zero();
  }
  const auto add = [&](int64_t p, V* sum) {
    V s[kVecs];
    read_lanes<S>(r.x + p * r.x_pixel, r.lanes, s);
    for (int v = 0; v < kVecs; ++v) {
      const V d = r.dy_pixel == 1 ? set1(r.dy[p]) : load(r.dy + p * kBlock + v * kLanes);
      sum[v] += s[v] * d;
    }
  };
  int64_t p = 0;
  for (; p + kSums <= r.pixels; p += kSums) {
    for (int k = 0; k < kSums; ++k) add(p + k, a[k]);
  }
  for (; p < r.pixels; ++p) add(p, a[0]);
  for (int v = 0; v < kVecs; ++v) {
    const V sum = (a[0][v] + a[1][v]) + (a[2][v] + a[3][v]);
    store(r.dw + v * kLanes, load(r.dw + v * kLanes) + sum);
  }
}

}  // namespace

void conv_lane_row(const ConvLaneRow& r) {
  switch (r.source) {
    case LaneSource::broadcast:
      return lane_row_of<LaneSource::broadcast>(r);
    case LaneSource::contiguous:
      return lane_row_of<LaneSource::contiguous>(r);
    default:
      return lane_row_of<LaneSource::gather>(r);
  }
}

void conv_weight_lanes(const ConvWeightLanes& r) {
  switch (r.source) {
    case LaneSource::broadcast:
      return weight_lanes_of<LaneSource::broadcast>(r);
    case LaneSource::contiguous:
      return weight_lanes_of<LaneSource::contiguous>(r);
    default:
      return weight_lanes_of<LaneSource::gather>(r);
  }
}

}  // namespace panns::cpu::PANNS_TIER
