// The 3x3 patches of a map of one channel: a kind of patches, as patch.cuh says.
#pragma once

#include "backends/cuda/conv_batch_norm.h"
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/row.cuh"

namespace panns::cuda {

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
  float p[9];

  // Before the first place.
  PANNS_DEVICE Walk(const Path& path, float center) : path_(path), center_(center) {
    PANNS_UNROLL
    for (int i = 0; i < 3; ++i) p[i * 3 + 1] = value(path_.first - path_.step, i, path_.behind);
    take();
  }
  PANNS_DEVICE void step() {
    PANNS_UNROLL
    for (int i = 0; i < 3; ++i) {
      p[i * 3] = p[i * 3 + 1];
      p[i * 3 + 1] = p[i * 3 + 2];
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
    for (int i = 0; i < 3; ++i) p[i * 3 + 2] = value(path_.first, i, path_.left > 0);
    path_.first += path_.step;
    path_.left -= path_.left > 0;
  }

  Path path_;
  float center_;
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

struct MapPatches {
  static constexpr int kTaps = 9;

  static bool fits(const ConvOfOne& conv) {
    // A thread adds up a row of bins in float.
    constexpr int64_t kMostBins = 256;
    return conv.kt == 3 && conv.kf == 3 && conv.by_t == 1 && conv.by_f == 1 &&
           conv.x.f <= kMostBins;
  }

  // A tile is some frames, each a row of bins, of any clips.
  struct Tiles {
    const float* x;
    Divisor frames;
    uint32_t bins, rows, together;  // together: rows of a tile
    uint32_t terms, count;

    Tiles(const ConvOfOne& conv, const float* x, int64_t groups)
        : x(x),
          frames(conv.x.t),
          bins(static_cast<uint32_t>(conv.x.f)),
          rows(static_cast<uint32_t>(conv.x.n * conv.x.t)),
          together(static_cast<uint32_t>(groups)),
          terms(bins),
          count(static_cast<uint32_t>(ceil_div(rows, groups))) {}
    static constexpr size_t shared_bytes() { return 0; }

    // Beyond the last row they walk along it, as what they share with others may be more than x.
    struct Row : Walk {
      int64_t first;
      uint32_t places;
      bool real;
      static constexpr uint32_t stride = 1;
      PANNS_DEVICE Row(const Path& path, float center, int64_t first, uint32_t places, bool real)
          : Walk(path, center), first(first), places(places), real(real) {}
    };
    PANNS_DEVICE Row enter(uint32_t tile, uint32_t group, float center) const {
      const uint32_t wanted = tile * together + group;
      const bool real = wanted < rows;
      const uint32_t row = real ? wanted : rows - 1;
      const int64_t first = int64_t{row} * bins;
      const uint32_t t = divide(row, frames).rest;
      const Path path{x + first, 1, bins, bins, false, t > 0, t + 1 < frames.divisor()};
      return {path, center, first, bins, real};
    }
  };

  struct Parts : Columns {
    const float* x;

    Parts(const ConvOfOne& conv, const float* x) : Columns(conv.x), x(x) {}
    static constexpr size_t shared_bytes() { return kReduceBytes; }

    PANNS_DEVICE float center() const {
      const Column column(*this);
      float own = 0;
      for (uint32_t t = column.begin; t < column.end; ++t) {
        own += x[column.clip + int64_t{t} * bins + column.bin];
      }
      const double places = block_reduce(static_cast<double>(column.end - column.begin), Add{});
      return static_cast<float>(block_reduce(double{own}, Add{}) / places);
    }
    // Returns how many there were.
    template <typename Body>
    PANNS_DEVICE uint32_t each_patch(float center, Body&& body) const {
      const Column column(*this);
      if (column.begin == column.end) return 0;
      Walk walk(column.down(*this, x), center);
      for (uint32_t t = column.begin; t < column.end; ++t) {
        walk.step();
        float p[kTaps];
        PANNS_UNROLL
        for (int i = 0; i < kTaps; ++i) p[i] = walk.p[i % 3 * 3 + i / 3];
        body(p);
      }
      return column.end - column.begin;
    }
  };
};

}  // namespace panns::cuda
