#include "backends/cpu/activation.h"

#include "backends/cpu/activation_exp.h"

namespace panns::cpu::PANNS_TIER {
namespace {

PANNS_INLINE V clamp6(V x) { return vmin(set1(6.0f), vmax(zero(), x)); }

PANNS_INLINE V hard_swish_backward(V x, V g) {
  const V inner = g * (x * (1.0f / 3) + 0.5f);
  return x >= 3.0f ? g : where(~(I)(x <= -3.0f), inner);
}

PANNS_INLINE V sigmoid(V x) {
  // exp of a negative number only: no overflow, and small results keep their relative accuracy.
  const V e = vexp((V)((I)x | (I)set1(-0.0f)));
  const V s = 1.0f / (1.0f + e);
  return x < 0.0f ? e * s : s;
}

void forward(Activation kind, const float* x, float* y, int64_t count) {
  switch (kind) {
    case Activation::relu:
      map1(x, y, count, [](V v) { return vmax(zero(), v); });
      break;
    case Activation::relu6:
      map1(x, y, count, [](V v) { return clamp6(v); });
      break;
    case Activation::hard_swish:
      map1(x, y, count, [](V v) { return v * clamp6(v + 3.0f) * (1.0f / 6); });
      break;
    case Activation::sigmoid:
      map1(x, y, count, [](V v) { return sigmoid(v); });
      break;
  }
}

// As in PyTorch, a NaN output lets the gradient of a relu through.
void backward(Activation kind, const float* from, const float* dy, float* dx, int64_t count) {
  switch (kind) {
    case Activation::relu:
      map2(from, dy, dx, count, [](V v, V g) { return where(~(I)(v <= 0.0f), g); });
      break;
    case Activation::relu6:
      map2(from, dy, dx, count, [](V v, V g) { return where(~(I)((v <= 0.0f) | (v >= 6.0f)), g); });
      break;
    case Activation::hard_swish:
      map2(from, dy, dx, count, [](V v, V g) { return hard_swish_backward(v, g); });
      break;
    case Activation::sigmoid:
      map2(from, dy, dx, count, [](V v, V g) { return g * ((1.0f - v) * v); });
      break;
  }
}

void add_lanes(const float* a, const float* b, float* y, int64_t count) {
  map2(a, b, y, count, [](V u, V v) { return u + v; });
}

}  // namespace

const ActivationKernels activation_kernels = {forward, backward, add_lanes};

}  // namespace panns::cpu::PANNS_TIER
