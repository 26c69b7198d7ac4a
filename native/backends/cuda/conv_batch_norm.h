// batch_norm (and relu) of a 3x3 convolution of one channel, in training, without the convolution's
// result: what PANNs' networks do first to a log-mel map. That result has 64 channels for the map's
// one: to write it, and to read it for its statistics, for the norm and for the gradients of both,
// costs several times what making it again does.
//
// With p the 3x3 patch of x around a place, zeros beyond the edges, and w a channel's filter:
//   mean = w . m, var = w . V w        m = E[p], V = E[(p - m)(p - m)^T] over the M places of x
//   y    = relu((w . p - mean) scale + beta)                      scale = gamma / sqrt(var + eps)
// and back, with g = dy where y passed the relu, G = sum g (p - m), invstd = 1 / sqrt(var + eps):
//   dbeta  = sum g,  dgamma = invstd w . G
//   dw     = scale (G - invstd dgamma V w)
//   dconv  = scale (g - dbeta / M - invstd dgamma / M w . (p - m)),  dx = dconv against the filters
//
// x: (N, 1, T, F) in float, y and dy: maps (N, C, T, F), w: filters (C, 1, 3, 3), all else float32
// arrays of C. Nothing is rounded to the maps' storage but y.
#pragma once

#include "backends/cuda/batch_norm.h"

namespace panns::cuda {

// Whether these functions take it: `map` is y, of 8 to 256 channels, a power of two, with at most
// 256 bins; `norm` has no epilogue but relu.
bool conv_batch_norm_supported(const BatchNorm& norm, const Map& map);

constexpr int64_t kPatch = 9;                             // values of a patch
constexpr int64_t kPatchMoments = (1 + kPatch) * kPatch;  // m, then the rows of V

// Writes y and the statistics, moves the running ones in place. mean, invstd and moments may be
// null where backward never comes.
struct ConvBatchNormTrain {
  const float *x, *w, *gamma, *beta;
  float *running_mean, *running_var;
  void* y;
  float *mean, *invstd, *moments;
  const float* gate = nullptr;  // as BatchNormTrain's
};
int64_t conv_batch_norm_workspace(const Map& map);
void conv_batch_norm_train(const Launch& launch, const BatchNorm& norm, const Map& map,
                           const ConvBatchNormTrain& a, void* workspace);

// dx, dgamma, dbeta and dw may each be null where nothing needs them.
struct ConvBatchNormBackward {
  const float *x, *w, *gamma, *beta, *invstd, *moments;
  const void* dy;
  float *dx, *dgamma, *dbeta, *dw;
};
int64_t conv_batch_norm_backward_workspace(const Map& map);
void conv_batch_norm_backward(const Launch& launch, const BatchNorm& norm, const Map& map,
                              const ConvBatchNormBackward& a, void* workspace);

}  // namespace panns::cuda
