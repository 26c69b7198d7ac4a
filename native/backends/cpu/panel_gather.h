// A panel of a feature map put together from channels that lie anywhere: what concat and fold do.
#pragma once

#include "backends/cpu/layout.h"

namespace panns::cpu {

// One channel's frames, `stride` floats apart. A lane of zeros unless set.
struct Lane {
  static constexpr float kZero = 0.0f;
  const float* frame = &kZero;
  int64_t stride = 0;
};

inline Lane lane_of(const Map& map, const float* x, int64_t in, int64_t ic, int64_t jf) {
  return {x + map.at(in, ic, 0, jf), map.block()};
}

// Writes one panel: lane l of every frame comes from lanes[l], of which there are map.block().
void gather_panel(const Map& map, const Lane* lanes, float* y);

// Writes map's panel (in, jf, block) of y: channel c of it is source(c), padding lanes are zero.
template <typename Source>
void gather_panel(const Map& map, int64_t in, int64_t jf, int64_t block, float* y,
                  Source&& source) {
  Lane lanes[kChannelBlock];
  const int64_t first = block * map.block();
  for (int64_t l = 0; l < map.block() && first + l < map.c; ++l) lanes[l] = source(first + l);
  gather_panel(map, lanes, y + map.at(in, first, 0, jf));
}

}  // namespace panns::cpu
