#include "backends/cpu/softmax.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/chunks.h"

namespace panns::cpu {
namespace {

// Calls body(row) for every row, about a chunk of floats a unit.
template <typename Body>
void for_rows(ThreadPool& pool, int64_t rows, int64_t k, Body&& body) {
  const int64_t per_unit = std::max<int64_t>(1, kChunk / std::max<int64_t>(1, k));
  pool.run((rows + per_unit - 1) / per_unit, [&](int64_t unit, int) {
    const int64_t end = std::min(rows, (unit + 1) * per_unit);
    for (int64_t row = unit * per_unit; row < end; ++row) body(row);
  });
}

}  // namespace

void softmax(ThreadPool& pool, int64_t rows, int64_t k, const float* x, float* y, Tier t) {
  const auto& kernels = softmax_kernels(t);
  for_rows(pool, rows, k, [&](int64_t row) { kernels.forward(x + row * k, y + row * k, k); });
}

void softmax_backward(ThreadPool& pool, int64_t rows, int64_t k, const float* y, const float* dy,
                      float* dx, Tier t) {
  const auto& kernels = softmax_kernels(t);
  for_rows(pool, rows, k,
           [&](int64_t row) { kernels.backward(y + row * k, dy + row * k, dx + row * k, k); });
}

void log_softmax(ThreadPool& pool, int64_t rows, int64_t k, const float* x, float* y, Tier t) {
  const auto& kernels = softmax_kernels(t);
  for_rows(pool, rows, k, [&](int64_t row) {
    float maximum;
    double sum;
    kernels.exp_sum(x + row * k, k, &maximum, &sum);
    // Rounding maximum + log(sum) would cost accuracy when the maximum is large: two steps.
    kernels.subtract(x + row * k, maximum, y + row * k, k);
    kernels.subtract(y + row * k, static_cast<float>(std::log(sum)), y + row * k, k);
  });
}

void log_softmax_backward(ThreadPool& pool, int64_t rows, int64_t k, const float* y,
                          const float* dy, float* dx, Tier t) {
  const auto& kernels = softmax_kernels(t);
  for_rows(pool, rows, k,
           [&](int64_t row) { kernels.log_backward(y + row * k, dy + row * k, dx + row * k, k); });
}

}  // namespace panns::cpu
