#include "backends/cpu/mixup.h"

#include <algorithm>

#include "backends/cpu/chunks.h"

namespace panns::cpu {
namespace {

// Calls body(i, offset, size) over pieces of each of n samples.
template <typename Body>
void for_samples(ThreadPool& pool, int64_t n, int64_t sample, Body&& body) {
  const int64_t chunks = chunk_count(sample);
  pool.run(n * chunks, [&](int64_t unit, int) {
    const int64_t offset = unit % chunks * kChunk;
    body(unit / chunks, offset, std::min(kChunk, sample - offset));
  });
}

}  // namespace

void mixup(ThreadPool& pool, int64_t n, int64_t sample, const float* x, const float* lambda,
           float* out, Tier t) {
  const auto& kernels = mixup_kernels(t);
  for_samples(pool, n, sample, [&](int64_t i, int64_t offset, int64_t size) {
    const float* a = x + 2 * i * sample + offset;
    kernels.forward(a, a + sample, lambda[2 * i], lambda[2 * i + 1], out + i * sample + offset,
                    size);
  });
}

void mixup_backward(ThreadPool& pool, int64_t n, int64_t sample, const float* dout,
                    const float* lambda, float* dx, Tier t) {
  const auto& kernels = mixup_kernels(t);
  for_samples(pool, n, sample, [&](int64_t i, int64_t offset, int64_t size) {
    float* da = dx + 2 * i * sample + offset;
    kernels.backward(dout + i * sample + offset, lambda[2 * i], lambda[2 * i + 1], da, da + sample,
                     size);
  });
}

}  // namespace panns::cpu
