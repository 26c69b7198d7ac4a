// logmel: frames of a waveform, reflected at the edges, through a window, a real transform, power,
// sparse mel bands and a logarithm, with nothing in between written to memory.
//   x (N, S) float32 -> y [N][T][F] float32
// The samples of a frame, two and two, are the real and imaginary parts of half as many complex
// points. Two frames as one transform would be as fast, but what is left of a loud frame's rounding
// would drown a silent neighbour, whose floor must be exact.
// A block has some frames at a time, each with its own threads and shared memory; windows beyond
// 5,000 samples have theirs in the workspace. The mel sum gathers, a thread a band, in order of the
// bins. Bytes an element of y: 4 written, and 4 S / (T F) read (20 for PANNs' front-end); a sample
// is read by the 3.2 frames it is in, through the caches.
// measured: never run on a GPU yet
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/fft.cuh"
#include "backends/cuda/logmel.h"

namespace panns::cuda {
namespace {

// The windowed samples of one frame, as complex points.
struct FramePoints {
  const float* clip;
  const float* window;
  int begin, length;  // of the signal that the edges reflect
  int lost;
  float preemphasis;

  PANNS_DEVICE float at(int i) const {
    int from = begin + i;
    from = from < 0 ? -from : from;
    from = from >= length ? 2 * (length - 1) - from : from;
    const float x = clip[from];
    return window[i] * (lost == 0 ? x : clip[from + 1] - preemphasis * x);
  }
  PANNS_DEVICE float2 operator()(int i) const { return {at(2 * i), at(2 * i + 1)}; }
};

struct StoredPoints {
  const float2* points;
  PANNS_DEVICE float2 operator()(int i) const { return points[fft_place(i)]; }
};

PANNS_DEVICE float squares(float2 a) { return a.x * a.x + a.y * a.y; }

// The power of bins 0 ... half of the real transform from the complex one of half its length.
PANNS_DEVICE void power_of(const LogmelShape& a, const float2* turn, int lane,
                           const StoredPoints& z, float* power) {
  for (int k = lane; k <= a.half / 2; k += a.lanes) {
    const float2 u = z(k), v = z(k == 0 ? 0 : a.half - k);
    const float2 even{u.x + v.x, u.y - v.y};
    const float2 odd = times(turn[k], turned({u.x - v.x, u.y + v.y}));
    power[k] = squares(plus(even, odd));
    power[a.half - k] = squares(minus(even, odd));
  }
}

PANNS_DEVICE void bands_of(const LogmelShape& a, const float* tables, int lane, const float* power,
                           float* out) {
  const auto* first = reinterpret_cast<const int32_t*>(tables + a.mel_first);
  const auto* count = reinterpret_cast<const int32_t*>(tables + a.mel_count);
  const auto* offset = reinterpret_cast<const int32_t*>(tables + a.mel_offset);
  for (int m = lane; m < a.mels; m += a.lanes) {
    const float* weights = tables + a.mel_weights + offset[m];
    const float* bins = power + first[m];
    float sum = 0;
    for (int i = 0; i < count[m]; ++i) sum += weights[i] * bins[i];
    const float floored = sum < a.amin ? a.amin : sum;  // keeps a NaN
    out[m] = logf(floored + a.added) * a.factor + a.shift;
  }
}

__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    logmel_kernel(LogmelShape a, const float* tables, const float* wave, int64_t samples,
                  int64_t frames_each, int64_t frames, float* out, float* workspace) {
  const int group = static_cast<int>(threadIdx.x) / a.lanes;
  const int lane = static_cast<int>(threadIdx.x) % a.lanes;
  const int64_t scratch = a.scratch;
  float* own = workspace != nullptr ? workspace + blockIdx.x * scratch
                                    : shared_memory<float>() + group * scratch;
  float2* buffers[2] = {reinterpret_cast<float2*>(own),
                        reinterpret_cast<float2*>(own + scratch / 2)};
  const auto* twiddles = reinterpret_cast<const float2*>(tables + a.twiddles);
  const auto* turn = reinterpret_cast<const float2*>(tables + a.turn);
  const int64_t step = int64_t{gridDim.x} * a.frames;
  for (int64_t first = int64_t{blockIdx.x} * a.frames; first < frames; first += step) {
    // Threads past the last frame repeat it, as barriers want them all, and write nothing.
    const int64_t frame = smaller(first + group, frames - 1);
    const int64_t clip = frame / frames_each, index = frame % frames_each;
    const FramePoints points{wave + clip * samples,
                             tables,
                             static_cast<int>(index * a.hop - a.window / 2),
                             static_cast<int>(samples) - a.lost,
                             a.lost,
                             a.preemphasis};
    fft_pass_any(a.radix[0], a.half, 1, lane, a.lanes, twiddles, points, buffers[0]);
    __syncthreads();
    int stride = a.radix[0], from = 0;
    for (int i = 1; i < a.passes; ++i) {
      fft_pass_any(a.radix[i], a.half, stride, lane, a.lanes, twiddles,
                   StoredPoints{from == 0 ? buffers[0] : buffers[1]},
                   from == 0 ? buffers[1] : buffers[0]);
      __syncthreads();
      stride *= a.radix[i];
      from ^= 1;
    }
    auto* power = reinterpret_cast<float*>(from == 0 ? buffers[1] : buffers[0]);
    power_of(a, turn, lane, StoredPoints{from == 0 ? buffers[0] : buffers[1]}, power);
    __syncthreads();
    if (first + group < frames) bands_of(a, tables, lane, power, out + frame * a.mels);
    __syncthreads();
  }
}

}  // namespace

void logmel(const Launch& launch, const LogmelPlan& plan, const float* tables, const float* wave,
            int64_t n, int64_t samples, float* out, void* workspace) {
  plan.config().check_samples(samples);
  expect_indexable(samples + plan.config().window_size, "logmel");
  const LogmelShape& shape = plan.shape();
  const int64_t frames_each = plan.config().frames(samples), frames = n * frames_each;
  const bool shared = plan.in_shared();
  const int64_t blocks = ceil_div(frames, shape.frames);
  const Grid grid{
      .x = shared ? striding(launch, blocks * kThreads).x : smaller(blocks, LogmelPlan::kBlocks),
      .threads = shape.lanes * shape.frames,
      .shared = shared ? shape.frames * shape.scratch * sizeof(float) : 0};
  enqueue(launch, "logmel", logmel_kernel, grid, shape, tables, wave, samples, frames_each, frames,
          out, shared ? nullptr : static_cast<float*>(workspace));
}

}  // namespace panns::cuda
