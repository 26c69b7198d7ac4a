// fold_batch_norm: w'(o, ...) = w(o, ...) s(o), b'(o) = beta(o) - mean(o) s(o), with
// s = gamma / sqrt(var + eps).
// Layout: filters [O'][kT][kF][I'], a block a row (one output channel), 4-byte accesses side by
// side as a depthwise row has nine. Bytes an element: 4 read, 4 written, the copy 2 more. measured:
// never run on a GPU yet
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/pack.cuh"
#include "backends/cuda/fold_batch_norm.h"

namespace panns::cuda {
namespace {

template <typename Copy>
__global__ void __launch_bounds__(kThreads)
    fold_batch_norm_kernel(int64_t row, uint32_t channels, double eps, FoldBatchNorm a,
                           Copy* copy) {
  const uint32_t o = blockIdx.x;
  float scale = 0;  // rows of padding stay zero
  if (o < channels) {
    const double exact = a.gamma[o] / sqrt(a.var[o] + eps);
    scale = static_cast<float>(exact);
    if (threadIdx.x == 0) a.bias[o] = static_cast<float>(a.beta[o] - a.mean[o] * exact);
  }
  for (int64_t i = threadIdx.x; i < row; i += kThreads) {
    const float w = a.weight[o * row + i] * scale;
    a.folded[o * row + i] = w;
    if (copy != nullptr) put(copy + o * row + i, w);
  }
}

}  // namespace

void fold_batch_norm(const Launch& launch, const Filter& filter, double eps,
                     const FoldBatchNorm& a) {
  with_storage(a.copy.data == nullptr ? Storage::fp32 : a.copy.type, [&](auto element) {
    using Copy = decltype(element);
    enqueue(launch, "fold_batch_norm", fold_batch_norm_kernel<Copy>, {.x = filter.out_channels()},
            filter.row(), static_cast<uint32_t>(filter.o), eps, a, static_cast<Copy*>(a.copy.data));
  });
}

}  // namespace panns::cuda
