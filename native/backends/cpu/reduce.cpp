#include "backends/cpu/reduce.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/chunks.h"
#include "core/error.h"

namespace panns::cpu {
namespace {

// Floats of an (n, f = 0) row a unit takes: 1024 of them times F = 64 columns read 256 KB.
constexpr int64_t kRowChunk = 1024;

void check_time(const Map& map) {
  PANNS_CHECK(map.f == 1 && map.t > 0, "ERR_PANNS_SHAPE", "reduce_time",
              "expected a map with F = 1 and T >= 1, got T = ", map.t, ", F = ", map.f,
              "; reduce over F first");
}

// C == 1: T floats to one, in plain code (PANNs heads have hundreds of channels).
float reduce_row(TimeReduce kind, const float* x, int64_t count) {
  double sum = 0;
  float best = x[0];
  for (int64_t t = 0; t < count; ++t) {
    sum += x[t];
    if (x[t] > best || std::isnan(x[t])) best = x[t];
  }
  const float mean = static_cast<float>(sum / static_cast<double>(count));
  return kind == TimeReduce::max ? best : kind == TimeReduce::mean ? mean : best + mean;
}

void reduce_row_backward(TimeReduce kind, const float* x, float g, int64_t count, float* dx) {
  const float share = kind == TimeReduce::max ? 0.0f : g / static_cast<float>(count);
  std::fill_n(dx, count, share);
  if (kind == TimeReduce::mean) return;
  int64_t place = 0;
  for (int64_t t = 1; t < count && !std::isnan(x[place]); ++t) {
    if (x[t] > x[place] || std::isnan(x[t])) place = t;
  }
  dx[place] += g;
}

// Calls body(in, offset, size) over pieces of every image's rows.
template <typename Body>
void for_row_chunks(ThreadPool& pool, const Map& map, Body&& body) {
  const int64_t chunks = (map.row() + kRowChunk - 1) / kRowChunk;
  pool.run(map.n * chunks, [&](int64_t unit, int) {
    const int64_t offset = unit % chunks * kRowChunk;
    body(unit / chunks, offset, std::min(kRowChunk, map.row() - offset));
  });
}

}  // namespace

void mean_over_freq(ThreadPool& pool, const Map& map, const float* x, float* y, Tier t) {
  const auto& kernels = reduce_kernels(t);
  for_row_chunks(pool, map, [&](int64_t in, int64_t offset, int64_t size) {
    kernels.mean(x + in * map.image() + offset, map.f, map.row(), y + in * map.row() + offset,
                 size);
  });
}

void mean_over_freq_backward(ThreadPool& pool, const Map& map, const float* dy, float* dx, Tier t) {
  const auto& kernels = reduce_kernels(t);
  for_row_chunks(pool, map, [&](int64_t in, int64_t offset, int64_t size) {
    kernels.spread(dy + in * map.row() + offset, map.f, map.row(), dx + in * map.image() + offset,
                   size);
  });
}

void reduce_time(ThreadPool& pool, TimeReduce kind, const Map& map, const float* x, float* y,
                 Tier t) {
  check_time(map);
  const auto& kernels = reduce_kernels(t);
  const int64_t blocks = map.blocks();
  pool.run(map.n * blocks, [&](int64_t unit, int) {
    const float* panel = x + unit * map.panel();
    if (map.c == 1) {
      y[unit] = reduce_row(kind, panel, map.t);
      return;
    }
    const int64_t in = unit / blocks, first = unit % blocks * kChannelBlock;
    float out[kChannelBlock];
    kernels.time(kind, panel, map.t, out);
    std::copy_n(out, std::min(kChannelBlock, map.c - first), y + in * map.c + first);
  });
}

void reduce_time_backward(ThreadPool& pool, TimeReduce kind, const Map& map, const float* x,
                          const float* dy, float* dx, Tier t) {
  check_time(map);
  const auto& kernels = reduce_kernels(t);
  const int64_t blocks = map.blocks();
  pool.run(map.n * blocks, [&](int64_t unit, int) {
    const float* panel = kind == TimeReduce::mean ? nullptr : x + unit * map.panel();
    if (map.c == 1) {
      reduce_row_backward(kind, panel, dy[unit], map.t, dx + unit * map.t);
      return;
    }
    const int64_t in = unit / blocks, first = unit % blocks * kChannelBlock;
    float g[kChannelBlock] = {};  // zeros for the padding lanes
    std::copy_n(dy + in * map.c + first, std::min(kChannelBlock, map.c - first), g);
    kernels.time_backward(kind, panel, g, map.t, dx + unit * map.panel());
  });
}

}  // namespace panns::cpu
