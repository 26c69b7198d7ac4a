// unsqueeze: a copy. fold: y(n, g, t, f) = x(n, g bins + f, t, 0).
// Layout: maps [N][T][F][C']; fold transposes the channels of each frame, a thread an element of
// the output, its reads close together in the caches (a frame has a few hundred bytes). Bytes an
// element of b bytes: b read, b written.
// measured: never run on a GPU yet
#include "backends/cuda/activation.h"
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/pack.cuh"
#include "backends/cuda/reshape.h"

namespace panns::cuda {
namespace {

// Element i of y is (frame, f, g) of the folded map.
template <typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    fold_kernel(uint32_t count, Divisor channels, Divisor bins, uint32_t used, int64_t in_channels,
                const In* x, Out* y) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += step) {
    const Division pixel = divide(i, channels), frame = divide(pixel.quotient, bins);
    const int64_t from = frame.quotient * in_channels + pixel.rest * bins.divisor() + frame.rest;
    put(y + i, pixel.rest < used ? to_float(x[from]) : 0.0f);
  }
}

// Element i of dx is (frame, channel) of the unfolded map.
template <typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    unfold_kernel(uint32_t count, Divisor channels, Divisor bins, uint32_t used,
                  int64_t in_channels, const In* dy, Out* dx) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += step) {
    const Division frame = divide(i, channels), channel = divide(frame.rest, bins);
    const int64_t pixel = int64_t{frame.quotient} * bins.divisor() + channel.rest;
    const bool real = channel.quotient < used;
    put(dx + i, real ? to_float(dy[pixel * in_channels + channel.quotient]) : 0.0f);
  }
}

Map unfolded(const Map& m) { return {m.n, m.c * m.f, m.t, 1, m.precision}; }

// Calls body(element of `a`, element of `b`): either may have one channel.
template <typename Body>
void with_both(const Map& a, const Map& b, Body&& body) {
  with_storage(a.storage(), [&](auto x) {
    if (b.storage() == a.storage()) {
      body(x, x);
    } else {
      with_storage(b.storage(), [&](auto y) { body(x, y); });
    }
  });
}

}  // namespace

void unsqueeze(const Launch& launch, int64_t samples, const float* x, float* y) {
  cast(launch, samples, Storage::fp32, x, Storage::fp32, y);
}

void fold(const Launch& launch, const Map& folded, const void* x, void* y) {
  const Map in = unfolded(folded);
  expect_indexable(larger(folded.size(), in.size()), "fold");
  with_both(in, folded, [&](auto from, auto to) {
    using In = decltype(from);
    using Out = decltype(to);
    enqueue(launch, "fold", fold_kernel<In, Out>, striding(launch, folded.size()),
            static_cast<uint32_t>(folded.size()), Divisor(folded.channels()), Divisor(folded.f),
            static_cast<uint32_t>(folded.c), in.channels(), static_cast<const In*>(x),
            static_cast<Out*>(y));
  });
}

void fold_backward(const Launch& launch, const Map& folded, const void* dy, void* dx) {
  const Map in = unfolded(folded);
  expect_indexable(larger(folded.size(), in.size()), "fold_backward");
  with_both(folded, in, [&](auto from, auto to) {
    using In = decltype(from);
    using Out = decltype(to);
    enqueue(launch, "fold_backward", unfold_kernel<In, Out>, striding(launch, in.size()),
            static_cast<uint32_t>(in.size()), Divisor(in.channels()), Divisor(folded.f),
            static_cast<uint32_t>(folded.c), folded.channels(), static_cast<const In*>(dy),
            static_cast<Out*>(dx));
  });
}

}  // namespace panns::cuda
