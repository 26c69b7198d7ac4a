// The CUDA kernels of a bias's gradient, on the host, against sums in double.
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

}  // namespace

int main() {
  for (Storage type : kStorages) {
    column_sums(1, 8, 3, type);
    column_sums(31, 24, 24, type);
    column_sums(513, 528, 527, type);
    column_sums(1500, 40, 33, type);
  }
  column_sums(7, 527, 527, Storage::fp32);
  return tap::done();
}
