#include "backends/cpu/dropout.h"

#include "backends/cpu/dropout_lanes.h"
#include "backends/cpu/lanes.h"

namespace panns::cpu::PANNS_TIER {
namespace {

static_assert(kVecs * kLanes == kBlock && kBlock == 16, "a block takes four calls");

void apply_block(const DropoutRun& run, uint64_t call, const float* x, float* y) {
  const BlockWords words = random_block(run.random, call);
  for (int j = 0; j < kVecs; ++j) {
    store(y + j * kLanes, keep(load(x + j * kLanes) * run.scale, words.v[j], run.threshold));
  }
}

void apply(const DropoutRun& run, const float* x, float* y, int64_t count) {
  uint64_t call = run.first_call;
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock, call += run.call_stride) {
    apply_block(run, call, x + i, y + i);
  }
  if (i < count) {
    float tail[kBlock] = {};
    memcpy(tail, x + i, static_cast<size_t>(count - i) * sizeof(float));
    apply_block(run, call, tail, tail);
    memcpy(y + i, tail, static_cast<size_t>(count - i) * sizeof(float));
  }
}

void words(const RandomStream& random, uint64_t call, uint32_t* out) {
  const BlockWords block = random_block(random, call);
  memcpy(out, block.v, sizeof block.v);
}

}  // namespace

const DropoutKernels dropout_kernels = {apply, words};

}  // namespace panns::cpu::PANNS_TIER
