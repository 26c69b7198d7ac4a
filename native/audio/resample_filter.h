// The coefficients behind a Resampler.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "audio/resample.h"

namespace panns::audio {

// Output r of a period lies (r * down % up) / up input samples after an input sample. Its row holds
// the taps: tap k weighs the input k - (taps / 2 - 1) samples from that one. Rows stand in the
// order of the outputs. In a row the taps stand between zeros: lead[r] of them before, the rest of
// `width` after. An output with odd r has such a lead that its row spans the same inputs as the row
// before it, and one kernel call serves both.
//
// Where `up` rows would be too many, row p of `phases` + 1 is for an output p / phases samples
// after an input, and outputs interpolate linearly between two rows.
struct ResampleFilter {
  int64_t up = 1, down = 1;    // to : from
  int64_t step = 1, rest = 0;  // down = step * up + rest: from one output to the next
  int64_t taps = 0;            // even
  int64_t width = 0;           // of a row, a multiple of 16
  int64_t phases = 0;          // of an interpolated filter
  bool interpolated = false;
  double passband = 0;  // upper edge, as a part of the input rate
  int64_t max_lead = 0;
  std::vector<int32_t> lead;  // (up); empty when interpolated
  std::vector<float> storage;
  const float* rows = nullptr;  // (up or phases + 1, width), aligned to 64 bytes

  const float* row(int64_t r) const { return rows + r * width; }
  bool pairs() const { return !interpolated && up > 1; }
  // Inputs that a window reaches back from its output's place, and ahead of it.
  int64_t behind() const { return taps / 2 - 1 + max_lead; }
  int64_t ahead() const { return width - taps / 2; }
};

// The filter for a ratio in lowest terms, from the few that are kept, or designed now. Safe from
// any thread.
std::shared_ptr<const ResampleFilter> resample_filter(int64_t up, int64_t down,
                                                      ResampleQuality quality);

}  // namespace panns::audio
