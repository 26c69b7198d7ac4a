#include "backends/cpu/activation.h"

#include "backends/cpu/activation_exp.h"

namespace panns::cpu::PANNS_TIER {
namespace {

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
      map1(x, y, count, [](V v) { return vmin(set1(6.0f), vmax(zero(), v)); });
      break;
    case Activation::sigmoid:
      map1(x, y, count, [](V v) { return sigmoid(v); });
      break;
  }
}

// As in PyTorch, a NaN output lets the gradient of a relu through.
void backward(Activation kind, const float* y, const float* dy, float* dx, int64_t count) {
  switch (kind) {
    case Activation::relu:
      map2(y, dy, dx, count, [](V v, V g) { return where(~(I)(v <= 0.0f), g); });
      break;
    case Activation::relu6:
      map2(y, dy, dx, count, [](V v, V g) { return where(~(I)((v <= 0.0f) | (v >= 6.0f)), g); });
      break;
    case Activation::sigmoid:
      map2(y, dy, dx, count, [](V v, V g) { return g * ((1.0f - v) * v); });
      break;
  }
}

void add_lanes(const float* a, const float* b, float* y, int64_t count) {
  map2(a, b, y, count, [](V u, V v) { return u + v; });
}

void scale_lanes(float alpha, const float* x, float* y, int64_t count) {
  map1(x, y, count, [alpha](V v) { return v * alpha; });
}

}  // namespace

const ActivationKernels activation_kernels = {forward, backward, add_lanes, scale_lanes};

}  // namespace panns::cpu::PANNS_TIER
