// What the forward and backward passes of batch_norm share: how a map is seen, the affine of a
// thread's channels, and the geometry of the 2x2 pool.
#pragma once

#include "backends/cuda/batch_norm.h"
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/random.cuh"
#include "backends/cuda/device/tile.cuh"

namespace panns::cuda {

// x as a matrix: a row is a pixel, or with `freq` a frame, and a column a feature.
struct NormShape {
  int64_t rows, features, stride;  // stride: features of a row with their padding
  int width;                       // channels of a vector: 8, or 1
  Tiling tiling;

  NormShape(const BatchNorm& norm, const Map& map)
      : rows(norm.freq ? map.n * map.t : map.pixels()),
        features(norm.freq ? map.f : map.c),
        stride(norm.freq ? map.f : map.channels()),
        width(stride % kChannelBlock == 0 ? 8 : 1),
        tiling(stride / width) {}
};

// Scratch, in this order: partial sums of a reduction, those of all processes where there are
// several, and four rows of features.
struct NormWorkspace {
  NormWorkspace(const BatchNorm& norm, const Map& map, void* workspace) : shape(norm, map) {
    // Backward reduces over rows of y: with the pool at most a quarter as many, a quarter as many
    // of which make a chunk.
    int64_t chunks = Chunks(shape.rows, shape.tiling).count;
    // Augmented clips are reduced one by one.
    if (norm.augments()) chunks = larger(chunks, map.n * Chunks(map.t, shape.tiling).count);
    const int64_t sums = 2 * chunks * shape.stride;
    const int64_t all = norm.over_processes ? 2 * shape.features : 0;
    partial = static_cast<double*>(workspace);
    totals = partial + sums;
    features = reinterpret_cast<float*>(totals + all);
    bytes = (sums + all) * static_cast<int64_t>(sizeof(double)) +
            4 * shape.features * static_cast<int64_t>(sizeof(float));
  }
  float* row(int64_t i) const { return features + i * shape.features; }

  NormShape shape;
  int64_t bytes;
  double* partial;  // (chunk, 2, stride)
  double* totals;   // (2, features)
  float* features;
};

// A thread's channels: y = (x - mean) scale + beta. Channels of the padding have zeros.
template <int W>
struct Affine {
  float mean[W], scale[W], beta[W];

  PANNS_DEVICE Affine(uint32_t vector, uint32_t features, const float* means, const float* invstd,
                      const float* gamma, const float* betas) {
    PANNS_UNROLL
    for (int i = 0; i < W; ++i) {
      const uint32_t c = vector * W + i;
      const bool real = c < features;
      mean[i] = real ? means[c] : 0;
      scale[i] = real ? invstd[c] * gamma[c] : 0;
      beta[i] = real ? betas[c] : 0;
    }
  }
  // Forward and backward must agree on which side of 0 a value falls: a product and a sum that the
  // compiler may not choose to round in between.
  PANNS_DEVICE float operator()(int i, float x) const {
    return fmaf(x - mean[i], scale[i], beta[i]);
  }
};

// Rows of the 2x2 pool's output, or of its cells when a dropped last row and column have theirs.
struct PoolGrid {
  Divisor t, f;
  uint32_t in_t = 0, in_f = 0;

  PoolGrid() = default;
  PoolGrid(const Map& map, int64_t out_t, int64_t out_f)
      : t(out_t),
        f(out_f),
        in_t(static_cast<uint32_t>(map.t)),
        in_f(static_cast<uint32_t>(map.f)) {}
  struct Cell {
    uint32_t n, t, f;
  };
  PANNS_DEVICE Cell cell(uint32_t row) const {
    const Division pixel = divide(row, f), frame = divide(pixel.quotient, t);
    return {frame.quotient, frame.rest, pixel.rest};
  }
  // The pixel of the input at (t, f).
  PANNS_DEVICE uint32_t pixel(uint32_t n, uint32_t it, uint32_t jf) const {
    return (n * in_t + it) * in_f + jf;
  }
};

// What stands between the norm and y.
struct Epilogue {
  float floor;   // relu: values at or below it become it, and have no gradient
  float factor;  // of the pool's mean and the dropout's scale
  Drop drop;
  const backends::StepState* state;

  Epilogue(const BatchNorm& norm, const backends::StepState* state)
      : floor(norm.relu ? 0.0f : -INFINITY),
        factor(norm.avg_pool_2x2 ? 0.25f : 1.0f),
        state(state) {
    if (norm.dropout.p <= 0) return;
    drop = Drop(norm.dropout.p, norm.dropout.mask);
    factor *= drop.scale;
  }
};

// Calls body(T{}, width, pool, drop), the last three integral constants, with what a norm asks for.
template <typename Body>
void with_norm_form(const BatchNorm& norm, const Map& map, Body&& body) {
  using std::integral_constant;
  const NormShape shape(norm, map);
  const integral_constant<int, 8> eight;
  const std::true_type yes;
  const std::false_type no;
  if (shape.width == 1) {
    body(float{}, integral_constant<int, 1>{}, no, no);
    return;
  }
  const bool drop = norm.dropout.p > 0;
  with_storage(map.storage(), [&](auto element) {
    if (norm.avg_pool_2x2) {
      drop ? body(element, eight, yes, yes) : body(element, eight, yes, no);
    } else {
      drop ? body(element, eight, no, yes) : body(element, eight, no, no);
    }
  });
}

static __global__ void __launch_bounds__(kThreads)
    inverse_deviation_kernel(uint32_t features, double eps, const float* var, float* invstd) {
  const uint32_t c = blockIdx.x * kThreads + threadIdx.x;
  if (c < features) invstd[c] = static_cast<float>(1 / sqrt(var[c] + eps));
}

// 1 / sqrt(var + eps) of the running variance, in the workspace's row 1.
inline const float* inverse_deviations(const Launch& launch, const BatchNorm& norm,
                                       const NormWorkspace& work, const float* running_var) {
  const auto features = static_cast<uint32_t>(work.shape.features);
  enqueue(launch, "batch_norm", inverse_deviation_kernel, {.x = ceil_div(features, kThreads)},
          features, norm.eps, running_var, work.row(1));
  return work.row(1);
}

inline void check_norm(const BatchNorm& norm, const Map& map) {
  PANNS_CHECK(batch_norm_supported(norm, map), "ERR_PANNS_UNSUPPORTED", "batch_norm",
              "expected a map that the fused form takes (freq: C = 1; pool: C > 1, T and F >= 2; "
              "dropout: C > 1; spec_augment and mixup: freq, and pairs of clips), got (",
              map.n, ", ", map.c, ", ", map.t, ", ", map.f,
              "); run batch_norm and what follows it one by one");
  expect_indexable(map.pixels(), "batch_norm");
}

}  // namespace panns::cuda
