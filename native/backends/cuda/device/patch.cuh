// The patches of x that a convolution of one channel makes its values of, and a convolution and
// norm of them: what the passes of conv_batch_norm share. A kind of patches has
//   kTaps   values of a patch
//   Tiles   x cut into what a block takes at a time, for passes with some channels a thread:
//           `count` tiles, each of at most `terms` places a thread; enter(tile, group, center),
//           which all threads of the block call, is a walk of those threads that share places
//   walk    first, places, stride: a thread's places; real: whether there are any; step(), and then
//           p is the patch of the next one, less the center
//   Parts   x cut into what a block takes, for a pass that reads x alone: `blocks()`, and on the
//           device center(), near the mean of the block's part, and each_patch(center, body)
// What a tile or a part holds depends on shapes alone.
#pragma once

#include "backends/cuda/conv_batch_norm.h"
#include "backends/cuda/device/clip_patches.cuh"
#include "backends/cuda/device/map_patches.cuh"
#include "backends/cuda/device/pack.cuh"

namespace panns::cuda {

// What is near the mean of x is taken from all its values, so that nothing cancels that does not
// have to: log-mel maps may lie far from 0.
template <int kTaps>
PANNS_DEVICE float center_of(const float* moments) {
  return moments[kTaps / 2];
}

// Eight neighbouring channels as functions of a patch less the center.
template <int kTaps>
struct Channels {
  float w[kChannelBlock][kTaps], offset[kChannelBlock];

  PANNS_DEVICE Channels(uint32_t vector, const float* filters, const float* gamma,
                        const float* beta, const float* invstd, const float* moments) {
    const float center = center_of<kTaps>(moments);
    PANNS_UNROLL
    for (int k = 0; k < kChannelBlock; ++k) {
      const uint32_t c = vector * kChannelBlock + k;
      const float scale = gamma[c] * invstd[c];
      offset[k] = beta[c];
      PANNS_UNROLL
      for (int i = 0; i < kTaps; ++i) {
        w[k][i] = filters[c * kTaps + i] * scale;
        offset[k] = fmaf(w[k][i], center - moments[i], offset[k]);
      }
    }
  }
  // Forward and backward must agree on which side of 0 a value falls: no product here is one that
  // the compiler may choose to round or not.
  PANNS_DEVICE float operator()(int k, const float (&p)[kTaps]) const {
    float z = offset[k];
    PANNS_UNROLL
    for (int i = 0; i < kTaps; ++i) z = fmaf(w[k][i], p[i], z);
    return z;
  }
};

// Calls body(Patches{}) with the kind of patches that the convolution has; false where none is
// here.
template <typename Body>
bool with_patches(const ConvOfOne& conv, Body&& body) {
  const auto is = [&](auto patches) {
    const bool fits = patches.fits(conv);
    if (fits) body(patches);
    return fits;
  };
  return is(MapPatches{}) || is(ClipPatches<11, 5>{}) || is(ClipPatches<3, 3>{});
}

inline void check_conv_batch_norm(const BatchNorm& norm, const ConvOfOne& conv) {
  PANNS_CHECK(
      conv_batch_norm_supported(norm, conv), "ERR_PANNS_UNSUPPORTED", "conv_batch_norm",
      "expected 8 to 256 channels, a power of two, of 3x3 patches of at most 256 bins or of "
      "11 or 3 samples, 5 or 3 apart, and a norm with no pool or dropout, got ",
      conv.channels, " of ", conv.kt, "x", conv.kf, " patches, ", conv.by_t, "x", conv.by_f,
      " apart, of (", conv.x.n, ", ", conv.x.c, ", ", conv.x.t, ", ", conv.x.f,
      "); run conv and batch_norm one by one");
  expect_indexable(conv.x.pixels(), "conv_batch_norm");
}

}  // namespace panns::cuda
