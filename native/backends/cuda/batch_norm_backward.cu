// batch_norm, backward through dropout, 2x2 average pool and relu, or mixup and spec_augment, in
// the same passes: sums in two deterministic stages, then dx.
//   g = dy through what follows the norm; dbeta = sum g; dgamma = sum g (x - mean) invstd
//   dx = scale g + c0 + c1 (x - mean), scale = gamma invstd, c0 = -scale dbeta / M,
//        c1 = -scale invstd dgamma / M
// Over several processes M and the sums in dx are those of all, 16 bytes a feature; dgamma and
// dbeta are of this one's rows. Rows and columns that the pool dropped have g = 0, not dx = 0. With
// constant statistics c0 = c1 = 0. Layout: maps [N][T][F][C'], 16-byte accesses of eight channels;
// one channel, and bins that eight does not divide, go one by one. Bytes an element of x of b
// bytes: 2 b of x and 2 b of dy read (b / 2 with the pool), b written; where dx is not wanted, as
// of bn0, b and b read (of dy each pair's, with mixup). measured: never run on a GPU yet
#include "backends/cuda/device/augment.cuh"

namespace panns::cuda {
namespace {

template <typename T>
struct Backward {
  Tiling tiling;
  uint32_t rows, features;  // rows of y, or of cells
  int64_t stride;
  const T *x, *dy;
  const float *mean, *invstd, *gamma, *beta;
  PoolGrid pool;
  Epilogue epilogue;
};

// dy of a row of y, through dropout and the pool's mean.
template <int W, bool kDrop, typename T>
PANNS_DEVICE Pack<W> arrived(const Backward<T>& a, const Place& at, uint32_t row,
                             const RandomStream& random) {
  Pack<W> g = load<W>(a.dy + row * a.stride + int64_t{at.vector} * W);
  const float factor = a.epilogue.factor;
  if constexpr (kDrop) {
    g = dropped(g, a.epilogue.drop, random, uint64_t{row} * a.features + uint64_t{at.vector} * W,
                factor);
  } else {
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) g.v[k] *= factor;
  }
  return g;
}

// As in PyTorch, a NaN lets the gradient of the relu through.
PANNS_DEVICE float through(float g, float z, float floor) { return z <= floor ? 0.0f : g; }

template <bool kDrop, typename T>
PANNS_DEVICE RandomStream stream_for(const Backward<T>& a) {
  if constexpr (kDrop) {
    return stream_of(a.epilogue.state, a.epilogue.drop.node);
  } else {
    return {};
  }
}

// partial[chunk] = (sum g, sum g (x - mean)), of the whole block. Every thread calls it.
template <int W>
PANNS_DEVICE void put_sums(const Tiling& tiling, const Place& at, const float* s, const float* q,
                           int64_t stride, double* chunk) {
  double sums[2 * W];
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    sums[k] = s[k];
    sums[W + k] = q[k];
  }
  sum_rows<2 * W>(tiling, at, sums);
  if (at.row != 0 || !at.active) return;
  double* out = chunk + int64_t{at.vector} * W;
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    out[k] = sums[k];
    out[stride + k] = sums[W + k];
  }
}

template <typename T, int W, bool kPool, bool kDrop>
__global__ void __launch_bounds__(kThreads)
    backward_sums_kernel(Backward<T> a, Chunks chunks, double* partial) {
  const Place at(a.tiling);
  float s[W] = {}, q[W] = {};
  if (at.active) {
    const Affine<W> affine(at.vector, a.features, a.mean, a.invstd, a.gamma, a.beta);
    const RandomStream random = stream_for<kDrop>(a);
    const T* x = a.x + int64_t{at.vector} * W;
    const uint32_t begin = blockIdx.y * chunks.each, end = begin + chunks.size(blockIdx.y);
    for (uint32_t row = begin + at.row; row < end; row += a.tiling.rows) {
      const Pack<W> g = arrived<W, kDrop>(a, at, row, random);
      uint32_t pixel = row;
      if constexpr (kPool) {
        const PoolGrid::Cell cell = a.pool.cell(row);
        pixel = a.pool.pixel(cell.n, 2 * cell.t, 2 * cell.f);
      }
      PANNS_UNROLL
      for (int side = 0; side < (kPool ? 4 : 1); ++side) {
        const uint32_t from = pixel + (side & 1) + (side / 2) * a.pool.in_f;
        const Pack<W> v = load<W>(x + from * a.stride);
        PANNS_UNROLL
        for (int k = 0; k < W; ++k) {
          const float d = through(g.v[k], affine(k, v.v[k]), a.epilogue.floor);
          s[k] += d;
          q[k] += d * (v.v[k] - affine.mean[k]);
        }
      }
    }
  }
  put_sums<W>(a.tiling, at, s, q, a.stride, partial + 2 * blockIdx.y * a.stride);
}

