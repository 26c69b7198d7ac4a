// What may follow a norm over frequency (batch_norm.h): the stripes of spec_augment, blank in each
// clip, and mixup's weighted sum of each pair of clips. A thread keeps its bins while it walks down
// the frames of a clip.
#pragma once

#include "backends/cuda/device/norm.cuh"
#include "backends/cuda/device/stripes.cuh"

namespace panns::cuda {

struct Augment {
  bool blanks;
  SpecAugment stripes;
  uint32_t frames, bins;
  const backends::StepState* state;
  const float* weights;  // of the clips; null: all 1

  Augment(const BatchNorm& norm, const Map& map, const backends::StepState* state,
          const float* weights)
      : blanks(norm.spec_augment.has_value()),
        stripes(norm.spec_augment.value_or(SpecAugment{})),
        frames(static_cast<uint32_t>(map.t)),
        bins(static_cast<uint32_t>(map.f)),
        state(state),
        weights(norm.mixup ? weights : nullptr) {}
};

// Of a clip, for a thread's W bins.
template <int W>
struct ClipAugment {
  Stripes stripes{};
  bool kept[W];
  float weight;

  PANNS_DEVICE ClipAugment(const Augment& a, uint32_t clip, uint32_t first_bin)
      : weight(a.weights != nullptr ? a.weights[clip] : 1.0f) {
    if (a.blanks) stripes = Stripes(a.stripes, a.state, clip, a.frames, a.bins);
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) kept[k] = !stripes.cover_bin(first_bin + k);
  }
  // What the clip gives to y, or y's gradient to the clip: 0 where it is blank, were v NaN.
  PANNS_DEVICE Pack<W> operator()(uint32_t frame, const Pack<W>& v) const {
    const bool blank = stripes.cover_frame(frame);
    Pack<W> out;
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) out.v[k] = blank || !kept[k] ? 0.0f : v.v[k] * weight;
    return out;
  }
};

// Blocks one below the other over the frames of a clip. A thread has some frames, to pay for
// drawing the stripes; and the device should have two blocks for each of its multiprocessors.
inline int64_t frame_blocks(const NormShape& shape, const Map& map) {
  constexpr int64_t kEach = 4;
  return ceil_div(map.t, shape.tiling.rows * kEach);
}

// Calls body(width) with the bins of a vector.
template <typename Body>
void with_bins(const NormShape& shape, Body&& body) {
  if (shape.width == 1) {
    body(std::integral_constant<int, 1>{});
  } else {
    body(std::integral_constant<int, 8>{});
  }
}

}  // namespace panns::cuda
