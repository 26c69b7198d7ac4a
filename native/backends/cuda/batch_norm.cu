// batch_norm, forward: statistics in two deterministic stages, then one pass that normalises and
// applies relu, 2x2 average pool and dropout, or spec_augment and mixup.
//   mean = sum x / M, var = sum (x - mean)^2 / M over the M rows of a feature
//   y = dropout(avg_pool2x2(relu((x - mean) gamma / sqrt(var + eps) + beta))), or
//   y = mixup(spec_augment((x - mean) gamma / sqrt(var + eps) + beta))
// Layout: maps [N][T][F][C'], 16-byte accesses of eight channels; one channel, and bins that eight
// does not divide, go one by one. Bytes an element of x of b bytes: 2 b read (statistics, apply)
// and b written, b / 4 with the pool, b / 2 with mixup.
// Where the convolution before has the sums of x and of x^2, the first pass is left out (b read).
// Over several processes their sums are added up in between: 16 bytes a feature.
// Sums: of (x - shift) with a chunk's first row as shift, in float over a thread's rows, then in
// double; chunks are joined by their means, so nothing cancels. Between processes sums of squares
// do, in double: the mean may be a million deviations away.
// measured: never run on a GPU yet
#include "backends/cuda/device/augment.cuh"

namespace panns::cuda {
namespace {

// partial[chunk] = (mean, sum of squared deviations from it) of the rows of a chunk.
template <typename T, int W>
__global__ void __launch_bounds__(kThreads)
    statistics_kernel(Tiling g, Chunks chunks, int64_t stride, const T* x, double* partial) {
  const Place at(g);
  const uint32_t begin = blockIdx.y * chunks.each, size = chunks.size(blockIdx.y);
  double sums[2 * W];
  Pack<W> shift{};
  float s[W] = {}, q[W] = {};
  if (at.active) {
    x += int64_t{begin} * stride + int64_t{at.vector} * W;
    shift = load<W>(x);
    for (uint32_t row = at.row; row < size; row += g.rows) {
      const Pack<W> v = load<W>(x + row * stride);
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) {
        const float d = v.v[k] - shift.v[k];
        s[k] += d;
        q[k] += d * d;
      }
    }
  }
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    sums[k] = s[k];
    sums[W + k] = q[k];
  }
  sum_rows<2 * W>(g, at, sums);
  if (at.row != 0 || !at.active) return;
  double* out = partial + 2 * blockIdx.y * stride + int64_t{at.vector} * W;
  const double share = 1.0 / size;
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    const double mean = sums[k] * share, rest = sums[W + k] - sums[k] * mean;
    out[k] = shift.v[k] + mean;
    out[stride + k] = rest < 0 ? 0 : rest;  // rounding only; NaN stays
  }
}

struct Moments {
  const double* partial;
  Chunks chunks;
  double rows;  // of all processes
  int64_t stride;
  uint32_t features;
  double eps, momentum;
  float *running_mean, *running_var, *mean, *invstd;
  const float* gate;
};

// Of a feature, from its mean and the sum of squared deviations from it.
PANNS_DEVICE void put_moments(const Moments& a, uint32_t c, double mean, double deviations) {
  const double keep = 1 - a.momentum;
  a.mean[c] = static_cast<float>(mean);
  a.invstd[c] = static_cast<float>(1 / sqrt(deviations / a.rows + a.eps));
  if (!is_open(a.gate)) return;
  a.running_mean[c] = static_cast<float>(keep * a.running_mean[c] + a.momentum * mean);
  a.running_var[c] =
      static_cast<float>(keep * a.running_var[c] + a.momentum * deviations / (a.rows - 1));
}

// A thread a feature.
template <typename V>
__global__ void __launch_bounds__(kThreads)
    moments_of_sums_kernel(Moments a, const V* sum, const V* sum_of_squares) {
  const uint32_t c = blockIdx.x * kThreads + threadIdx.x;
  if (c >= a.features) return;
  const double mean = sum[c] / a.rows;
  const double rest = sum_of_squares[c] - sum[c] * mean;
  put_moments(a, c, mean, rest < 0 ? 0 : rest);  // rounding only; NaN stays
}

// A warp a feature. With `totals` it leaves the sums of x and of x^2 there, for all processes.
__global__ void __launch_bounds__(kThreads) join_statistics_kernel(Moments a, double* totals) {
  const uint32_t c = (blockIdx.x * kThreads + threadIdx.x) / kWarp, lane = threadIdx.x % kWarp;
  if (c >= a.features) return;
  const double rows = a.chunks.rows;
  double sum = 0;
  for (uint32_t i = lane; i < a.chunks.count; i += kWarp) {
    sum += a.chunks.size(i) * a.partial[2 * i * a.stride + c];
  }
  sum = warp_sum(sum);
  const double mean = sum / rows;
  double deviations = 0;
  for (uint32_t i = lane; i < a.chunks.count; i += kWarp) {
    const double* chunk = a.partial + 2 * i * a.stride + c;
    const double d = chunk[0] - mean;
    deviations += chunk[a.stride] + a.chunks.size(i) * d * d;
  }
  deviations = warp_sum(deviations);
  if (lane != 0) return;
  if (totals == nullptr) {
    put_moments(a, c, mean, deviations);
  } else {
    totals[c] = sum;
    totals[a.features + c] = deviations + sum * mean;
  }
}

