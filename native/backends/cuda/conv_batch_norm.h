// batch_norm (and relu) of a convolution of one channel, in training, without the convolution's
// result: what PANNs' networks do first to a log-mel map or to a waveform. That result has 64
// channels for the one of x: to write it, and to read it for its statistics, for the norm and for
// the gradients of both, costs several times what making it again does.
//
// With p the patch of x around a place, zeros beyond the edges, and w a channel's filter:
//   mean = w . m, var = w . V w        m = E[p], V = E[(p - m)(p - m)^T] over the M places of y
//   y    = relu((w . p - mean) scale + beta)                      scale = gamma / sqrt(var + eps)
// and back, with g = dy where y passed the relu, G = sum g (p - m), invstd = 1 / sqrt(var + eps):
//   dbeta  = sum g,  dgamma = invstd w . G
//   dw     = scale (G - invstd dgamma V w)
//   dconv  = scale (g - dbeta / M - invstd dgamma / M w . (p - m)),  dx = dconv against the filters
//
// x: (N, 1, T, F) in float, y and dy: maps (N, C, T', F'), w: filters (C, 1, kT, kF), all else
// float32 arrays of C. Nothing is rounded to the maps' storage but y.
#pragma once

#include "backends/cuda/batch_norm.h"

namespace panns::cuda {

// A convolution of one channel, with padding of half of its odd kernel.
struct ConvOfOne {
  Map x;
  int64_t channels = 0;        // of y
  int64_t kt = 3, kf = 3;      // the kernel, frames and bins
  int64_t by_t = 1, by_f = 1;  // from place to place

  constexpr int64_t taps() const { return kt * kf; }                   // values of a patch
  constexpr int64_t moments() const { return (1 + taps()) * taps(); }  // m, then the rows of V
  constexpr Map y() const {
    return {x.n, channels, (x.t - 1) / by_t + 1, (x.f - 1) / by_f + 1, x.precision};
  }
};

// Whether these functions take it: 8 to 256 channels, a power of two; a 3x3 kernel that moves by 1
// over at most 256 bins, or one over a waveform of 11 samples that moves by 5, or of 3 by 3; a norm
// with no epilogue but relu.
bool conv_batch_norm_supported(const BatchNorm& norm, const ConvOfOne& conv);

// Writes y and the statistics, moves the running ones in place. mean, invstd and moments may be
// null where backward never comes.
struct ConvBatchNormTrain {
  const float *x, *w, *gamma, *beta;
  float *running_mean, *running_var;
  void* y;
  float *mean, *invstd, *moments;
  const float* gate = nullptr;  // as BatchNormTrain's
};
int64_t conv_batch_norm_workspace(const ConvOfOne& conv);
void conv_batch_norm_train(const Launch& launch, const BatchNorm& norm, const ConvOfOne& conv,
                           const ConvBatchNormTrain& a, void* workspace);

// dx, dgamma, dbeta and dw may each be null where nothing needs them; dx has to be where the
// convolution is over a waveform.
struct ConvBatchNormBackward {
  const float *x, *w, *gamma, *beta, *invstd, *moments;
  const void* dy;
  float *dx, *dgamma, *dbeta, *dw;
};
int64_t conv_batch_norm_backward_workspace(const ConvOfOne& conv);
void conv_batch_norm_backward(const Launch& launch, const BatchNorm& norm, const ConvOfOne& conv,
                              const ConvBatchNormBackward& a, void* workspace);

}  // namespace panns::cuda
