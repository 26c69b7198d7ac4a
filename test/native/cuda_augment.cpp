// spec_augment and mixup of the CUDA backend, on the host, against plain code.
#include "cuda_on_host.h"
// The kernels' sources after it.
#include "backends/cuda/mixup.cu"
#include "backends/cuda/spec_augment.cu"
#include "cuda_values.h"
#include "stripes.h"

using namespace cuda_test;
namespace cuda = panns::cuda;
using panns::backends::StepState;

namespace {

void spec_augment(const Map& map, int64_t time_width, int64_t freq_width) {
  const StepState state = random_state();
  const Floats x = normal(dense_size(map), 5);
  Floats want = x;
  each(map, [&](int64_t n, int64_t, int64_t t, int64_t f) {
    if (test::blank(state, {time_width, freq_width, 3}, map, n, t, f)) {
      want[dense_at(map, n, 0, t, f)] = 0;
    }
  });
  on_orders(
      cat("spec_augment ", text(map), " widths ", time_width, " ", freq_width),
      [&] {
        Array in(x), y(map);
        cuda::spec_augment(kLaunch, {time_width, freq_width, 3}, map, &state, in, y);
        return std::vector<Array>{y};
      },
      [&](const std::vector<Array>& o) { return o[0].floats() == want ? 0.0 : INFINITY; });
}

void mixup(int64_t n, const Run& clip) {
  const Floats x = rounded(clip.type, normal(2 * n * clip.count));
  const Floats dy = rounded(clip.type, normal(n * clip.count)), lambda = uniform(2 * n, 0, 1);
  Doubles y, dx(x.size());
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < clip.count; ++j) {
      const int64_t a = 2 * i * clip.count + j, b = a + clip.count;
      y.push_back(double{x[a]} * lambda[2 * i] + double{x[b]} * lambda[2 * i + 1]);
      dx[a] = double{dy[i * clip.count + j]} * lambda[2 * i];
      dx[b] = double{dy[i * clip.count + j]} * lambda[2 * i + 1];
    }
  }
  on_orders(
      cat("mixup of ", 2 * n, " clips of ", clip.count, " ", text(clip.type)),
      [&] {
        Array in(x, clip.type), g(dy, clip.type), weights(lambda);
        Array out(Run(n * clip.count, clip.type)), back(Run(2 * n * clip.count, clip.type));
        cuda::mixup(kLaunch, n, clip, in, weights, out.data());
        cuda::mixup_backward(kLaunch, n, clip, g, weights, back.data());
        return std::vector<Array>{out, back};
      },
      [&](const std::vector<Array>& o) {
        return std::max(excess(o[0].floats(), y, clip.type, 2e-7, 1),
                        excess(o[1].floats(), dx, clip.type, 2e-7));
      });
}

}  // namespace

int main() {
  spec_augment({8, 1, 1001, 64}, 64, 8);
  spec_augment({16, 1, 31, 7}, 16, 3);
  spec_augment({8, 1, 5, 3}, 64, 8);  // widths beyond the map
  spec_augment({4, 1, 125, 1}, 20, 8);
  for (int64_t clip : {1, 527, 125 * 64}) mixup(3, Run(clip));
  for (Storage type : kStorages) mixup(2, Run(Map{1, 17, 125, 3, type}));
  return tap::done();
}
