// y = f(x...) over runs of stored elements: eight a thread and step, in accesses of 16 bytes; the
// last count % 8 of a dense array go one by one.
#pragma once

#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/pack.cuh"

namespace panns::cuda {

template <int W, typename F, typename... Packs>
PANNS_DEVICE Pack<W> each_lane(const F& f, const Packs&... x) {
  Pack<W> y;
  PANNS_UNROLL
  for (int i = 0; i < W; ++i) y.v[i] = f(x.v[i]...);
  return y;
}

template <typename F, typename Out, typename... In>
__global__ void __launch_bounds__(kThreads)
    elementwise_kernel(F f, int64_t count, Out* y, const In*... x) {
  const int64_t first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t step = int64_t{gridDim.x} * blockDim.x, whole = count / kChannelBlock;
  for (int64_t i = first; i < whole; i += step) {
    store<8>(y + 8 * i, each_lane<8>(f, load<8>(x + 8 * i)...));
  }
  // Fewer than eight are left, and a block has more threads.
  const int64_t i = 8 * whole + first;
  if (i < count) store<1>(y + i, each_lane<1>(f, load<1>(x + i)...));
}

template <typename F, typename Out, typename... In>
void elementwise(const Launch& launch, const char* name, const F& f, int64_t count, Out* y,
                 const In*... x) {
  enqueue(launch, name, elementwise_kernel<F, Out, In...>,
          striding(launch, ceil_div(count, kChannelBlock)), f, count, y, x...);
}

}  // namespace panns::cuda
