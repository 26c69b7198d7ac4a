// The 3x3 patches of a map of one channel, and a convolution and norm of them: what the passes of
// conv_batch_norm share.
#pragma once

#include "backends/cuda/conv_batch_norm.h"
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/pack.cuh"

namespace panns::cuda {

// What is near the mean of x is taken from all its values, so that nothing cancels that does not
// have to: log-mel maps may lie far from 0.
PANNS_DEVICE float center_of(const float* moments) { return moments[kPatch / 2]; }

// A way through x from place to place, along a frame or a bin.
struct Path {
  const float* first;
  int64_t step, side;  // to the next place, and to the path beside it
  uint32_t left;       // places from the first to the edge of x
  bool behind;         // whether x has a place behind the first,
  bool before, after;  // and paths on either side
};

// Goes along a path: p is the patch around the place it stands on, less the center, by path and by
// place.
class Walk {
 public:
  float p[3][3];

  // Before the first place.
  PANNS_DEVICE Walk(const Path& path, float center) : path_(path), center_(center) {
    PANNS_UNROLL
    for (int i = 0; i < 3; ++i) p[i][1] = value(path_.first - path_.step, i, path_.behind);
    take();
  }
  PANNS_DEVICE void step() {
    PANNS_UNROLL
    for (int i = 0; i < 3; ++i) {
      p[i][0] = p[i][1];
      p[i][1] = p[i][2];
    }
    take();
  }

 private:
  PANNS_DEVICE float value(const float* at, int i, bool there) const {
    there = there && (i == 1 || (i == 0 ? path_.before : path_.after));
    return (there ? at[(i - 1) * path_.side] : 0) - center_;
  }
  PANNS_DEVICE void take() {
    PANNS_UNROLL
    for (int i = 0; i < 3; ++i) p[i][2] = value(path_.first, i, path_.left > 0);
    path_.first += path_.step;
    path_.left -= path_.left > 0;
  }

  Path path_;
  float center_;
};

// x as rows of bins, a row a frame of a clip.
struct Frames {
  const float* x;
  Divisor frames;
  uint32_t bins;

  Frames(const float* x, const Map& map)
      : x(x), frames(map.t), bins(static_cast<uint32_t>(map.f)) {}
  PANNS_DEVICE Path along(uint32_t row) const {
    const uint32_t t = divide(row, frames).rest;
    return {x + int64_t{row} * bins, 1, bins, bins, false, t > 0, t + 1 < frames.divisor()};
  }
};

// Eight neighbouring channels as functions of a patch less the center.
struct Channels {
  float w[kChannelBlock][3][3], offset[kChannelBlock];

  PANNS_DEVICE Channels(uint32_t vector, const float* filters, const float* gamma,
                        const float* beta, const float* invstd, const float* moments) {
    const float center = center_of(moments);
    PANNS_UNROLL
    for (int k = 0; k < kChannelBlock; ++k) {
      const uint32_t c = vector * kChannelBlock + k;
      const float scale = gamma[c] * invstd[c];
      offset[k] = beta[c];
      PANNS_UNROLL
      for (int i = 0; i < kPatch; ++i) {
        w[k][i / 3][i % 3] = filters[c * kPatch + i] * scale;
        offset[k] = fmaf(w[k][i / 3][i % 3], center - moments[i], offset[k]);
      }
    }
  }
  // Forward and backward must agree on which side of 0 a value falls: no product here is one that
  // the compiler may choose to round or not.
  PANNS_DEVICE float operator()(int k, const float (&p)[3][3]) const {
    float z = offset[k];
    PANNS_UNROLL
    for (int i = 0; i < kPatch; ++i) z = fmaf(w[k][i / 3][i % 3], p[i / 3][i % 3], z);
    return z;
  }
};

// Threads that go down a column of bins each, kRun frames of a clip: for what reads x alone.
struct Columns {
  // As many terms as a thread adds up in float.
  static constexpr int64_t kRun = 32;

  uint32_t count, frames, bins;
  Divisor by_bins, by_runs;

  explicit Columns(const Map& map)
      : count(static_cast<uint32_t>(map.n * ceil_div(map.t, kRun) * map.f)),
        frames(static_cast<uint32_t>(map.t)),
        bins(static_cast<uint32_t>(map.f)),
        by_bins(map.f),
        by_runs(ceil_div(map.t, kRun)) {}
  int64_t blocks() const { return ceil_div(count, kThreads); }
};

// This thread's frames [begin, end) of a clip and its bin; none beyond the last column.
struct Column {
  uint32_t begin = 0, end = 0, bin = 0;
  int64_t clip = 0;  // where it begins

  PANNS_DEVICE explicit Column(const Columns& a) {
    const uint32_t index = blockIdx.x * kThreads + threadIdx.x;
    if (index >= a.count) return;
    const Division place = divide(index, a.by_bins), run = divide(place.quotient, a.by_runs);
    begin = run.rest * static_cast<uint32_t>(Columns::kRun);
    end = smaller(begin + static_cast<uint32_t>(Columns::kRun), a.frames);
    bin = place.rest;
    clip = int64_t{run.quotient} * a.frames * a.bins;
  }
  PANNS_DEVICE Path down(const Columns& a, const float* x) const {
    return {x + clip + int64_t{begin} * a.bins + bin,
            a.bins,
            1,
            a.frames - begin,
            begin > 0,
            bin > 0,
            bin + 1 < a.bins};
  }
};

inline void check_conv_batch_norm(const BatchNorm& norm, const Map& map) {
  PANNS_CHECK(conv_batch_norm_supported(norm, map), "ERR_PANNS_UNSUPPORTED", "conv_batch_norm",
              "expected 8 to 256 channels, a power of two, of at most 256 bins, and a norm with no "
              "pool or dropout, got (",
              map.n, ", ", map.c, ", ", map.t, ", ", map.f,
              "); run conv and batch_norm one by one");
  expect_indexable(map.pixels(), "conv_batch_norm");
}

}  // namespace panns::cuda
