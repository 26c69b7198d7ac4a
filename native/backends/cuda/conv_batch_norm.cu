// conv_batch_norm, forward: the moments of x's patches, the statistics of all channels from them,
// and y from x at once.
// Moments: a thread goes down a column of bins and adds up nine values and 45 products, less the
// mean of the block's part of x, in float; warps are added in float, and all after in double. One
// block joins the parts in order, and has a thread a channel. y: eight channels a thread, which
// keeps their filters in registers and goes along a row of bins, 16-byte stores.
// Layout: x [N][T][F] float, y [N][T][F][C]. Bytes a place: x is read three times, from cache but
// for the first, and b C written, of b bytes an element; convolution, statistics and norm one by
// one move 4 b C. 9 C multiply-adds a place.
// measured: never run on a GPU yet
#include "backends/cuda/conv_batch_norm.h"
#include "backends/cuda/device/patch.cuh"
#include "backends/cuda/device/row.cuh"

namespace panns::cuda {
namespace {

// Sums of a patch's values, then of the products of two of them, first <= second.
constexpr int kPatchSums = kPatch + kPatch * (kPatch + 1) / 2;

PANNS_DEVICE int product_of(int a, int b) {
  const int first = smaller(a, b), second = larger(a, b);
  return kPatch + first * kPatch - first * (first - 1) / 2 + second - first;
}

// partial[sum][block], of the values as they are.
__global__ void __launch_bounds__(kThreads)
    moments_kernel(Columns columns, const float* x, double* partial) {
  const Column column(columns);
  float own = 0;
  for (uint32_t t = column.begin; t < column.end; ++t) {
    own += x[column.clip + int64_t{t} * columns.bins + column.bin];
  }
  const double places = block_reduce(static_cast<double>(column.end - column.begin), Add{});
  const auto center = static_cast<float>(block_reduce(double{own}, Add{}) / places);

  float sums[kPatchSums] = {};
  if (column.begin < column.end) {
    Walk walk(column.down(columns, x), center);
    for (uint32_t t = column.begin; t < column.end; ++t) {
      walk.step();
      int product = kPatch;
      PANNS_UNROLL
      for (int a = 0; a < kPatch; ++a) {
        const float v = walk.p[a % 3][a / 3];
        sums[a] += v;
        PANNS_UNROLL
        for (int b = a; b < kPatch; ++b, ++product) {
          sums[product] = fmaf(v, walk.p[b % 3][b / 3], sums[product]);
        }
      }
    }
  }
  constexpr uint32_t kWarps = kThreads / kWarp;
  float* shared = shared_memory<float>();  // (warp, sum)
  PANNS_UNROLL
  for (int i = 0; i < kPatchSums; ++i) {
    const float sum = warp_sum(sums[i]);
    if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp * kPatchSums + i] = sum;
  }
  __syncthreads();
  const auto total = [&](int i) {
    double sum = 0;
    for (uint32_t warp = 0; warp < kWarps; ++warp) sum += shared[warp * kPatchSums + i];
    return sum;
  };
  double* out = partial + blockIdx.x;
  const int a = threadIdx.x / kPatch, b = threadIdx.x % kPatch;
  if (a >= kPatch || b < a) return;
  // sum p_a p_b of p = q + center.
  const double of_a = total(a), of_b = total(b);
  const double product = total(product_of(a, b)) + center * (of_a + of_b + places * center);
  out[int64_t{product_of(a, b)} * gridDim.x] = product;
  if (a == b) out[int64_t{a} * gridDim.x] = of_a + places * center;
}
constexpr size_t kMomentsBytes = sizeof(float) * kThreads / kWarp * kPatchSums;
static_assert(kMomentsBytes >= kReduceBytes);

struct Statistics {
  const double* partial;
  uint32_t parts, channels;
  double places;  // M
  double eps, momentum;
  const float* w;
  float *running_mean, *running_var, *mean, *invstd, *moments;
  const float* gate;
};

// One block: a warp a sum, then a thread a channel.
__global__ void __launch_bounds__(kThreads) statistics_kernel(Statistics a) {
  double* sums = shared_memory<double>();
  double* covariance = sums + kPatchSums;
  const uint32_t lane = threadIdx.x % kWarp;
  for (uint32_t i = threadIdx.x / kWarp; i < kPatchSums; i += kThreads / kWarp) {
    double sum = 0;
    for (uint32_t part = lane; part < a.parts; part += kWarp) {
      sum += a.partial[int64_t{i} * a.parts + part];
    }
    sum = warp_sum(sum);
    if (lane == 0) sums[i] = sum / a.places;
  }
  __syncthreads();
  const int i = threadIdx.x / kPatch, j = threadIdx.x % kPatch;
  if (i < kPatch) {
    const double v = sums[product_of(i, j)] - sums[i] * sums[j];
    covariance[i * kPatch + j] = v;
    a.moments[kPatch + i * kPatch + j] = static_cast<float>(v);
    if (i == 0) a.moments[j] = static_cast<float>(sums[j]);
  }
  __syncthreads();
  if (threadIdx.x >= a.channels) return;
  const uint32_t c = threadIdx.x;
  double mean = 0, var = 0;
  for (int k = 0; k < kPatch; ++k) {
    const double w = a.w[c * kPatch + k];
    double along = 0;
    for (int l = 0; l < kPatch; ++l) along += covariance[k * kPatch + l] * a.w[c * kPatch + l];
    mean += w * sums[k];
    var += w * along;
  }
  var = var < 0 ? 0 : var;  // rounding only; NaN stays
  const double keep = 1 - a.momentum;
  if (a.mean != nullptr) a.mean[c] = static_cast<float>(mean);
  a.invstd[c] = static_cast<float>(1 / sqrt(var + a.eps));
  if (!is_open(a.gate)) return;
  a.running_mean[c] = static_cast<float>(keep * a.running_mean[c] + a.momentum * mean);
  a.running_var[c] =
      static_cast<float>(keep * a.running_var[c] + a.momentum * var * (a.places / (a.places - 1)));
}

struct Forward {
  Frames frames;
  uint32_t rows, vectors;  // vectors: of eight channels, a power of two
  float floor;             // relu: values at or below it become it
  const float *w, *gamma, *beta, *invstd, *moments;
};

template <typename T>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(Forward a, T* y) {
  const uint32_t vector = threadIdx.x % a.vectors, together = kThreads / a.vectors;
  const Channels channels(vector, a.w, a.gamma, a.beta, a.invstd, a.moments);
  const float center = center_of(a.moments);
  const uint32_t bins = a.frames.bins;
  for (uint32_t row = blockIdx.x * together + threadIdx.x / a.vectors; row < a.rows;
       row += gridDim.x * together) {
    Walk walk(a.frames.along(row), center);
    T* out = y + (int64_t{row} * bins * a.vectors + vector) * kChannelBlock;
    for (uint32_t f = 0; f < bins; ++f) {
      walk.step();
      Pack<kChannelBlock> z;
      PANNS_UNROLL
      for (int k = 0; k < kChannelBlock; ++k) {
        z.v[k] = channels(k, walk.p);
        z.v[k] = z.v[k] < a.floor ? a.floor : z.v[k];
      }
      store<kChannelBlock>(out, z);
      out += a.vectors * kChannelBlock;
    }
  }
}

// Scratch: the parts of the sums, then what nobody else wanted.
struct ForwardWorkspace {
  explicit ForwardWorkspace(const Map& map, void* workspace = nullptr) : columns(map) {
    partial = static_cast<double*>(workspace);
    moments = reinterpret_cast<float*>(partial + kPatchSums * columns.blocks());
    invstd = moments + kPatchMoments;
    bytes = kPatchSums * columns.blocks() * static_cast<int64_t>(sizeof(double)) +
            (kPatchMoments + map.c) * static_cast<int64_t>(sizeof(float));
  }
  Columns columns;
  int64_t bytes;
  double* partial;
  float *moments, *invstd;
};

}  // namespace