// Of the clip blockIdx.z of x; kClips of them are one of y.
template <int W, int kClips>
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    augmented_sums_kernel(Backward<float> a, Augment augment, Chunks chunks, double* partial) {
  const Place at(a.tiling);
  float s[W] = {}, q[W] = {};
  if (at.active) {
    const Affine<W> affine(at.vector, a.features, a.mean, a.invstd, a.gamma, a.beta);
    const ClipAugment<W> clip(augment, blockIdx.z, at.vector * W);
    const int64_t size = augment.frames * a.stride, offset = int64_t{at.vector} * W;
    const float* x = a.x + blockIdx.z * size + offset;
    const float* dy = a.dy + blockIdx.z / kClips * size + offset;
    const uint32_t begin = blockIdx.y * chunks.each, end = begin + chunks.size(blockIdx.y);
    for (uint32_t t = begin + at.row; t < end; t += a.tiling.rows) {
      const Pack<W> g = clip(t, load<W>(dy + t * a.stride)), v = load<W>(x + t * a.stride);
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) {
        s[k] += g.v[k];
        q[k] += g.v[k] * (v.v[k] - affine.mean[k]);
      }
    }
  }
  const int64_t chunk = int64_t{blockIdx.z} * chunks.count + blockIdx.y;
  put_sums<W>(a.tiling, at, s, q, a.stride, partial + 2 * chunk * a.stride);
}

struct Gradients {
  const double* partial;
  uint32_t chunks;
  int64_t stride;
  uint32_t features;
  double rows;  // M: those of x, of all processes
  const float *gamma, *invstd;
  float *dgamma, *dbeta;  // may be null
  float *c0, *c1;         // null where the statistics are constants
};

PANNS_DEVICE void put_coefficients(const Gradients& a, uint32_t c, double g, double gx) {
  const double invstd = a.invstd[c], scale = invstd * a.gamma[c];
  a.c0[c] = static_cast<float>(-scale * g / a.rows);
  a.c1[c] = static_cast<float>(-scale * invstd * invstd * gx / a.rows);
}

// A thread a feature.
__global__ void __launch_bounds__(kThreads) coefficients_kernel(Gradients a, const double* totals) {
  const uint32_t c = blockIdx.x * kThreads + threadIdx.x;
  if (c < a.features) put_coefficients(a, c, totals[c], totals[a.features + c]);
}

// A warp a feature. With `totals` it leaves both sums there, for all processes.
__global__ void __launch_bounds__(kThreads) join_gradients_kernel(Gradients a, double* totals) {
  const uint32_t c = (blockIdx.x * kThreads + threadIdx.x) / kWarp, lane = threadIdx.x % kWarp;
  if (c >= a.features) return;
  double g = 0, gx = 0;
  for (uint32_t i = lane; i < a.chunks; i += kWarp) {
    const double* chunk = a.partial + 2 * i * a.stride + c;
    g += chunk[0];
    gx += chunk[a.stride];
  }
  g = warp_sum(g);
  gx = warp_sum(gx);
  if (lane != 0) return;
  if (a.dgamma != nullptr) a.dgamma[c] = static_cast<float>(gx * a.invstd[c]);
  if (a.dbeta != nullptr) a.dbeta[c] = static_cast<float>(g);
  if (totals != nullptr) {
    totals[c] = g;
    totals[a.features + c] = gx;
  } else if (a.c0 != nullptr) {
    put_coefficients(a, c, g, gx);
  }
}

// What the statistics' dependence on x adds to dx: c0 + c1 (x - mean), of a thread's channels.
template <int W>
struct Means {
  float c0[W], c1[W];

  PANNS_DEVICE Means(uint32_t vector, uint32_t features, const float* c0s, const float* c1s) {
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) {
      const uint32_t c = vector * W + k;
      c0[k] = c0s != nullptr && c < features ? c0s[c] : 0;
      c1[k] = c1s != nullptr && c < features ? c1s[c] : 0;
    }
  }
  PANNS_DEVICE float operator()(int k, float from_mean) const { return c0[k] + c1[k] * from_mean; }
};