template <typename T>
struct Forward {
  Tiling tiling;
  uint32_t rows, features;  // rows of y
  int64_t stride;
  const T* x;
  const float *mean, *invstd, *gamma, *beta;
  T* y;
  PoolGrid pool;
  Epilogue epilogue;
};

template <typename T, int W, bool kPool, bool kDrop>
__global__ void __launch_bounds__(kThreads) forward_kernel(Forward<T> a) {
  const Place at(a.tiling);
  if (!at.active) return;
  const Affine<W> affine(at.vector, a.features, a.mean, a.invstd, a.gamma, a.beta);
  const float floor = a.epilogue.floor, factor = a.epilogue.factor;
  RandomStream random;
  if constexpr (kDrop) random = stream_of(a.epilogue.state, a.epilogue.drop.node);
  const T* x = a.x + int64_t{at.vector} * W;
  T* y = a.y + int64_t{at.vector} * W;
  const uint32_t step = gridDim.y * a.tiling.rows;
  for (uint32_t row = blockIdx.y * a.tiling.rows + at.row; row < a.rows; row += step) {
    Pack<W> out{};
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
        const float z = affine(k, v.v[k]);
        out.v[k] += z < floor ? floor : z;
      }
    }
    if constexpr (kDrop) {
      out = dropped(out, a.epilogue.drop, random,
                    uint64_t{row} * a.features + uint64_t{at.vector} * W, factor);
    } else if constexpr (kPool) {
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) out.v[k] *= factor;
    }
    store<W>(y + row * a.stride, out);
  }
}

// A block has frames of one clip of y, whose clips of x are kClips in a row.
template <int W, int kClips>
__global__ void __launch_bounds__(kThreads) augmented_kernel(Forward<float> a, Augment augment) {
  const Place at(a.tiling);
  if (!at.active) return;
  const Affine<W> affine(at.vector, a.features, a.mean, a.invstd, a.gamma, a.beta);
  const uint32_t first = blockIdx.z * kClips;
  const ClipAugment<W> one(augment, first, at.vector * W);
  const ClipAugment<W> two(augment, first + kClips - 1, at.vector * W);
  const int64_t clip = augment.frames * a.stride;
  const float* x = a.x + first * clip + int64_t{at.vector} * W;
  float* y = a.y + blockIdx.z * clip + int64_t{at.vector} * W;
  const auto normed = [&](const float* from) {
    Pack<W> v = load<W>(from);
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) v.v[k] = affine(k, v.v[k]);
    return v;
  };
  const uint32_t step = gridDim.y * a.tiling.rows;
  for (uint32_t t = blockIdx.y * a.tiling.rows + at.row; t < augment.frames; t += step) {
    Pack<W> out = one(t, normed(x + t * a.stride));
    if constexpr (kClips == 2) {
      const Pack<W> other = two(t, normed(x + clip + t * a.stride));
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) out.v[k] += other.v[k];
    }
    store<W>(y + t * a.stride, out);
  }
}

void augmented(const Launch& launch, const BatchNorm& norm, const Map& map,
               const backends::StepState* state, const BatchNormEval& a, const float* mean,
               const float* invstd) {
  const NormShape shape(norm, map);
  const Map out = batch_norm_output(norm, map);
  const Forward<float> args{.tiling = shape.tiling,
                            .features = static_cast<uint32_t>(shape.features),
                            .stride = shape.stride,
                            .x = static_cast<const float*>(a.x),
                            .mean = mean,
                            .invstd = invstd,
                            .gamma = a.gamma,
                            .beta = a.beta,
                            .y = static_cast<float*>(a.y),
                            .epilogue = Epilogue(norm, state)};
  const Grid grid{.x = shape.tiling.tiles, .y = frame_blocks(shape, map), .z = out.n};
  const Augment augment(norm, map, state, a.clip_weights);
  with_bins(shape, [&](auto width) {
    const auto kernel = norm.mixup ? augmented_kernel<width, 2> : augmented_kernel<width, 1>;
    enqueue(launch, "batch_norm", kernel, grid, args, augment);
  });
}

