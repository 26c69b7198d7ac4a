// Patches of K neighbouring samples of a waveform, S from place to place: a kind of patches, as
// patch.cuh says. A tile is some places of one clip, in a row. The block brings their samples into
// shared memory, less the center and with what lies beyond the edges of the clip, once for all the
// threads and places that have them; neighbouring threads take neighbouring places, so that S,
// which is odd, keeps them in banks of their own.
#pragma once

#include "backends/cuda/conv_batch_norm.h"
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/row.cuh"

namespace panns::cuda {

template <int K, int S>
struct ClipPatches {
  static_assert(K % 2 == 1 && S % 2 == 1);
  static constexpr int kTaps = K;

  static bool fits(const ConvOfOne& conv) {
    return conv.kt == K && conv.kf == 1 && conv.by_t == S && conv.by_f == 1 && conv.x.f == 1;
  }

  struct Tiles {
    // Threads that share none take two each, and those of the widest maps 128.
    static constexpr uint32_t kPlaces = 512;
    static constexpr uint32_t kSamples = (kPlaces - 1) * S + K;

    const float* x;
    Divisor tiles;                       // of a clip
    uint32_t samples, places, together;  // of a clip; at a time
    uint32_t terms, count;

    Tiles(const ConvOfOne& conv, const float* x, int64_t groups)
        : x(x),
          tiles(ceil_div(conv.y().t, kPlaces)),
          samples(static_cast<uint32_t>(conv.x.t)),
          places(static_cast<uint32_t>(conv.y().t)),
          together(static_cast<uint32_t>(groups)),
          terms(static_cast<uint32_t>(ceil_div(kPlaces, groups))),
          count(static_cast<uint32_t>(conv.x.n * ceil_div(conv.y().t, kPlaces))) {}
    static constexpr size_t shared_bytes() { return kSamples * sizeof(float); }

    class Run {
     public:
      float p[K];
      int64_t first;
      uint32_t places, stride;
      static constexpr bool real = true;

      PANNS_DEVICE Run(const float* next, int64_t first, uint32_t places, uint32_t stride)
          : first(first), places(places), stride(stride), next_(next) {}
      PANNS_DEVICE void step() {
        PANNS_UNROLL
        for (int i = 0; i < K; ++i) p[i] = next_[i];
        next_ += stride * S;
      }

     private:
      const float* next_;
    };
    PANNS_DEVICE Run enter(uint32_t tile, uint32_t group, float center) const {
      const Division at = divide(tile, tiles);
      const uint32_t first = at.rest * kPlaces;
      const uint32_t here = smaller(kPlaces, places - first), wanted = (here - 1) * S + K;
      float* shared = shared_memory<float>();
      const float* clip = x + int64_t{at.quotient} * samples;
      __syncthreads();  // nobody reads the tile before
      for (uint32_t i = threadIdx.x; i < wanted; i += blockDim.x) {
        const uint32_t sample = first * S + i - K / 2;  // huge below 0
        shared[i] = (sample < samples ? clip[sample] : 0) - center;
      }
      __syncthreads();
      const bool some = group < here;
      return {shared + group * S, int64_t{at.quotient} * places + first + (some ? group : 0),
              some ? (here - group - 1) / together + 1 : 0, together};
    }
    // The mean of a tile's samples, for all threads of a block of kThreads.
    PANNS_DEVICE float mean(uint32_t tile) const {
      const Division at = divide(tile, tiles);
      const uint32_t begin = at.rest * kPlaces * S, end = smaller(begin + kPlaces * S, samples);
      float own = 0;
      for (uint32_t i = begin + threadIdx.x; i < end; i += kThreads) {
        own += x[int64_t{at.quotient} * samples + i];
      }
      return static_cast<float>(block_reduce(double{own}, Add{}) / (end - begin));
    }
  };

  // Some tiles in a row, with a place a thread at a time.
  struct Parts : Tiles {
    uint32_t each;

    Parts(const ConvOfOne& conv, const float* x) : Tiles(conv, x, kThreads) {
      // As many terms as a thread adds up in float, and blocks to fill the largest device (some 150
      // multiprocessors, two blocks each) a few times: one block joins what they leave.
      constexpr int64_t kTerms = 32, kBlocks = 512;
      each = static_cast<uint32_t>(
          smaller(ceil_div(this->count, kBlocks), kTerms / int64_t{this->terms}));
    }
    int64_t blocks() const { return ceil_div(this->count, each); }

    PANNS_DEVICE float center() const { return this->mean(blockIdx.x * each); }
    // Returns how many there were.
    template <typename Body>
    PANNS_DEVICE uint32_t each_patch(float center, Body&& body) const {
      const uint32_t begin = blockIdx.x * each, end = smaller(begin + each, this->count);
      uint32_t places = 0;
      for (uint32_t tile = begin; tile < end; ++tile) {
        auto run = this->enter(tile, threadIdx.x, center);
        for (uint32_t i = 0; i < run.places; ++i) {
          run.step();
          body(run.p);
        }
        places += run.places;
      }
      return places;
    }
  };
};

}  // namespace panns::cuda