// Two blocks a multiprocessor: aiming at three, ptxas spills on sm_100.
template <typename T, int W, bool kPool, bool kDrop>
__global__ void __launch_bounds__(kThreads, 2)
    backward_apply_kernel(Backward<T> a, const float* c0s, const float* c1s, uint32_t out_t,
                          uint32_t out_f, T* dx) {
  const Place at(a.tiling);
  if (!at.active) return;
  const Affine<W> affine(at.vector, a.features, a.mean, a.invstd, a.gamma, a.beta);
  const Means<W> means(at.vector, a.features, c0s, c1s);
  const RandomStream random = stream_for<kDrop>(a);
  const int64_t offset = int64_t{at.vector} * W;
  const uint32_t step = gridDim.y * a.tiling.rows;
  for (uint32_t row = blockIdx.y * a.tiling.rows + at.row; row < a.rows; row += step) {
    Pack<W> g{};
    uint32_t pixel = row;
    bool below = true, beside = true;  // whether the cell has a second row and column
    if constexpr (kPool) {
      const PoolGrid::Cell cell = a.pool.cell(row);
      pixel = a.pool.pixel(cell.n, 2 * cell.t, 2 * cell.f);
      below = 2 * cell.t + 1 < a.pool.in_t;
      beside = 2 * cell.f + 1 < a.pool.in_f;
      if (below && beside) {
        g = arrived<W, kDrop>(a, at, (cell.n * out_t + cell.t) * out_f + cell.f, random);
      }
    } else {
      g = arrived<W, kDrop>(a, at, row, random);
    }
    PANNS_UNROLL
    for (int side = 0; side < (kPool ? 4 : 1); ++side) {
      if ((side & 1 && !beside) || (side / 2 && !below)) continue;
      const uint32_t from = pixel + (side & 1) + (side / 2) * a.pool.in_f;
      const Pack<W> v = load<W>(a.x + from * a.stride + offset);
      Pack<W> out;
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) {
        const float d = through(g.v[k], affine(k, v.v[k]), a.epilogue.floor);
        out.v[k] = affine.scale[k] * d + means(k, v.v[k] - affine.mean[k]);
      }
      store<W>(dx + from * a.stride + offset, out);
    }
  }
}

// dx of the clip blockIdx.z.
template <int W, int kClips>
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    augmented_apply_kernel(Backward<float> a, Augment augment, const float* c0s, const float* c1s,
                           float* dx) {
  const Place at(a.tiling);
  if (!at.active) return;
  const Affine<W> affine(at.vector, a.features, a.mean, a.invstd, a.gamma, a.beta);
  const Means<W> means(at.vector, a.features, c0s, c1s);
  const ClipAugment<W> clip(augment, blockIdx.z, at.vector * W);
  const int64_t size = augment.frames * a.stride, offset = int64_t{at.vector} * W;
  const int64_t from = blockIdx.z * size + offset;
  const float* dy = a.dy + blockIdx.z / kClips * size + offset;
  const uint32_t step = gridDim.y * a.tiling.rows;
  for (uint32_t t = blockIdx.y * a.tiling.rows + at.row; t < augment.frames; t += step) {
    const Pack<W> g = clip(t, load<W>(dy + t * a.stride));
    const Pack<W> v = load<W>(a.x + from + t * a.stride);
    Pack<W> out;
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) {
      out.v[k] = affine.scale[k] * g.v[k] + means(k, v.v[k] - affine.mean[k]);
    }
    store<W>(dx + from + t * a.stride, out);
  }
}

// The sums' second stage, in fixed order; between processes too.
void join(const Launch& launch, const BatchNormBackward& a, const NormWorkspace& work,
          int64_t chunks, float* c0, float* c1) {
  const NormShape& shape = work.shape;
  const auto features = static_cast<uint32_t>(shape.features);
  double* totals = a.processes != nullptr ? work.totals : nullptr;
  const double own = static_cast<double>(shape.rows);
  const Gradients gradients{work.partial,
                            static_cast<uint32_t>(chunks),
                            shape.stride,
                            features,
                            totals != nullptr ? own * a.processes->count : own,
                            a.gamma,
                            a.invstd,
                            a.dgamma,
                            a.dbeta,
                            c0,
                            c1};
  enqueue(launch, "batch_norm_backward", join_gradients_kernel,
          {.x = ceil_div(shape.features * kWarp, kThreads)}, gradients, totals);
  if (totals == nullptr) return;
  a.processes->sum(totals, 2 * shape.features);
  enqueue(launch, "batch_norm_backward", coefficients_kernel,
          {.x = ceil_div(shape.features, kThreads)}, gradients, static_cast<const double*>(totals));
}

