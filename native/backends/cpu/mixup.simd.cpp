#include "backends/cpu/mixup.h"

#include "backends/cpu/lanes.h"

namespace panns::cpu::PANNS_TIER {
namespace {

void forward(const float* a, const float* b, float la, float lb, float* out, int64_t count) {
  map2(a, b, out, count, [=](V u, V v) { return u * la + v * lb; });
}

void backward(const float* dout, float la, float lb, float* da, float* db, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const V g = load(dout + i);
    store(da + i, g * la);
    store(db + i, g * lb);
  }
  if (i < count) {
    const V g = load_part(dout + i, count - i);
    store_part(da + i, g * la, count - i);
    store_part(db + i, g * lb, count - i);
  }
}

}  // namespace

const MixupKernels mixup_kernels = {forward, backward};

}  // namespace panns::cpu::PANNS_TIER
