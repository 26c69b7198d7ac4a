// conv_batch_norm, forward: the moments of x's patches, the statistics of all channels from them,
// and y from x at once.
// Moments: a thread goes down a column of bins, or over some places of a waveform, and adds up the
// K values and K (K + 1) / 2 products of each patch, less the mean of the block's part of x, in
// float; warps are added in float, and all after in double. One block joins the parts in order, and
// has a thread a channel. y: eight channels a thread, which keeps their filters in registers and
// goes from place to place, 16-byte stores.
// Layout: x [N][T][F] float, y [N][T'][F'][C]. Bytes a place: x is read three times, from cache but
// for the first, and b C written, of b bytes an element; convolution, statistics and norm one by
// one move 4 b C. K C multiply-adds a place.
// measured: never run on a GPU yet
#include "backends/cuda/conv_batch_norm.h"
#include "backends/cuda/device/patch.cuh"
#include "backends/cuda/device/row.cuh"

namespace panns::cuda {
namespace {

// Sums of a patch's values, then of the products of two of them, first <= second.
template <int kTaps>
constexpr int kPatchSums = kTaps + kTaps*(kTaps + 1) / 2;

template <int kTaps>
PANNS_DEVICE int product_of(int a, int b) {
  const int first = smaller(a, b), second = larger(a, b);
  return kTaps + first * kTaps - first * (first - 1) / 2 + second - first;
}

constexpr uint32_t kWarps = kThreads / kWarp;

template <typename Patches>
constexpr size_t kMomentsBytes = larger(sizeof(float) * kWarps * kPatchSums<Patches::kTaps>,
                                        Patches::Parts::shared_bytes());

// partial[sum][block], of the values as they are.
template <typename Patches>
__global__ void __launch_bounds__(kThreads)
    moments_kernel(typename Patches::Parts parts, double* partial) {
  constexpr int kTaps = Patches::kTaps, kSums = kPatchSums<kTaps>;
  const float center = parts.center();
  float sums[kSums] = {};
  const uint32_t own = parts.each_patch(center, [&](const float(&p)[kTaps]) {
    int product = kTaps;
    PANNS_UNROLL
    for (int a = 0; a < kTaps; ++a) {
      sums[a] += p[a];
      PANNS_UNROLL
      for (int b = a; b < kTaps; ++b, ++product) sums[product] = fmaf(p[a], p[b], sums[product]);
    }
  });
  __syncthreads();  // nobody reads x from shared memory
  const double places = block_reduce(static_cast<double>(own), Add{});
  float* shared = shared_memory<float>();  // (warp, sum)
  PANNS_UNROLL
  for (int i = 0; i < kSums; ++i) {
    const float sum = warp_sum(sums[i]);
    if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp * kSums + i] = sum;
  }
  __syncthreads();
  const auto total = [&](int i) {
    double sum = 0;
    for (uint32_t warp = 0; warp < kWarps; ++warp) sum += shared[warp * kSums + i];
    return sum;
  };
  double* out = partial + blockIdx.x;
  const int a = threadIdx.x / kTaps, b = threadIdx.x % kTaps;
  if (a >= kTaps || b < a) return;
  // sum p_a p_b of p = q + center.
  const double of_a = total(a), of_b = total(b);
  const int at = product_of<kTaps>(a, b);
  const double product = total(at) + center * (of_a + of_b + places * center);
  out[int64_t{at} * gridDim.x] = product;
  if (a == b) out[int64_t{a} * gridDim.x] = of_a + places * center;
}

struct Statistics {
  const double* partial;
  uint32_t parts, channels;
  double places;  // M
  double eps, momentum;
  const float* w;
  float *running_mean, *running_var, *mean, *invstd, *moments;
  const float* gate;
};

// One block: a warp a sum, then a thread a channel. Said to be the only one of its multiprocessor,
// or the compiler spills registers for a second one.
constexpr int kJoiners = 512;
template <int kTaps>
__global__ void __launch_bounds__(kJoiners, 1) statistics_kernel(Statistics a) {
  double* sums = shared_memory<double>();
  double* covariance = sums + kPatchSums<kTaps>;
  const uint32_t lane = threadIdx.x % kWarp;
  for (uint32_t i = threadIdx.x / kWarp; i < kPatchSums<kTaps>; i += kJoiners / kWarp) {
    double sum = 0;
    for (uint32_t part = lane; part < a.parts; part += kWarp) {
      sum += a.partial[int64_t{i} * a.parts + part];
    }
    sum = warp_sum(sum);
    if (lane == 0) sums[i] = sum / a.places;
  }
  __syncthreads();
  const int i = threadIdx.x / kTaps, j = threadIdx.x % kTaps;
  if (i < kTaps) {
    const double v = sums[product_of<kTaps>(i, j)] - sums[i] * sums[j];
    covariance[i * kTaps + j] = v;
    a.moments[kTaps + i * kTaps + j] = static_cast<float>(v);
    if (i == 0) a.moments[j] = static_cast<float>(sums[j]);
  }
  __syncthreads();
  if (threadIdx.x >= a.channels) return;
  const uint32_t c = threadIdx.x;
  double mean = 0, var = 0;
  for (int k = 0; k < kTaps; ++k) {
    const double w = a.w[c * kTaps + k];
    double along = 0;
    for (int l = 0; l < kTaps; ++l) along += covariance[k * kTaps + l] * a.w[c * kTaps + l];
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

template <typename Patches>
struct Forward {
  typename Patches::Tiles tiles;
  uint32_t vectors;  // of eight channels, a power of two
  float floor;       // relu: values at or below it become it
  const float *w, *gamma, *beta, *invstd, *moments;
};

template <typename Patches, typename T>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(Forward<Patches> a, T* y) {
  constexpr int kTaps = Patches::kTaps;
  const uint32_t vector = threadIdx.x % a.vectors, group = threadIdx.x / a.vectors;
  const Channels<kTaps> channels(vector, a.w, a.gamma, a.beta, a.invstd, a.moments);
  const float center = center_of<kTaps>(a.moments);
  for (uint32_t tile = blockIdx.x; tile < a.tiles.count; tile += gridDim.x) {
    auto walk = a.tiles.enter(tile, group, center);
    if (!walk.real) continue;
    T* out = y + (walk.first * a.vectors + vector) * kChannelBlock;
    for (uint32_t i = 0; i < walk.places; ++i) {
      walk.step();
      Pack<kChannelBlock> z;
      PANNS_UNROLL
      for (int k = 0; k < kChannelBlock; ++k) {
        z.v[k] = channels(k, walk.p);
        z.v[k] = z.v[k] < a.floor ? a.floor : z.v[k];
      }
      store<kChannelBlock>(out, z);
      out += walk.stride * a.vectors * kChannelBlock;
    }
  }
}

// Scratch: the parts of the sums, then what nobody else wanted.
struct ForwardWorkspace {
  ForwardWorkspace(const ConvOfOne& conv, int64_t parts, int64_t sums, void* workspace) {
    partial = static_cast<double*>(workspace);
    moments = reinterpret_cast<float*>(partial + sums * parts);
    invstd = moments + conv.moments();
    bytes = sums * parts * static_cast<int64_t>(sizeof(double)) +
            (conv.moments() + conv.channels) * static_cast<int64_t>(sizeof(float));
  }
  int64_t bytes;
  double* partial;
  float *moments, *invstd;
};

template <typename Patches>
ForwardWorkspace forward_workspace(const ConvOfOne& conv, void* workspace = nullptr) {
  return {conv, typename Patches::Parts(conv, nullptr).blocks(), kPatchSums<Patches::kTaps>,
          workspace};
}

template <typename Patches>
void train(const Launch& launch, const BatchNorm& norm, const ConvOfOne& conv,
           const ConvBatchNormTrain& a, const ForwardWorkspace& work) {
  constexpr int kTaps = Patches::kTaps;
  const Map map = conv.y();
  float* invstd = a.invstd != nullptr ? a.invstd : work.invstd;
  float* moments = a.moments != nullptr ? a.moments : work.moments;
  const auto channels = static_cast<uint32_t>(map.c), vectors = channels / uint32_t{kChannelBlock};
  const typename Patches::Parts parts(conv, a.x);
  enqueue(launch, "conv_batch_norm moments", moments_kernel<Patches>,
          {.x = parts.blocks(), .shared = kMomentsBytes<Patches>}, parts, work.partial);
  enqueue(
      launch, "conv_batch_norm statistics", statistics_kernel<kTaps>,
      {.x = 1, .threads = kJoiners, .shared = (kPatchSums<kTaps> + kTaps * kTaps) * sizeof(double)},
      Statistics{work.partial, static_cast<uint32_t>(parts.blocks()), channels,
                 static_cast<double>(map.pixels()), norm.eps, norm.momentum, a.w, a.running_mean,
                 a.running_var, a.mean, invstd, moments, a.gate});
  // Twice as many as fit at once: each has some places to pay for its filters.
  constexpr int64_t kBlocksEach = 4;
  const typename Patches::Tiles tiles(conv, a.x, kThreads / vectors);
  const Forward<Patches> args{tiles,  vectors, norm.relu ? 0.0f : -INFINITY, a.w, a.gamma, a.beta,
                              invstd, moments};
  with_storage(map.storage(), [&](auto element) {
    using T = decltype(element);
    enqueue(launch, "conv_batch_norm", forward_kernel<Patches, T>,
            {.x = smaller(int64_t{tiles.count}, launch.multiprocessors * kBlocksEach),
             .shared = tiles.shared_bytes()},
            args, static_cast<T*>(a.y));
  });
}

}  // namespace

bool conv_batch_norm_supported(const BatchNorm& norm, const ConvOfOne& conv) {
  // Lanes of a warp share a place. statistics_kernel has a thread a channel.
  static_assert(kWarp * kChannelBlock <= kJoiners);
  const int64_t c = conv.channels;
  return conv.x.c == 1 && c >= kChannelBlock && c <= kWarp * kChannelBlock && (c & (c - 1)) == 0 &&
         with_patches(conv, [](auto) {}) && !norm.freq && !norm.avg_pool_2x2 &&
         norm.dropout.p <= 0 && !norm.augments();
}

int64_t conv_batch_norm_workspace(const ConvOfOne& conv) {
  int64_t bytes = 0;
  with_patches(conv,
               [&](auto patches) { bytes = forward_workspace<decltype(patches)>(conv).bytes; });
  return bytes;
}

void conv_batch_norm_train(const Launch& launch, const BatchNorm& norm, const ConvOfOne& conv,
                           const ConvBatchNormTrain& a, void* workspace) {
  check_conv_batch_norm(norm, conv);
  with_patches(conv, [&](auto patches) {
    using Patches = decltype(patches);
    train<Patches>(launch, norm, conv, a, forward_workspace<Patches>(conv, workspace));
  });
}

}  // namespace panns::cuda
