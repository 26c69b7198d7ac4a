#include "backends/cpu/scale.h"

#include "backends/cpu/lanes.h"

namespace panns::cpu::PANNS_TIER {
namespace {

// Blocks of 16 summed one after the other before they join the total: of a long clip's sum the
// error stays near that of one such run.
constexpr int64_t kRun = 64 * kBlock;

void forward(const float* x, const float* s, float* y, int64_t count) {
  V factor[kVecs];
  for (int j = 0; j < kVecs; ++j) factor[j] = load(s + j * kLanes);
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    for (int j = 0; j < kVecs; ++j) store(y + i + j * kLanes, load(x + i + j * kLanes) * factor[j]);
  }
  for (; i < count; ++i) y[i] = x[i] * s[i % kBlock];
}

template <bool kData, bool kSum>
void backward_of(const float* x, const float* s, const float* dy, float* dx, float* sum,
                 int64_t count) {
  V factor[kVecs], total[kVecs] = {};
  for (int j = 0; j < kVecs; ++j) factor[j] = load(s + j * kLanes);
  const int64_t whole = count / kBlock * kBlock;
  for (int64_t begin = 0; begin < whole; begin += kRun) {
    const int64_t end = begin + kRun < whole ? begin + kRun : whole;
    V part[kVecs] = {};
    for (int64_t i = begin; i < end; i += kBlock) {
      for (int j = 0; j < kVecs; ++j) {
        const int64_t at = i + j * kLanes;
        const V g = load(dy + at);
        if (kSum) part[j] += load(x + at) * g;
        if (kData) store(dx + at, g * factor[j]);
      }
    }
    for (int j = 0; j < kVecs; ++j) total[j] += part[j];
  }
  if (kSum) {
    for (int j = 0; j < kVecs; ++j) store(sum + j * kLanes, total[j]);
  }
  for (int64_t i = whole; i < count; ++i) {
    const float g = dy[i];
    if (kSum) sum[i - whole] += x[i] * g;
    if (kData) dx[i] = g * s[i - whole];
  }
}

void backward(const float* x, const float* s, const float* dy, float* dx, float* sum,
              int64_t count) {
  if (dx == nullptr) return backward_of<false, true>(x, s, dy, dx, sum, count);
  if (sum == nullptr) return backward_of<true, false>(x, s, dy, dx, sum, count);
  backward_of<true, true>(x, s, dy, dx, sum, count);
}

}  // namespace

const ScaleKernels scale_kernels = {forward, backward};

}  // namespace panns::cpu::PANNS_TIER
