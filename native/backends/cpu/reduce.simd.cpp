#include "backends/cpu/reduce.h"

#include "backends/cpu/lanes.h"

namespace panns::cpu::PANNS_TIER {
namespace {

constexpr int kMeanVecs = 8;

void mean(const float* x, int64_t count, int64_t stride, float* y, int64_t size) {
  const float share = 1.0f / (float)count;
  int64_t i = 0;
  // Several vectors side by side: rows lie far apart, and a visit to one should read whole lines.
  for (; i + kMeanVecs * kLanes <= size; i += kMeanVecs * kLanes) {
    V sum[kMeanVecs];
    for (int j = 0; j < kMeanVecs; ++j) sum[j] = load(x + i + j * kLanes);
    for (int64_t f = 1; f < count; ++f) {
      const float* row = x + f * stride + i;
      for (int j = 0; j < kMeanVecs; ++j) sum[j] += load(row + j * kLanes);
    }
    for (int j = 0; j < kMeanVecs; ++j) store(y + i + j * kLanes, sum[j] * share);
  }
  for (; i + kLanes <= size; i += kLanes) {
    V sum = load(x + i);
    for (int64_t f = 1; f < count; ++f) sum += load(x + f * stride + i);
    store(y + i, sum * share);
  }
  if (i < size) {
    V sum{};
    for (int64_t f = 0; f < count; ++f) sum += load_part(x + f * stride + i, size - i);
    store_part(y + i, sum * share, size - i);
  }
}

void spread(const float* y, int64_t count, int64_t stride, float* x, int64_t size) {
  const float share = 1.0f / (float)count;
  for (int64_t f = 0; f < count; ++f) {
    map1(y, x + f * stride, size, [share](V v) { return v * share; });
  }
}

// Sums over T frames of 16 channels. Blocks of 64 frames keep the error of a long clip's mean
// near that of one block.
PANNS_INLINE V sum_over_time(const float* x, int64_t rows) {
  V total{};
  for (int64_t begin = 0; begin < rows; begin += 64) {
    const int64_t end = begin + 64 < rows ? begin + 64 : rows;
    V sum{};
    for (int64_t t = begin; t < end; ++t) sum += load(x + t * kBlock);
    total += sum;
  }
  return total;
}

void time(TimeReduce kind, const float* x, int64_t rows, float* y) {
  for (int c = 0; c < kBlock; c += kLanes) {
    V out{};
    if (kind != TimeReduce::mean) {
      out = load(x + c);
      for (int64_t t = 1; t < rows; ++t) {
        const V v = load(x + t * kBlock + c);
        out = ((v > out) | (v != v)) ? v : out;
      }
    }
    if (kind != TimeReduce::max) out += sum_over_time(x + c, rows) * (1.0f / (float)rows);
    store(y + c, out);
  }
}

void time_backward(TimeReduce kind, const float* x, const float* dy, int64_t rows, float* dx) {
  for (int c = 0; c < kBlock; c += kLanes) {
    const V g = load(dy + c);
    const V share = kind == TimeReduce::max ? zero() : g * (1.0f / (float)rows);
    // The first maximum, or the first NaN; -1 matches no frame.
    I place = (I){} - 1;
    if (kind != TimeReduce::mean) {
      V best = load(x + c);
      place = (I){};
      for (int64_t t = 1; t < rows; ++t) {
        const V v = load(x + t * kBlock + c);
        const I better = ((v > best) | (v != v)) & (best == best);
        best = better ? v : best;
        place = better ? (I){} + (int32_t)t : place;
      }
    }
    for (int64_t t = 0; t < rows; ++t) {
      store(dx + t * kBlock + c, share + where(place == (int32_t)t, g));
    }
  }
}

}  // namespace

const ReduceKernels reduce_kernels = {mean, spread, time, time_backward};

}  // namespace panns::cpu::PANNS_TIER
