#include "backends/cpu/panel_gather.h"

#include <algorithm>

namespace panns::cpu {

void gather_panel(const Map& map, const Lane* lanes, float* y) {
  const int64_t block = map.block();
  bool whole = true;  // the lanes are a panel already
  for (int64_t l = 0; l < block; ++l) {
    whole = whole && lanes[l].stride == block && lanes[l].frame == lanes[0].frame + l;
  }
  if (whole) {
    std::copy_n(lanes[0].frame, map.panel(), y);
    return;
  }
  for (int64_t t = 0; t < map.t; ++t) {
    for (int64_t l = 0; l < block; ++l) y[t * block + l] = lanes[l].frame[t * lanes[l].stride];
  }
}

}  // namespace panns::cpu
