// The log-mel front-end on the device: waveforms to a map (N, 1, T, F) of log-mel values in one
// pass over the samples. frontend/logmel_config.h says what is computed.
#pragma once

#include <cstddef>
#include <vector>

#include "backends/cuda/launch.h"
#include "frontend/logmel_config.h"

namespace panns::cuda {

// What the kernel must know beside the tables; sizes in elements.
struct LogmelShape {
  static constexpr int kMaxPasses = 16;  // 2^16 samples are the longest window

  int64_t window = 0, hop = 0;
  int32_t half = 0;     // points of the complex transform: window / 2
  int32_t scratch = 0;  // floats of one frame: two rows of points and the places left free
  int32_t passes = 0, radix[kMaxPasses] = {};
  int32_t mels = 0;
  int32_t lanes = 0, frames = 0;  // threads of a frame, and frames of a block
  int32_t lost = 0;               // samples that pre-emphasis takes
  float preemphasis = 0;
  // log(max(power, amin) + added) * factor + shift
  float amin = 0, added = 0, factor = 0, shift = 0;
  // Offsets of the tables, in floats.
  int32_t twiddles = 0, turn = 0, mel_first = 0, mel_count = 0, mel_offset = 0, mel_weights = 0;
};

// The tables of one front-end, made on the host once and uploaded as they are.
class LogmelPlan {
 public:
  // Throws ERR_PANNS_OPTION.
  explicit LogmelPlan(const frontend::LogmelConfig& config);

  const frontend::LogmelConfig& config() const { return config_; }
  const LogmelShape& shape() const { return shape_; }
  const std::vector<float>& tables() const { return tables_; }
  // Whether the scratch of a frame is in shared memory.
  bool in_shared() const;
  // Bytes of scratch: none unless the window is too long for shared memory.
  int64_t workspace() const;
  // Blocks that have a place in the workspace.
  static constexpr int64_t kBlocks = 512;

 private:
  void plan_transform();
  void add_window();
  void add_bands();
  int32_t end() const { return static_cast<int32_t>(tables_.size()); }

  frontend::LogmelConfig config_;
  LogmelShape shape_;
  std::vector<float> tables_;
};

// wave (n, samples) in -1 ... 1; `tables` is the plan's in device memory. Throws ERR_PANNS_SHAPE
// when clips have too few samples. NaN and infinite samples give NaN or infinite values in the
// frames they touch.
void logmel(const Launch& launch, const LogmelPlan& plan, const float* tables, const float* wave,
            int64_t n, int64_t samples, float* out, void* workspace);

}  // namespace panns::cuda
