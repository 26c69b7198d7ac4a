// The CUDA kernels of a bias and of its gradient, on the host, against doubles.
#include "cuda_on_host.h"
// The kernels' source after it.
#include "backends/cuda/conv_bias.cu"
#include "cuda_values.h"

using namespace cuda_test;
namespace cuda = panns::cuda;

namespace {

// `columns` includes padding channels, of which the gradient has none.
void column_sums(int64_t rows, int64_t columns, int64_t count, Storage type) {
  const Floats dy = rounded(type, normal(rows * columns, 1, 2));
  Doubles want(static_cast<size_t>(count));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < count; ++c) {
      want[static_cast<size_t>(c)] += dy[static_cast<size_t>(r * columns + c)];
    }
  }
  on_orders(
      cat("column_sums ", rows, " x ", columns, " to ", count, " ", text(type)),
      [&] {
        Array in(dy, type), db{Run(count)};
        auto scratch = workspace(cuda::column_sums_workspace(rows, columns));
        cuda::column_sums(kLaunch, rows, columns, count, type, in.data(), db, scratch.data());
        return std::vector<Array>{db};
      },
      [&](const std::vector<Array>& o) {
        // 64 additions in float of terms of size 2, a chunk; the chunks are added in double.
        const double terms = 2 * static_cast<double>(std::min<int64_t>(rows, 512));
        return excess(o[0].floats(), want, Storage::fp32, 1e-6, terms);
      });
}

// In place; channels of the padding have no bias, and keep what they are.
void add_bias(int64_t rows, int64_t columns, int64_t count, Storage type, bool relu) {
  const Floats y = rounded(type, normal(rows * columns, 3, 2)), bias = normal(count, 4, 1);
  Doubles want(y.begin(), y.end());
  for (size_t i = 0; i < want.size(); ++i) {
    const auto c = static_cast<int64_t>(i) % columns;
    if (c < count) want[i] += bias[static_cast<size_t>(c)];
    if (relu) want[i] = std::max(want[i], 0.0);
  }
  on_orders(
      cat("add_bias ", rows, " x ", columns, " of ", count, " ", text(type), relu ? " relu" : ""),
      [&] {
        Array out(y, type), b(bias, Storage::fp32);
        cuda::add_bias(kLaunch, rows, columns, count, type, static_cast<const float*>(b.data()),
                       relu, out.data());
        return std::vector<Array>{out};
      },
      [&](const std::vector<Array>& o) { return excess(o[0].floats(), want, type, 1e-6, 2); });
}

}  // namespace

int main() {
  for (Storage type : kStorages) {
    column_sums(1, 8, 3, type);
    column_sums(31, 24, 24, type);
    column_sums(513, 528, 527, type);
    column_sums(1500, 40, 33, type);
  }
  column_sums(7, 527, 527, Storage::fp32);
  for (Storage type : kStorages) {
    add_bias(31, 24, 24, type, true);
    add_bias(57, 40, 33, type, false);
  }
  add_bias(7, 527, 527, Storage::fp32, true);
  return tap::done();
}
