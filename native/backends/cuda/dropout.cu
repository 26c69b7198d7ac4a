// dropout: y = keep x / (1 - p), keep drawn again wherever it is needed and never stored.
// Layout: maps [N][T][F][C'] or dense arrays; 16-byte accesses, but for one channel and the end of
// an array. Bytes an element of b bytes: 2 b; some 25 integer instructions an element draw it.
// measured: never run on a GPU yet
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/random.cuh"
#include "backends/cuda/dropout.h"

namespace panns::cuda {
namespace {

// Vector i of a map is vector i % vectors of pixel i / vectors, whose first element in the logical
// map is pixel * channels + 8 * vector.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    dropout_map_kernel(Drop drop, const backends::StepState* state, uint32_t count, Divisor vectors,
                       uint32_t channels, const T* x, T* y) {
  const RandomStream random = stream_of(state, drop.node);
  const uint32_t step = gridDim.x * blockDim.x;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
    const Division at = divide(i, vectors);
    const uint64_t first = uint64_t{at.quotient} * channels + 8 * at.rest;
    const int64_t place = int64_t{i} * 8;
    store<8>(y + place, dropped(load<8>(x + place), drop, random, first, drop.scale));
  }
}

__global__ void __launch_bounds__(kThreads)
    dropout_array_kernel(Drop drop, const backends::StepState* state, int64_t count, const float* x,
                         float* y) {
  const RandomStream random = stream_of(state, drop.node);
  const int64_t first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t step = int64_t{gridDim.x} * blockDim.x, whole = count / 8;
  for (int64_t i = first; i < whole; i += step) {
    store<8>(y + 8 * i,
             dropped(load<8>(x + 8 * i), drop, random, static_cast<uint64_t>(8 * i), drop.scale));
  }
  // Fewer than eight are left, and a block has more threads.
  const int64_t i = 8 * whole + first;
  if (i < count) {
    store<1>(y + i, dropped(load<1>(x + i), drop, random, static_cast<uint64_t>(i), drop.scale));
  }
}

}  // namespace

void dropout(const Launch& launch, const Dropout& dropout, const Map& map,
             const backends::StepState* state, const void* x, void* y) {
  if (map.c == 1) {
    cuda::dropout(launch, dropout, map.size(), state, static_cast<const float*>(x),
                  static_cast<float*>(y));
    return;
  }
  const int64_t count = map.size() / kChannelBlock;
  expect_indexable(count, "dropout");
  with_storage(map.storage(), [&](auto element) {
    using T = decltype(element);
    enqueue(launch, "dropout", dropout_map_kernel<T>, striding(launch, count),
            Drop(dropout.p, dropout.mask), state, static_cast<uint32_t>(count),
            Divisor(map.channels() / kChannelBlock), static_cast<uint32_t>(map.c),
            static_cast<const T*>(x), static_cast<T*>(y));
  });
}

void dropout(const Launch& launch, const Dropout& dropout, int64_t count,
             const backends::StepState* state, const float* x, float* y) {
  enqueue(launch, "dropout", dropout_array_kernel, striding(launch, ceil_div(count, 8)),
          Drop(dropout.p, dropout.mask), state, count, x, y);
}

}  // namespace panns::cuda