void augmented_backward(const Launch& launch, const BatchNorm& norm, const Map& map,
                        const backends::StepState* state, const BatchNormBackward& a,
                        const NormWorkspace& work, float* c0, float* c1) {
  const NormShape& shape = work.shape;
  const Chunks chunks(map.t, shape.tiling);
  const Backward<float> args{.tiling = shape.tiling,
                             .features = static_cast<uint32_t>(shape.features),
                             .stride = shape.stride,
                             .x = static_cast<const float*>(a.x),
                             .dy = static_cast<const float*>(a.dy),
                             .mean = a.mean,
                             .invstd = a.invstd,
                             .gamma = a.gamma,
                             .beta = a.beta,
                             .epilogue = Epilogue(norm, state)};
  const Augment augment(norm, map, state, a.clip_weights);
  with_bins(shape, [&](auto width) {
    if (c0 != nullptr || a.dgamma != nullptr || a.dbeta != nullptr) {
      enqueue(launch, "batch_norm_backward",
              norm.mixup ? augmented_sums_kernel<width, 2> : augmented_sums_kernel<width, 1>,
              {.x = shape.tiling.tiles,
               .y = chunks.count,
               .z = map.n,
               .shared = 2 * width * kThreads * sizeof(double)},
              args, augment, chunks, work.partial);
      join(launch, a, work, map.n * chunks.count, c0, c1);
    }
    if (a.dx == nullptr) return;
    enqueue(launch, "batch_norm_backward",
            norm.mixup ? augmented_apply_kernel<width, 2> : augmented_apply_kernel<width, 1>,
            {.x = shape.tiling.tiles, .y = frame_blocks(shape, map), .z = map.n}, args, augment,
            static_cast<const float*>(c0), static_cast<const float*>(c1),
            static_cast<float*>(a.dx));
  });
}

// With `train` dx has the two mean terms, of the statistics that depend on x.
void backward(const Launch& launch, const BatchNorm& norm, const Map& map,
              const backends::StepState* state, const BatchNormBackward& a,
              const NormWorkspace& work, bool train) {
  float *c0 = train ? work.row(2) : nullptr, *c1 = train ? work.row(3) : nullptr;
  if (norm.augments()) return augmented_backward(launch, norm, map, state, a, work, c0, c1);
  const NormShape& shape = work.shape;
  const Map out = batch_norm_output(norm, map);
  const int64_t rows = norm.avg_pool_2x2 ? out.pixels() : shape.rows;
  const Chunks chunks(rows, shape.tiling, norm.avg_pool_2x2 ? 4 : 1);
  const bool sums = train || a.dgamma != nullptr || a.dbeta != nullptr;
  with_norm_form(norm, map, [&](auto element, auto width, auto pool, auto drop) {
    using T = decltype(element);
    Backward<T> args{shape.tiling,
                     static_cast<uint32_t>(rows),
                     static_cast<uint32_t>(shape.features),
                     shape.stride,
                     static_cast<const T*>(a.x),
                     static_cast<const T*>(a.dy),
                     a.mean,
                     a.invstd,
                     a.gamma,
                     a.beta,
                     pool ? PoolGrid(map, out.t, out.f) : PoolGrid(),
                     Epilogue(norm, state)};
    if (sums) {
      enqueue(launch, "batch_norm_backward", backward_sums_kernel<T, width, pool, drop>,
              {.x = shape.tiling.tiles,
               .y = chunks.count,
               .shared = 2 * width * kThreads * sizeof(double)},
              args, chunks, work.partial);
      join(launch, a, work, chunks.count, c0, c1);
    }
    if (a.dx == nullptr) return;
    if constexpr (pool) {
      // A cell more where the pool dropped a row or column, whose dx is written too.
      const int64_t cells_t = ceil_div(map.t, 2), cells_f = ceil_div(map.f, 2);
      args.pool = PoolGrid(map, cells_t, cells_f);
      args.rows = static_cast<uint32_t>(map.n * cells_t * cells_f);
    }
    enqueue(launch, "batch_norm_backward", backward_apply_kernel<T, width, pool, drop>,
            {.x = shape.tiling.tiles, .y = shape.tiling.stacks(launch, args.rows)}, args,
            static_cast<const float*>(c0), static_cast<const float*>(c1),
            static_cast<uint32_t>(out.t), static_cast<uint32_t>(out.f), static_cast<T*>(a.dx));
  });
}

}  // namespace

void batch_norm_backward(const Launch& launch, const BatchNorm& norm, const Map& map,
                         const backends::StepState* state, const BatchNormBackward& a,
                         void* workspace) {
  check_norm(norm, map);
  backward(launch, norm, map, state, a, NormWorkspace(norm, map, workspace), true);
}

void batch_norm_eval_backward(const Launch& launch, const BatchNorm& norm, const Map& map,
                              const backends::StepState* state, const BatchNormEvalBackward& a,
                              void* workspace) {
  check_norm(norm, map);
  const NormWorkspace work(norm, map, workspace);
  const float* invstd = inverse_deviations(launch, norm, work, a.running_var);
  backward(launch, norm, map, state,
           {a.x, a.gamma, a.beta, a.running_mean, invstd, a.dy, a.dx, a.dgamma, a.dbeta, nullptr,
            a.clip_weights},
           work, false);
}

}  // namespace panns::cuda
