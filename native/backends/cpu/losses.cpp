#include "backends/cpu/losses.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/chunks.h"
#include "backends/cpu/softmax.h"

namespace panns::cpu {
namespace {

// The sum over rows of body(row), divided by count.
template <typename Body>
float mean_of_rows(ThreadPool& pool, int64_t n, int64_t count, std::byte* workspace, Body&& body) {
  auto* partial = reinterpret_cast<double*>(workspace);
  pool.run(n, [&](int64_t row, int) { partial[row] = body(row); });
  double sum = 0;
  for (int64_t row = 0; row < n; ++row) sum += partial[row];
  return static_cast<float>(sum / static_cast<double>(count));
}

// std::max in this order keeps a NaN.
double clamped(double logarithm) { return std::max(logarithm, -100.0); }

}  // namespace

int64_t loss_workspace(int64_t n) { return n * static_cast<int64_t>(sizeof(double)); }

void bce(ThreadPool& pool, int64_t n, int64_t k, const float* p, const float* y, float* loss,
         std::byte* workspace) {
  *loss = mean_of_rows(pool, n, n * k, workspace, [&](int64_t row) {
    double sum = 0;
    for (int64_t i = row * k; i < (row + 1) * k; ++i) {
      const double pi = p[i], yi = y[i];
      sum -= yi * clamped(std::log(pi)) + (1 - yi) * clamped(std::log(1 - pi));
    }
    return sum;
  });
}

void bce_backward(ThreadPool& pool, int64_t n, int64_t k, const float* p, const float* y,
                  float* dp) {
  const float count = static_cast<float>(n * k);
  for_chunks(pool, n * k, [&](int64_t begin, int64_t size, int64_t) {
    for (int64_t i = begin; i < begin + size; ++i) {
      dp[i] = (p[i] - y[i]) / std::max((1.0f - p[i]) * p[i], 1e-12f) / count;
    }
  });
}

void sigmoid_bce_backward(ThreadPool& pool, int64_t n, int64_t k, const float* p, const float* y,
                          float* dz) {
  const float count = static_cast<float>(n * k);
  for_chunks(pool, n * k, [&](int64_t begin, int64_t size, int64_t) {
    for (int64_t i = begin; i < begin + size; ++i) dz[i] = (p[i] - y[i]) / count;
  });
}

void cross_entropy(ThreadPool& pool, int64_t n, int64_t k, const float* z, const float* y,
                   float* loss, std::byte* workspace, Tier t) {
  const auto& kernels = softmax_kernels(t);
  *loss = mean_of_rows(pool, n, n, workspace, [&](int64_t row) {
    float maximum;
    double sum;
    kernels.exp_sum(z + row * k, k, &maximum, &sum);
    const double log_sum = std::log(sum);
    double loss_of_row = 0;
    for (int64_t i = row * k; i < (row + 1) * k; ++i) {
      // A zero target takes no part, even where its logit is -infinity.
      if (y[i] != 0) loss_of_row -= y[i] * (static_cast<double>(z[i]) - maximum - log_sum);
    }
    return loss_of_row;
  });
}

void cross_entropy_backward(ThreadPool& pool, int64_t n, int64_t k, const float* z, const float* y,
                            float* dz, Tier t) {
  const auto& kernels = softmax_kernels(t);
  const float share = 1.0f / static_cast<float>(n);
  pool.run(n, [&](int64_t row, int) {
    const float* targets = y + row * k;
    float* out = dz + row * k;
    double total = 0;
    for (int64_t i = 0; i < k; ++i) total += targets[i];
    kernels.forward(z + row * k, out, k);
    for (int64_t i = 0; i < k; ++i) {
      out[i] = (out[i] * static_cast<float>(total) - targets[i]) * share;
    }
  });
}

}  // namespace panns::cpu
