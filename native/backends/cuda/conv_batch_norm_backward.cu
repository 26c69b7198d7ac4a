// conv_batch_norm, backward: one pass over dy, sums in two deterministic stages, and dx.
// A thread has eight channels and goes from place to place: it computes y's sign again from x, adds
// up g and g times the patch (K + 1 sums a channel, 256 terms in float, then warps, then in
// double), and, of a map, what g scale gives dx, which the lanes of a place add. A row of g reaches
// three rows of dx: each gets a plane of its own, so that nobody adds to what another wrote. The
// last kernel adds the planes and the terms of the statistics, which are of the order of a 5x5
// convolution of x:
//   dx = sum over the nine places r whose patch has it, as tap i, of plane + e_i + Q_i . (p_r - m)
//   Q = sum_c c1 w w^T,  e = sum_c c0 w,  c0 = -scale dbeta / M,  c1 = -scale invstd dgamma / M
// Layout: x [N][T][F] float, dy [N][T'][F'][C]. Bytes a place: b C read, of b bytes an element, and
// 36 of planes and x; norm and convolution one by one move 7 b C. 27 C multiply-adds a place. Of a
// waveform no planes, 6 b C and 2 K C.
// measured: never run on a GPU yet
#include "backends/cuda/conv_batch_norm.h"
#include "backends/cuda/device/patch.cuh"
#include "backends/cuda/device/tile.cuh"

namespace panns::cuda {
namespace {

// A thread takes near all the registers that two blocks of this size leave it; smaller blocks also
// spread few clips over more multiprocessors.
constexpr int kWalkers = 128;
constexpr int kWalkerWarps = kWalkers / kWarp;

// Of a channel: g times each value of the patch, and g.
template <int kTaps>
constexpr int kChannelSums = kTaps + 1;

// Tiles cut into chunks, one a block: what a chunk holds depends on the shape alone.
template <typename Patches>
struct Chunks {
  typename Patches::Tiles tiles;
  uint32_t each;  // tiles of a block
  uint32_t count;

  explicit Chunks(const ConvOfOne& conv, const float* x = nullptr)
      : tiles(conv, x, kWalkers * kChannelBlock / conv.channels) {
    // All blocks should fill the largest device (some 150 multiprocessors, two blocks each) a few
    // times, and 256 terms in float stay near sixteen roundings.
    constexpr int64_t kBlocks = 1024, kTerms = 256;
    const int64_t most = larger<int64_t>(1, kTerms / tiles.terms);
    each = static_cast<uint32_t>(smaller(ceil_div(tiles.count, kBlocks), most));
    count = static_cast<uint32_t>(ceil_div(tiles.count, each));
  }
};

template <typename Patches, typename T>
struct Backward {
  Chunks<Patches> chunks;
  uint32_t vectors;  // of eight channels, a power of two
  float floor;       // relu: values at or below it have no gradient
  const float *w, *gamma, *beta, *invstd, *moments;
  const T* dy;
  double* partial;  // (channel, sum, chunk)
  float* planes;    // (3, N, T, F), or null: towards dx, by row of the filters
  int64_t places;   // of a plane
};

// As in PyTorch, a NaN lets the gradient of the relu through.
PANNS_DEVICE float through(float g, float z, float floor) { return z <= floor ? 0.0f : g; }

// What a row of g gives three rows of dx, complete behind the bin it stands on.
class RowSpread {
 public:
  float part[3][3] = {};  // by row and column of the filters

  PANNS_DEVICE RowSpread(float* planes, int64_t size, uint32_t vectors, uint32_t vector)
      : planes_(planes), size_(size), vectors_(vectors), vector_(vector) {}
  // Bin f has nothing to come. All lanes of a warp call it; those of a place keep a bin each until
  // they have one all, and write neighbours.
  PANNS_DEVICE void finish(const MapPatches::Tiles::Row& row, uint32_t f) {
    const uint32_t turn = f & (vectors_ - 1);
    float sum[3] = {part[0][0], part[1][0], part[2][0]};
    for (uint32_t mask = vectors_ / 2; mask > 0; mask /= 2) {
      PANNS_UNROLL
      for (int i = 0; i < 3; ++i) sum[i] += __shfl_xor_sync(~0u, sum[i], static_cast<int>(mask));
    }
    PANNS_UNROLL
    for (int i = 0; i < 3; ++i) kept_[i] = turn == vector_ ? sum[i] : kept_[i];
    if ((turn + 1 < vectors_ && f + 1 < row.places) || vector_ > turn || !row.real) return;
    PANNS_UNROLL
    for (int i = 0; i < 3; ++i) planes_[i * size_ + row.first + f - turn + vector_] = kept_[i];
  }
  PANNS_DEVICE void step() {
    PANNS_UNROLL
    for (int i = 0; i < 3; ++i) {
      part[i][0] = part[i][1];
      part[i][1] = part[i][2];
      part[i][2] = 0;
    }
  }

