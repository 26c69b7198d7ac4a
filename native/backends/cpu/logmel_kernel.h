// The vector kernels of the log-mel front-end. A batch is `lanes` frames, one in each lane of a
// vector, so that every step of the transform is the same plain arithmetic on whole vectors and
// any permutation is a table of indices.
#pragma once

#include <cstdint>

#include "backends/cpu/tier.h"

namespace panns::cpu {

// One pass of a decimation-in-frequency transform. In each of `blocks` adjacent blocks it takes
// radix points `stride` apart to their DFT, in place, and multiplies by the twiddle factors.
struct FftPass {
  int64_t radix = 0, blocks = 0, count = 0, stride = 0;  // a block is radix * count points
  const float* twiddles = nullptr;  // (count, radix - 1, {cos, sin}); null when all are 1
  const float* roots = nullptr;     // (radix, {cos, sin}) of 2 pi j / radix; odd radices only
};

// All the tables of one front-end; the arrays belong to cpu::Logmel. The first pass leaves `parts`
// independent transforms of `part` points, part_stride apart, small enough to stay in the first
// cache while all the other passes go over them.
struct LogmelTables {
  int64_t half = 0;  // complex points of the transform: window_size / 2
  int64_t parts = 0, part = 0, part_stride = 0;
  const float* window = nullptr;  // (window_size), halved: see `power`
  const FftPass* passes = nullptr;
  int64_t pass_count = 0;
  const int32_t* place = nullptr;  // (half + 1): where point k lies after the passes, cyclic
  const float* turn = nullptr;     // (half / 2 + 1, {cos, -sin}) of 2 pi k / window_size
  int64_t mels = 0;
  const int32_t* mel_first = nullptr;  // (mels)
  const int32_t* mel_count = nullptr;  // (mels)
  const float* mel_weights = nullptr;  // the filters' weights, one after another
  // A band's power p becomes log2(max(p + added, amin)) * per_octave + shift, where the fraction of
  // an octave goes by its natural logarithm times per_neper.
  float added = 0, amin = 0;
  float per_octave = 0, per_neper = 0, shift = 0;
};

struct LogmelKernel {
  int64_t lanes;

  // frames[l] points at the first sample of the frame in lane l; scratch holds (parts * part_stride
  // + the largest odd radix, {re, im}, lanes); power is (half + 1, lanes). Both aligned as a
  // vector.
  void (*power)(const LogmelTables& tables, const float* const* frames, float* scratch,
                float* power);

  // power (half + 1, lanes) to log-mel (mels, lanes).
  void (*mel_log)(const LogmelTables& tables, const float* power, float* out);

  // 16-bit samples to floats: x / 32767, as PANNs read their packed clips.
  void (*widen)(const int16_t* samples, int64_t count, float* out);

  // Pre-emphasis of count + 1 samples in place: x[i] = x[i + 1] - factor * x[i].
  void (*emphasize)(float* x, int64_t count, float factor);
};

PANNS_TIERED(LogmelKernel, logmel_kernel)

}  // namespace panns::cpu
