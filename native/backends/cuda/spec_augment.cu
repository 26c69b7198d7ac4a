// spec_augment: y(n, t, f) = 0 inside the clip's stripes, x elsewhere.
// Layout: maps with one channel, [N][T][F] float32, 4-byte accesses side by side. Bytes an element:
// 4 read, 4 written. Every block draws its clip's stripes: two calls of Philox.
// measured: never run on a GPU yet
#include "backends/backend.h"
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/random.cuh"
#include "backends/cuda/spec_augment.h"

namespace panns::cuda {
namespace {

struct Stripe {
  uint32_t begin, width;
  PANNS_DEVICE bool covers(uint32_t i) const { return i - begin < width; }
};

PANNS_DEVICE Stripe stripe(uint32_t width_word, uint32_t start_word, uint32_t limit,
                           uint32_t total) {
  const uint32_t width = smaller(random_below(width_word, limit), total - 1);
  return {random_below(start_word, total - width), width};
}

__global__ void __launch_bounds__(kThreads)
    spec_augment_kernel(uint32_t time_width, uint32_t freq_width, int32_t node, uint32_t frames,
                        Divisor bins, const backends::StepState* state, const float* x, float* y) {
  const RandomStream random = stream_of(state, node);
  const PhiloxWords t = random_words(random, 2 * uint64_t{blockIdx.y});
  const PhiloxWords f = random_words(random, 2 * uint64_t{blockIdx.y} + 1);
  const Stripe time[] = {stripe(t.word[0], t.word[1], time_width, frames),
                         stripe(t.word[2], t.word[3], time_width, frames)};
  const Stripe freq[] = {stripe(f.word[0], f.word[1], freq_width, bins.divisor()),
                         stripe(f.word[2], f.word[3], freq_width, bins.divisor())};
  const uint32_t size = frames * bins.divisor(), step = gridDim.x * kThreads;
  const int64_t clip = int64_t{blockIdx.y} * size;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < size; i += step) {
    const Division at = divide(i, bins);
    const bool covered = time[0].covers(at.quotient) || time[1].covers(at.quotient) ||
                         freq[0].covers(at.rest) || freq[1].covers(at.rest);
    y[clip + i] = covered ? 0.0f : x[clip + i];
  }
}

}  // namespace

void spec_augment(const Launch& launch, const SpecAugment& augment, const Map& map,
                  const backends::StepState* state, const float* x, float* y) {
  PANNS_CHECK(map.c == 1, "ERR_PANNS_SHAPE", "spec_augment",
              "expected a map with C = 1, got C = ", map.c,
              "; it belongs after bn0, before the first convolution");
  expect_indexable(map.t * map.f, "spec_augment");
  // A thread has some elements, to pay for drawing the stripes.
  constexpr int64_t kEach = 8;
  enqueue(launch, "spec_augment", spec_augment_kernel,
          {.x = ceil_div(map.t * map.f, kThreads * kEach), .y = map.n},
          static_cast<uint32_t>(augment.time_width), static_cast<uint32_t>(augment.freq_width),
          augment.mask, static_cast<uint32_t>(map.t), Divisor(map.f), state, x, y);
}

}  // namespace panns::cuda