void forward(const Launch& launch, const BatchNorm& norm, const Map& map,
             const backends::StepState* state, const BatchNormEval& a, const float* mean,
             const float* invstd) {
  if (norm.augments()) return augmented(launch, norm, map, state, a, mean, invstd);
  const NormShape shape(norm, map);
  const Map out = batch_norm_output(norm, map);
  const int64_t rows = norm.avg_pool_2x2 ? out.pixels() : shape.rows;
  with_norm_form(norm, map, [&](auto element, auto width, auto pool, auto drop) {
    using T = decltype(element);
    const Forward<T> args{shape.tiling,
                          static_cast<uint32_t>(rows),
                          static_cast<uint32_t>(shape.features),
                          shape.stride,
                          static_cast<const T*>(a.x),
                          mean,
                          invstd,
                          a.gamma,
                          a.beta,
                          static_cast<T*>(a.y),
                          pool ? PoolGrid(map, out.t, out.f) : PoolGrid(),
                          Epilogue(norm, state)};
    enqueue(launch, "batch_norm", forward_kernel<T, width, pool, drop>,
            {.x = shape.tiling.tiles, .y = shape.tiling.stacks(launch, rows)}, args);
  });
}

}  // namespace

Map batch_norm_output(const BatchNorm& norm, const Map& map) {
  if (norm.mixup) return {map.n / 2, map.c, map.t, map.f, map.precision};
  return norm.avg_pool_2x2 ? Map{map.n, map.c, map.t / 2, map.f / 2, map.precision} : map;
}

bool batch_norm_supported(const BatchNorm& norm, const Map& map) {
  if (norm.freq && map.c != 1) return false;
  const bool epilogue = norm.relu || norm.avg_pool_2x2 || norm.dropout.p > 0;
  if (norm.augments() && (!norm.freq || epilogue)) return false;
  if (norm.mixup && map.n % 2 != 0) return false;
  if (norm.avg_pool_2x2 && (map.c == 1 || map.t < 2 || map.f < 2)) return false;
  return norm.dropout.p <= 0 || map.c > 1;
}

int64_t batch_norm_workspace(const BatchNorm& norm, const Map& map) {
  return NormWorkspace(norm, map, nullptr).bytes;
}

void batch_norm_train(const Launch& launch, const BatchNorm& norm, const Map& map,
                      const backends::StepState* state, const BatchNormTrain& a, void* workspace) {
  check_norm(norm, map);
  const NormWorkspace work(norm, map, workspace);
  const NormShape& shape = work.shape;
  const Chunks chunks(shape.rows, shape.tiling);
  float* mean = a.mean != nullptr ? a.mean : work.row(0);
  float* invstd = a.invstd != nullptr ? a.invstd : work.row(1);
  const auto features = static_cast<uint32_t>(shape.features);
  const double rows = static_cast<double>(shape.rows);
  const Moments moments{
      work.partial,  chunks,         a.processes != nullptr ? rows * a.processes->count : rows,
      shape.stride,  features,       norm.eps,
      norm.momentum, a.running_mean, a.running_var,
      mean,          invstd,         a.gate};
  const Grid threads{.x = ceil_div(shape.features, kThreads)};
  if (a.sum != nullptr) {
    enqueue(launch, "batch_norm statistics", moments_of_sums_kernel<float>, threads, moments, a.sum,
            a.sum_of_squares);
  } else {
    with_norm_form(norm, map, [&](auto element, auto width, auto, auto) {
      using T = decltype(element);
      enqueue(launch, "batch_norm statistics", statistics_kernel<T, width>,
              {.x = shape.tiling.tiles,
               .y = chunks.count,
               .shared = 2 * width * kThreads * sizeof(double)},
              shape.tiling, chunks, shape.stride, static_cast<const T*>(a.x), work.partial);
    });
    double* totals = a.processes != nullptr ? work.totals : nullptr;
    enqueue(launch, "batch_norm statistics", join_statistics_kernel,
            {.x = ceil_div(shape.features * kWarp, kThreads)}, moments, totals);
    if (totals != nullptr) {
      a.processes->sum(totals, 2 * shape.features);
      enqueue(launch, "batch_norm statistics", moments_of_sums_kernel<double>, threads, moments,
              static_cast<const double*>(totals), static_cast<const double*>(totals + features));
    }
  }
  forward(launch, norm, map, state, {a.x, a.gamma, a.beta, mean, invstd, a.y, a.clip_weights}, mean,
          invstd);
}

void batch_norm_eval(const Launch& launch, const BatchNorm& norm, const Map& map,
                     const backends::StepState* state, const BatchNormEval& a, void* workspace) {
  check_norm(norm, map);
  const NormWorkspace work(norm, map, workspace);
  const float* invstd = inverse_deviations(launch, norm, work, a.running_var);
  forward(launch, norm, map, state, a, a.running_mean, invstd);
}

}  // namespace panns::cuda