 private:
  float kept_[3] = {};
  float* planes_;
  int64_t size_;
  uint32_t vectors_, vector_;
};

template <typename Patches, typename T>
__global__ void __launch_bounds__(kWalkers, 2) sums_kernel(Backward<Patches, T> a) {
  constexpr int W = kChannelBlock, kTaps = Patches::kTaps, kSums = kChannelSums<kTaps>;
  constexpr bool kSpreads = std::is_same_v<Patches, MapPatches>;
  const auto& tiles = a.chunks.tiles;
  const uint32_t vector = threadIdx.x % a.vectors, group = threadIdx.x / a.vectors;
  const Channels<kTaps> channels(vector, a.w, a.gamma, a.beta, a.invstd, a.moments);
  const float center = center_of<kTaps>(a.moments);
  const int64_t stride = int64_t{a.vectors} * W;
  float sums[W][kSums] = {};
  const uint32_t begin = blockIdx.x * a.chunks.each;
  const uint32_t end = smaller(begin + a.chunks.each, tiles.count);
  for (uint32_t tile = begin; tile < end; ++tile) {
    auto walk = tiles.enter(tile, group, center);
    const float floor = walk.real ? a.floor : INFINITY;
    const T* dy = a.dy + walk.first * stride + int64_t{vector} * W;
    RowSpread spread(a.planes, a.places, a.vectors, vector);
    // Asked for two places ahead, as the arithmetic of one may be shorter than the wait; the last
    // one again, as a branch would have to wait for it.
    const auto advance = [&](uint32_t f) { dy += f < walk.places ? walk.stride * stride : 0; };
    Fetched<T> next = fetch(dy);
    advance(1);
    Fetched<T> after = fetch(dy);
    for (uint32_t f = 0; f < walk.places; ++f) {
      const Pack<W> arrived = unpack(next);
      next = after;
      advance(f + 2);
      after = fetch(dy);
      walk.step();
      PANNS_UNROLL
      for (int k = 0; k < W; ++k) {
        const float g = through(arrived.v[k], channels(k, walk.p), floor);
        sums[k][kTaps] += g;
        PANNS_UNROLL
        for (int i = 0; i < kTaps; ++i) {
          sums[k][i] = fmaf(g, walk.p[i], sums[k][i]);
          if constexpr (kSpreads) {
            spread.part[i / 3][i % 3] = fmaf(g, channels.w[k][i], spread.part[i / 3][i % 3]);
          }
        }
      }
      if constexpr (kSpreads) {
        if (a.planes != nullptr && f > 0) spread.finish(walk, f - 1);
        spread.step();
      }
    }
    if constexpr (kSpreads) {
      if (a.planes != nullptr) spread.finish(walk, walk.places - 1);
    }
  }

  __syncthreads();                         // nobody reads x from shared memory
  float* shared = shared_memory<float>();  // (warp, channel, sum)
  const uint32_t values = a.vectors * W * kSums, lane = threadIdx.x % kWarp;
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    PANNS_UNROLL
    for (int i = 0; i < kSums; ++i) {
      float sum = sums[k][i];
      for (uint32_t mask = kWarp / 2; mask >= a.vectors; mask /= 2) {
        sum += __shfl_xor_sync(~0u, sum, static_cast<int>(mask));
      }
      if (lane < a.vectors) {
        shared[threadIdx.x / kWarp * values + (vector * W + k) * kSums + i] = sum;
      }
    }
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < values; i += kWalkers) {
    double sum = 0;
    for (int warp = 0; warp < kWalkerWarps; ++warp) sum += shared[warp * values + i];
    a.partial[int64_t{i} * gridDim.x + blockIdx.x] = sum;
  }
}

struct Gradients {
  const double* partial;
  uint32_t chunks;
  double places;  // M
  const float *w, *gamma, *invstd, *moments;
  float *dgamma, *dbeta, *dw;  // may be null
  float *c0, *c1;
};

// A block a channel, a warp a sum.
template <int kTaps>
constexpr int kSumJoiners = kChannelSums<kTaps>* kWarp;
template <int kTaps>
__global__ void __launch_bounds__(kSumJoiners<kTaps>) join_kernel(Gradients a) {
  double* sums = shared_memory<double>();
  const uint32_t c = blockIdx.x, which = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const double* partial = a.partial + (int64_t{c} * kChannelSums<kTaps> + which) * a.chunks;
  double sum = 0;
  for (uint32_t i = lane; i < a.chunks; i += kWarp) sum += partial[i];
  sum = warp_sum(sum);
  if (lane == 0) sums[which] = sum;
  __syncthreads();
  if (threadIdx.x >= kTaps) return;
  const int i = threadIdx.x;
  const float *w = a.w + c * kTaps, *covariance = a.moments + kTaps;
  const float center = center_of<kTaps>(a.moments);
  // The sums are of patches less the center.
  const double of_g = sums[kTaps];
  const auto from_mean = [&](int k) { return sums[k] + of_g * (double{center} - a.moments[k]); };
  const double invstd = a.invstd[c], scale = invstd * a.gamma[c];
  double along = 0, of_gx = 0;
  for (int k = 0; k < kTaps; ++k) {
    along += double{covariance[i * kTaps + k]} * w[k];
    of_gx += w[k] * from_mean(k);
  }
  of_gx *= invstd;
  if (a.dw != nullptr) {
    a.dw[c * kTaps + i] = static_cast<float>(scale * (from_mean(i) - invstd * of_gx * along));
  }
  if (i != 0) return;
  if (a.dgamma != nullptr) a.dgamma[c] = static_cast<float>(of_gx);
  if (a.dbeta != nullptr) a.dbeta[c] = static_cast<float>(of_g);
  a.c0[c] = static_cast<float>(-scale * of_g / a.places);
  a.c1[c] = static_cast<float>(-scale * invstd * of_gx / a.places);
}

constexpr int kPatch = MapPatches::kTaps;

struct Spread {
  Columns columns;
  int64_t places;
  uint32_t channels;
  const float *x, *w, *moments, *c0, *c1, *planes;
  float* dx;
};

// The terms of the statistics at one place of dx as functions of the 5x5 values of x around it: of
// each row i of places whose patches have it, the three rows of those patches.
struct Terms {
  float of[3][3][5] = {}, alone[3] = {};

