// Filters of pairs of bins, on the host: against the convolution's own definition, which says what
// each must hold, and the gradient's against sums in double.
#include "cuda_on_host.h"
// The kernels' source after it.
#include "backends/cuda/bin_pairs.cu"
#include "cuda_values.h"

using namespace cuda_test;
namespace cuda = panns::cuda;

namespace {

// Calls body(place in the paired filter, place in the filter or -1) for all of the former.
template <typename Body>
void each_paired(const Filter& f, Body&& body) {
  const int64_t o = f.out_channels(), i = f.in_channels();
  for (int64_t bo = 0; bo < 2; ++bo)
    for (int64_t jo = 0; jo < o; ++jo)
      for (int64_t kt = 0; kt < f.kt; ++kt)
        for (int64_t bi = 0; bi < 2; ++bi)
          for (int64_t ji = 0; ji < i; ++ji) {
            const int64_t paired = (((bo * o + jo) * f.kt + kt) * 2 + bi) * i + ji;
            body(static_cast<size_t>(paired), f.at(jo, ji, kt, bi - bo + 1));
          }
}

void pairs(const Filter& f, Storage from, Storage to) {
  const Floats w = rounded(from, normal(f.size()));
  Floats want(static_cast<size_t>(cuda::paired_size(f)));
  each_paired(f, [&](size_t paired, int64_t plain) {
    want[paired] = round_to(to, w[static_cast<size_t>(plain)]);
  });
  on_orders(
      cat("pair_filter ", f.o, " of ", f.kt, " x 3 x ", f.i, " ", text(from), " to ", text(to)),
      [&] {
        Array in(w, from), out(Run(cuda::paired_size(f), to));
        cuda::pair_filter(kLaunch, f, from, in.data(), to, out.data());
        return std::vector<Array>{out};
      },
      [&](const std::vector<Array>& o) { return o[0].floats() == want ? 0 : INFINITY; });
}

void unpairs(const Filter& f, Storage from) {
  const Floats gradient = rounded(from, normal(cuda::paired_size(f)));
  Doubles want(static_cast<size_t>(f.size()));
  each_paired(f, [&](size_t paired, int64_t plain) {
    want[static_cast<size_t>(plain)] += gradient[paired];
  });
  on_orders(
      cat("unpair_gradient ", f.o, " of ", f.kt, " x 3 x ", f.i, " ", text(from)),
      [&] {
        Array in(gradient, from), out{Run(f.size())};
        cuda::unpair_gradient(kLaunch, f, from, in.data(), out);
        return std::vector<Array>{out};
      },
      [&](const std::vector<Array>& o) {
        return excess(o[0].floats(), want, Storage::fp32, unit(Storage::fp32));
      });
}

}  // namespace

int main() {
  for (const Filter& f : {Filter{8, 8, 3, 3}, Filter{21, 40, 3, 3}, Filter{64, 17, 1, 3}}) {
    for (Storage type : kStorages) {
      pairs(f, type, type);
      if (type != Storage::fp32) pairs(f, Storage::fp32, type);
      unpairs(f, type);
    }
  }
  const auto refused = [](const Filter& f) {
    return throws("ERR_PANNS_UNSUPPORTED", [&] {
      cuda::pair_filter(kLaunch, f, Storage::fp32, nullptr, Storage::fp32, nullptr);
    });
  };
  tap::ok(refused({8, 8, 3, 5}) && refused({8, 1, 3, 3}) && refused({1, 8, 3, 3}),
          "other filters are refused");
  return tap::done();
}
