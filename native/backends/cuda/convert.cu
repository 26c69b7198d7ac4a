// import and export: row-major (N, C, T, F) or (O, I, kT, kF) float32 to and from [N][T][F][C'] or
// [O'][kT][kF][I'].
// A thread an element of what is written, 4-byte reads scattered by a row of the other order: these
// run once a program, not once a step.
// widen_samples runs once a step: int16 to float32 in order, 16-byte accesses, 2 bytes read and 4
// written a sample.
// measured: never run on a GPU yet
#include "backends/cuda/convert.h"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/pack.cuh"

namespace panns::cuda {
namespace {

// (outer, c, inner) row-major against [outer'][inner][c']: a map with outer = N and inner = T F, or
// a filter with outer = O and inner = kT kF.
struct Order {
  int64_t outer, channels, inner, padded;
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    import_kernel(int64_t count, Order o, const float* rows, T* y) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const int64_t c = i % o.padded, place = i / o.padded;
    const int64_t outer = place / o.inner, inner = place % o.inner;
    const bool real = c < o.channels && outer < o.outer;
    put(y + i, real ? rows[(outer * o.channels + c) * o.inner + inner] : 0.0f);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    export_kernel(int64_t count, Order o, const T* x, float* rows) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const int64_t inner = i % o.inner, row = i / o.inner;
    const int64_t c = row % o.channels, outer = row / o.channels;
    rows[i] = to_float(x[(outer * o.inner + inner) * o.padded + c]);
  }
}

// Eight samples at a time; of the rest, fewer than eight, one a thread of the first block. The
// division is rounded as IEEE asks, so that the bits are those of the other backends.
__global__ void __launch_bounds__(kThreads)
    widen_samples_kernel(int64_t count, const int16_t* x, float* y) {
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t step = int64_t{gridDim.x} * kThreads, whole = count / 8;
  for (int64_t i = first; i < whole; i += step) {
    union {
      uint4 whole;
      int16_t code[8];
    } in;
    in.whole = *reinterpret_cast<const uint4*>(x + 8 * i);
    Pack<8> out;
    PANNS_UNROLL
    for (int k = 0; k < 8; ++k) out.v[k] = static_cast<float>(in.code[k]) / 32767.0f;
    store<8>(y + 8 * i, out);
  }
  const int64_t i = 8 * whole + first;
  if (i < count) y[i] = static_cast<float>(x[i]) / 32767.0f;
}

Order order_of(const Map& m) { return {m.n, m.c, m.t * m.f, m.channels()}; }
Order order_of(const Filter& f) { return {f.o, f.i, f.kt * f.kf, f.in_channels()}; }

int64_t logical(const Order& o) { return o.outer * o.channels * o.inner; }

}  // namespace

void import_map(const Launch& launch, const Map& map, const float* rows, void* y) {
  with_storage(map.storage(), [&](auto element) {
    using T = decltype(element);
    enqueue(launch, "import", import_kernel<T>, striding(launch, map.size()), map.size(),
            order_of(map), rows, static_cast<T*>(y));
  });
}
void export_map(const Launch& launch, const Map& map, const void* x, float* rows) {
  const int64_t count = logical(order_of(map));
  with_storage(map.storage(), [&](auto element) {
    using T = decltype(element);
    enqueue(launch, "export", export_kernel<T>, striding(launch, count), count, order_of(map),
            static_cast<const T*>(x), rows);
  });
}

void import_filter(const Launch& launch, const Filter& filter, const float* rows, float* w) {
  enqueue(launch, "import", import_kernel<float>, striding(launch, filter.size()), filter.size(),
          order_of(filter), rows, w);
}
void export_filter(const Launch& launch, const Filter& filter, const float* w, float* rows) {
  const int64_t count = logical(order_of(filter));
  enqueue(launch, "export", export_kernel<float>, striding(launch, count), count, order_of(filter),
          w, rows);
}

void widen_samples(const Launch& launch, int64_t count, const int16_t* x, float* y) {
  enqueue(launch, "import", widen_samples_kernel, striding(launch, ceil_div(count, 8)), count, x,
          y);
}

void copy_padded(const Launch& launch, int64_t count, int64_t padded, const float* x, float* y) {
  // One row of `count` channels with its padding behind it.
  enqueue(launch, "copy", import_kernel<float>, striding(launch, padded), padded,
          Order{1, count, 1, padded}, x, y);
}

}  // namespace panns::cuda