  // q: (9, 9) of Q, then 9 of e. Places beyond the first and last bin have no patch.
  PANNS_DEVICE Terms(const float* q, uint32_t bin, uint32_t bins) {
    PANNS_UNROLL
    for (int j = 0; j < 3; ++j) {
      if ((j == 2 && bin == 0) || (j == 0 && bin + 1 == bins)) continue;
      PANNS_UNROLL
      for (int i = 0; i < 3; ++i) {
        const int tap = i * 3 + j;
        alone[i] += q[kPatch * kPatch + tap];
        PANNS_UNROLL
        for (int k = 0; k < kPatch; ++k) of[i][k / 3][k % 3 - j + 2] += q[tap * kPatch + k];
      }
    }
  }
};

__global__ void __launch_bounds__(kThreads) spread_kernel(Spread a) {
  float* q = shared_memory<float>();
  const uint32_t tap = threadIdx.x / kPatch, other = threadIdx.x % kPatch;
  const float center = center_of<kPatch>(a.moments);
  if (tap < kPatch) {
    float sum = 0;
    for (uint32_t c = 0; c < a.channels; ++c) {
      sum = fmaf(a.c1[c] * a.w[c * kPatch + tap], a.w[c * kPatch + other], sum);
    }
    q[threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x < kPatch) {
    float sum = 0;
    for (uint32_t c = 0; c < a.channels; ++c) {
      sum = fmaf(a.c0[c], a.w[c * kPatch + threadIdx.x], sum);
    }
    for (int k = 0; k < kPatch; ++k) {
      sum = fmaf(q[threadIdx.x * kPatch + k], center - a.moments[k], sum);
    }
    q[kPatch * kPatch + threadIdx.x] = sum;
  }
  __syncthreads();
  const Column column(a.columns);
  if (column.begin == column.end) return;
  const int bins = static_cast<int>(a.columns.bins), frames = static_cast<int>(a.columns.frames);
  const int bin = static_cast<int>(column.bin), begin = static_cast<int>(column.begin);
  const Terms terms(q, column.bin, a.columns.bins);
  const float* x = a.x + column.clip + bin;
  const auto value = [&](int t, int j) {
    const bool there = t >= 0 && t < frames && bin + j >= 0 && bin + j < bins;
    return (there ? x[int64_t{t} * bins + j] : 0) - center;
  };
  float p[5][5];  // of x, frames and bins -2 to 2 from here
  PANNS_UNROLL
  for (int i = 1; i < 5; ++i) {
    PANNS_UNROLL
    for (int j = 0; j < 5; ++j) p[i][j] = value(begin + i - 3, j - 2);
  }
  for (int t = begin; t < static_cast<int>(column.end); ++t) {
    PANNS_UNROLL
    for (int j = 0; j < 5; ++j) {
      PANNS_UNROLL
      for (int i = 0; i < 4; ++i) p[i][j] = p[i + 1][j];
      p[4][j] = value(t + 2, j - 2);
    }
    float sum = 0;
    PANNS_UNROLL
    for (int i = 0; i < 3; ++i) {
      const int place = t - i + 1;  // its patch has frame t in row i
      if (place < 0 || place >= frames) continue;
      float row = terms.alone[i];
      PANNS_UNROLL
      for (int k = 0; k < 15; ++k) {
        row = fmaf(terms.of[i][k / 5][k % 5], p[k / 5 - i + 2][k % 5], row);
      }
      sum += row + a.planes[i * a.places + column.clip + int64_t{place} * bins + bin];
    }
    a.dx[column.clip + int64_t{t} * bins + bin] = sum;
  }
}

// Scratch, in this order: the chunks' sums, two rows of channels, three planes where dx is spread.
struct BackwardWorkspace {
  BackwardWorkspace(const ConvOfOne& conv, int64_t chunks, int64_t planes_each, void* workspace) {
    const int64_t sums = conv.channels * (conv.taps() + 1) * chunks;
    partial = static_cast<double*>(workspace);
    c0 = reinterpret_cast<float*>(partial + sums);
    c1 = c0 + conv.channels;
    planes = c1 + conv.channels;
    bytes = sums * static_cast<int64_t>(sizeof(double)) +
            (2 * conv.channels + planes_each) * static_cast<int64_t>(sizeof(float));
  }
  int64_t bytes;
  double* partial;
  float *c0, *c1, *planes;
};

template <typename Patches>
BackwardWorkspace backward_workspace(const ConvOfOne& conv, void* workspace = nullptr) {
  const int64_t planes = std::is_same_v<Patches, MapPatches> ? 3 * conv.x.pixels() : 0;
  return {conv, Chunks<Patches>(conv).count, planes, workspace};
}

// All but dx.
template <typename Patches>
void sum(const Launch& launch, const BatchNorm& norm, const ConvOfOne& conv,
         const ConvBatchNormBackward& a, const BackwardWorkspace& work) {
  constexpr int kTaps = Patches::kTaps;
  const Map map = conv.y();
  const Chunks<Patches> chunks(conv, a.x);
  const auto vectors = static_cast<uint32_t>(map.c / kChannelBlock);
  with_storage(map.storage(), [&](auto element) {
    using T = decltype(element);
    const size_t reduced = sizeof(float) * kWalkerWarps * map.c * kChannelSums<kTaps>;
    enqueue(
        launch, "conv_batch_norm_backward", sums_kernel<Patches, T>,
        {.x = chunks.count,
         .threads = kWalkers,
         .shared = larger(reduced, chunks.tiles.shared_bytes())},
        Backward<Patches, T>{chunks, vectors, norm.relu ? 0.0f : -INFINITY, a.w, a.gamma, a.beta,
                             a.invstd, a.moments, static_cast<const T*>(a.dy), work.partial,
                             a.dx != nullptr ? work.planes : nullptr, map.pixels()});
  });
  enqueue(
      launch, "conv_batch_norm_backward", join_kernel<kTaps>,
      {.x = map.c, .threads = kSumJoiners<kTaps>, .shared = kChannelSums<kTaps> * sizeof(double)},
      Gradients{work.partial, chunks.count, static_cast<double>(map.pixels()), a.w, a.gamma,
                a.invstd, a.moments, a.dgamma, a.dbeta, a.dw, work.c0, work.c1});
}

}  // namespace

int64_t conv_batch_norm_backward_workspace(const ConvOfOne& conv) {
  int64_t bytes = 0;
  with_patches(conv,
               [&](auto patches) { bytes = backward_workspace<decltype(patches)>(conv).bytes; });
  return bytes;
}

void conv_batch_norm_backward(const Launch& launch, const BatchNorm& norm, const ConvOfOne& conv,
                              const ConvBatchNormBackward& a, void* workspace) {
  check_conv_batch_norm(norm, conv);
  with_patches(conv, [&](auto patches) {
    using Patches = decltype(patches);
    const BackwardWorkspace work = backward_workspace<Patches>(conv, workspace);
    PANNS_CHECK((std::is_same_v<Patches, MapPatches>) || a.dx == nullptr, "ERR_PANNS_UNSUPPORTED",
                "conv_batch_norm_backward",
                "expected nothing that trains before a convolution of a waveform; run conv and "
                "batch_norm one by one");
    sum<Patches>(launch, norm, conv, a, work);
    if (a.dx == nullptr) return;
    const Columns columns(conv.x);
    enqueue(launch, "conv_batch_norm_backward", spread_kernel,
            {.x = columns.blocks(), .shared = sizeof(float) * kPatch * (kPatch + 1)},
            Spread{columns, conv.x.pixels(), static_cast<uint32_t>(conv.channels), a.x, a.w,
                   a.moments, work.c0, work.c1, work.planes, a.dx});
  });
}

}  // namespace panns::cuda
