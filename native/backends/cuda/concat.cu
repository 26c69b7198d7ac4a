// concat: y(n, c, t, f) = a(n, c, t, f) for the channels of a, then b's.
// Layout: maps [N][T][F][C'], a thread eight channels of the output: 16-byte accesses where they
// come from one map at an even place (the first map's channels a multiple of eight), else one by
// one. Bytes an element of b bytes: b read, b written.
// measured: never run on a GPU yet
#include "backends/cuda/concat.h"
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/pack.cuh"

namespace panns::cuda {
namespace {

// One of the maps: elements of a type, float32 if it has one channel.
template <typename T>
struct Side {
  T* data;
  uint32_t channels;
  int64_t stride;  // of a pixel
};

template <typename T>
PANNS_DEVICE float element(const Side<T>& side, uint32_t pixel, uint32_t c) {
  if (side.channels == 1) return reinterpret_cast<const float*>(side.data)[pixel];
  return to_float(side.data[pixel * side.stride + c]);
}

// Eight channels of a map from `first` on, which need not be a multiple of eight; zeros past the
// last.
template <typename T>
PANNS_DEVICE Pack<8> eight_from(const Side<T>& side, uint32_t pixel, uint32_t first) {
  if (first % 8 == 0 && side.channels > 1) {
    return load<8>(side.data + pixel * side.stride + first);
  }
  Pack<8> out;
  PANNS_UNROLL
  for (int k = 0; k < 8; ++k) {
    const uint32_t c = first + k;
    out.v[k] = c < side.channels ? element(side, pixel, c) : 0;
  }
  return out;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    concat_kernel(uint32_t count, Divisor vectors, Side<const T> a, Side<const T> b, T* y) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += step) {
    const Division at = divide(i, vectors);
    const uint32_t first = 8 * at.rest;
    Pack<8> out;
    if (first >= a.channels) {
      out = eight_from(b, at.quotient, first - a.channels);
    } else if (first + 8 <= a.channels) {
      out = eight_from(a, at.quotient, first);
    } else {
      PANNS_UNROLL
      for (int k = 0; k < 8; ++k) {
        const uint32_t c = first + k;
        out.v[k] = c < a.channels                ? element(a, at.quotient, c)
                   : c < a.channels + b.channels ? element(b, at.quotient, c - a.channels)
                                                 : 0;
      }
    }
    store<8>(y + int64_t{i} * 8, out);
  }
}

// The channels of `to` from `first` of dy on.
template <typename T, typename Out, int W>
__global__ void __launch_bounds__(kThreads)
    concat_backward_kernel(uint32_t count, Divisor vectors, Side<const T> dy, uint32_t first,
                           uint32_t channels, Out* to) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += step) {
    const Division at = divide(i, vectors);
    Pack<W> out;
    if constexpr (W == 1) {
      out.v[0] = element(dy, at.quotient, first);
    } else {
      out = eight_from(dy, at.quotient, first + 8 * at.rest);
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) {
        if (8 * at.rest + k >= channels) out.v[k] = 0;
      }
    }
    store<W>(to + int64_t{i} * W, out);
  }
}

template <typename T>
Side<T> side_of(const Map& map, T* data) {
  return {data, static_cast<uint32_t>(map.c), map.channels()};
}

template <typename T>
void part(const Launch& launch, const Map& out, const T* dy, const Map& map, int64_t first,
          void* to) {
  if (to == nullptr) return;
  const int64_t width = map.c == 1 ? 1 : kChannelBlock, count = map.size() / width;
  const auto run = [&](auto kernel, auto* address) {
    enqueue(launch, "concat_backward", kernel, striding(launch, count),
            static_cast<uint32_t>(count), Divisor(map.channels() / width), side_of(out, dy),
            static_cast<uint32_t>(first), static_cast<uint32_t>(map.c), address);
  };
  if (map.c == 1) {
    run(concat_backward_kernel<T, float, 1>, static_cast<float*>(to));
  } else {
    run(concat_backward_kernel<T, T, 8>, static_cast<T*>(to));
  }
}

Map joined(const Map& a, const Map& b) { return {a.n, a.c + b.c, a.t, a.f, a.precision}; }

}  // namespace

void concat(const Launch& launch, const Map& a, const Map& b, const void* xa, const void* xb,
            void* y) {
  const Map out = joined(a, b);
  const int64_t count = out.size() / kChannelBlock;
  expect_indexable(count, "concat");
  with_storage(out.storage(), [&](auto type) {
    using T = decltype(type);
    enqueue(launch, "concat", concat_kernel<T>, striding(launch, count),
            static_cast<uint32_t>(count), Divisor(out.channels() / kChannelBlock),
            side_of(a, static_cast<const T*>(xa)), side_of(b, static_cast<const T*>(xb)),
            static_cast<T*>(y));
  });
}

void concat_backward(const Launch& launch, const Map& a, const Map& b, const void* dy, void* da,
                     void* db) {
  const Map out = joined(a, b);
  expect_indexable(out.size() / kChannelBlock, "concat_backward");
  with_storage(out.storage(), [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(dy);
    part(launch, out, from, a, 0, da);
    part(launch, out, from, b, a.c, db);
  });
}

}  // namespace panns::cuda
