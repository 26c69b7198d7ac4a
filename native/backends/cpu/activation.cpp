#include "backends/cpu/activation.h"

#include <algorithm>

#include "backends/cpu/chunks.h"

namespace panns::cpu {

void activation(ThreadPool& pool, Activation kind, int64_t count, const float* x, float* y,
                Tier t) {
  const auto& kernels = activation_kernels(t);
  for_chunks(pool, count, [&](int64_t begin, int64_t size, int64_t) {
    kernels.forward(kind, x + begin, y + begin, size);
  });
}

void activation(ThreadPool& pool, Activation kind, const Map& map, const float* x, float* y,
                Tier t) {
  activation(pool, kind, map.size(), x, y, t);
  const int64_t used = map.c % map.block();
  if (kind != Activation::sigmoid || used == 0) return;
  pool.run(map.n * map.f, [&](int64_t row, int) {
    float* panel = y + (row + 1) * map.row() - map.panel();
    for (int64_t it = 0; it < map.t; ++it) {
      std::fill(panel + it * kChannelBlock + used, panel + (it + 1) * kChannelBlock, 0.0f);
    }
  });
}

void activation_backward(ThreadPool& pool, Activation kind, int64_t count, const float* from,
                         const float* dy, float* dx, Tier t) {
  const auto& kernels = activation_kernels(t);
  for_chunks(pool, count, [&](int64_t begin, int64_t size, int64_t) {
    kernels.backward(kind, from + begin, dy + begin, dx + begin, size);
  });
}

void add(ThreadPool& pool, int64_t count, const float* a, const float* b, float* y, Tier t) {
  const auto& kernels = activation_kernels(t);
  for_chunks(pool, count, [&](int64_t begin, int64_t size, int64_t) {
    kernels.add(a + begin, b + begin, y + begin, size);
  });
}

}  // namespace panns::cpu
