#include "backends/cpu/linear.h"

#include <algorithm>

#include "backends/cpu/activation.h"
#include "core/threads.h"

namespace panns::cpu {
namespace {

// Outputs and input columns a unit takes: multiples of every register tile, small enough that the
// smallest head (527 outputs, 512 inputs) still feeds dozens of cores.
constexpr int64_t kOutputChunk = 16;
constexpr int64_t kColumnChunk = 128;

template <typename Body>
void for_parts(ThreadPool& pool, int64_t count, int64_t chunk, Body&& body) {
  pool.run((count + chunk - 1) / chunk,
           [&](int64_t i, int) { body(i * chunk, std::min(chunk, count - i * chunk)); });
}

}  // namespace

void linear(ThreadPool& pool, const Linear& shape, const float* x, const float* w, const float* b,
            float* y, Tier t) {
  const auto& kernels = linear_kernels(t);
  for_parts(pool, shape.out, kOutputChunk, [&](int64_t first, int64_t count) {
    kernels.forward(shape, x, w, b, y, first, count);
  });
}

int64_t linear_workspace(const Linear& shape) {
  return shape.relu ? shape.n * shape.out * static_cast<int64_t>(sizeof(float)) : 0;
}

void linear_backward(ThreadPool& pool, const Linear& shape, const LinearBackward& a,
                     std::byte* workspace, Tier t) {
  const auto& kernels = linear_kernels(t);
  const float* dy = a.dy;
  if (shape.relu) {
    auto* masked = reinterpret_cast<float*>(workspace);
    activation_backward(pool, Activation::relu, shape.n * shape.out, a.y, a.dy, masked, t);
    dy = masked;
  }
  if (a.dx != nullptr) {
    for_parts(pool, shape.in, kColumnChunk, [&](int64_t first, int64_t count) {
      kernels.backward_data(shape, dy, a.w, a.dx, first, count);
    });
  }
  if (a.dw == nullptr) return;
  for_parts(pool, shape.out, kOutputChunk, [&](int64_t first, int64_t count) {
    kernels.backward_weight(shape, dy, a.x, a.dw, first, count);
    if (a.db == nullptr) return;
    for (int64_t o = first; o < first + count; ++o) {
      double sum = 0;
      for (int64_t n = 0; n < shape.n; ++n) sum += dy[n * shape.out + o];
      a.db[o] = static_cast<float>(sum);
    }
  });
}

}  // namespace panns::cpu