bool conv_batch_norm_supported(const BatchNorm& norm, const Map& map) {
  // Lanes of a warp share a place, and a thread adds up a row of bins in float. statistics_kernel
  // has a thread a channel.
  constexpr int64_t kMostBins = 256;
  static_assert(kWarp * kChannelBlock <= kThreads);
  return map.c >= kChannelBlock && map.c <= kWarp * kChannelBlock && (map.c & (map.c - 1)) == 0 &&
         map.f <= kMostBins && !norm.freq && !norm.avg_pool_2x2 && norm.dropout.p <= 0;
}

int64_t conv_batch_norm_workspace(const Map& map) { return ForwardWorkspace(map).bytes; }

void conv_batch_norm_train(const Launch& launch, const BatchNorm& norm, const Map& map,
                           const ConvBatchNormTrain& a, void* workspace) {
  check_conv_batch_norm(norm, map);
  const ForwardWorkspace work(map, workspace);
  float* invstd = a.invstd != nullptr ? a.invstd : work.invstd;
  float* moments = a.moments != nullptr ? a.moments : work.moments;
  const auto channels = static_cast<uint32_t>(map.c);
  enqueue(launch, "conv_batch_norm moments", moments_kernel,
          {.x = work.columns.blocks(), .shared = kMomentsBytes}, work.columns, a.x, work.partial);
  enqueue(launch, "conv_batch_norm statistics", statistics_kernel,
          {.x = 1, .shared = (kPatchSums + kPatch * kPatch) * sizeof(double)},
          Statistics{work.partial, static_cast<uint32_t>(work.columns.blocks()), channels,
                     static_cast<double>(map.pixels()), norm.eps, norm.momentum, a.w,
                     a.running_mean, a.running_var, a.mean, invstd, moments, a.gate});
  const uint32_t vectors = channels / kChannelBlock;
  // Twice as many as fit at once: each has some rows to pay for its filters.
  constexpr int64_t kBlocksEach = 4;
  const int64_t rows = map.n * map.t;
  const Forward args{Frames(a.x, map),
                     static_cast<uint32_t>(rows),
                     vectors,
                     norm.relu ? 0.0f : -INFINITY,
                     a.w,
                     a.gamma,
                     a.beta,
                     invstd,
                     moments};
  with_storage(map.storage(), [&](auto element) {
    using T = decltype(element);
    enqueue(
        launch, "conv_batch_norm", forward_kernel<T>,
        {.x = smaller(ceil_div(rows * vectors, kThreads), launch.multiprocessors * kBlocksEach)},
        args, static_cast<T*>(a.y));
  });
}

}  // namespace panns::cuda
