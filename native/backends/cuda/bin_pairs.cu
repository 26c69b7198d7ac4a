// pair_filter: paired[(bo, o)][kt][(bi, i)] = w[o][kt][bi - bo + 1][i], and back for its gradient.
// Layout: w is [O'][kT][3][I'], so that a row (o, kt) holds, one behind the other, what the second
// bin of y reads of both bins of x (taps 0 and 1) and what the first does (taps 1 and 2): both rows
// of `paired`, [2][O'][kT][2 I'], are runs of 2 I' elements of it. A thread eight elements of what
// is written, 16-byte accesses. Bytes a weight: of b bytes 4/3 b read and 4/3 b written (5.3 in 16
// bits, 10.7 in float); back 4/3 b read and 4 written (9.3 from float).
// measured: never run on a GPU yet
#include "backends/cuda/bin_pairs.h"
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/pack.cuh"

namespace panns::cuda {
namespace {

constexpr int kWidth = 8;

// `rows`: of (o, kt). `channels`: I'.
template <typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    pair_kernel(uint32_t count, uint32_t rows, Divisor vectors, int64_t channels, const From* w,
                To* paired) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += step) {
    const Division at = divide(i, vectors);
    const bool first = at.quotient < rows;  // bin of y
    const int64_t row = first ? at.quotient : at.quotient - rows;
    const int64_t from = row * 3 * channels + (first ? channels : 0) + int64_t{at.rest} * kWidth;
    store<kWidth>(paired + int64_t{i} * kWidth, load<kWidth>(w + from));
  }
}

template <typename From>
__global__ void __launch_bounds__(kThreads)
    unpair_kernel(uint32_t count, uint32_t rows, Divisor vectors, int64_t channels,
                  const From* gradient, float* dw) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += step) {
    const Division at = divide(i, vectors);
    const int64_t tap = int64_t{at.rest} * kWidth;  // in the row of three
    const From* first = gradient + int64_t{at.quotient} * 2 * channels;
    const From* second = first + int64_t{rows} * 2 * channels;
    Pack<kWidth> sum{};
    if (tap >= channels) sum = load<kWidth>(first + tap - channels);
    if (tap < 2 * channels) {
      const Pack<kWidth> other = load<kWidth>(second + tap);
      PANNS_UNROLL
      for (int k = 0; k < kWidth; ++k) sum.v[k] += other.v[k];
    }
    store<kWidth>(dw + int64_t{i} * kWidth, sum);
  }
}

uint32_t rows_of(const Filter& filter) {
  PANNS_CHECK(
      filter.kf == 3 && filter.in_channels() % kWidth == 0 && filter.out_channels() % kWidth == 0,
      "ERR_PANNS_UNSUPPORTED", "bin_pairs",
      "expected a filter of three taps along frequency over more than one channel, got ", filter.kt,
      " x ", filter.kf, " over ", filter.i, " into ", filter.o);
  expect_indexable(paired_size(filter), "bin_pairs");
  return static_cast<uint32_t>(filter.out_channels() * filter.kt);
}

}  // namespace

void pair_filter(const Launch& launch, const Filter& filter, Storage from, const void* w,
                 Storage to, void* paired) {
  const uint32_t rows = rows_of(filter);
  const int64_t channels = filter.in_channels(), count = paired_size(filter) / kWidth;
  const auto run = [&](auto in, auto out) {
    using From = decltype(in);
    using To = decltype(out);
    enqueue(launch, "pair_filter", pair_kernel<From, To>, striding(launch, count),
            static_cast<uint32_t>(count), rows, Divisor(2 * channels / kWidth), channels,
            static_cast<const From*>(w), static_cast<To*>(paired));
  };
  with_storage(to, [&](auto out) {
    if (from == to) {
      run(out, out);
    } else {
      PANNS_CHECK(from == Storage::fp32, "ERR_PANNS_INTERNAL", "bin_pairs",
                  "expected the filter in float or in the type of its pairs");
      run(float{}, out);
    }
  });
}

void unpair_gradient(const Launch& launch, const Filter& filter, Storage from, const void* gradient,
                     float* dw) {
  const uint32_t rows = rows_of(filter);
  const int64_t channels = filter.in_channels(), count = filter.size() / kWidth;
  with_storage(from, [&](auto element) {
    using From = decltype(element);
    enqueue(launch, "unpair_gradient", unpair_kernel<From>, striding(launch, count),
            static_cast<uint32_t>(count), rows, Divisor(3 * channels / kWidth), channels,
            static_cast<const From*>(gradient), dw);
  });
}

}  // namespace panns::cuda
