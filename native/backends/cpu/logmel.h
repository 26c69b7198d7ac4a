// The log-mel front-end on the CPU: waveforms to log-mel spectrograms (or power spectrograms), in
// one pass over the samples. Agrees with PANNs' torchlibrosa layers to about 2e-4 dB.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/cpu/logmel_kernel.h"
#include "core/threads.h"
#include "frontend/logmel_config.h"

namespace panns::cpu {

enum class LogmelOutput {
  map,      // log-mel [N][F][T], the backend's feature map with C == 1 (layout.h)
  rows,     // log-mel (N, T, F) row-major
  spectrum  // power (N, T, window_size / 2 + 1) row-major
};

// Tables and scratch sizes are fixed at construction; one object serves any number of threads at
// once, each call with a workspace of its own. NaN and infinite samples give NaN or infinite values
// in the frames they touch and do no other harm.
class Logmel {
 public:
  // threads: the largest pool that run() will be given. Throws ERR_PANNS_OPTION.
  Logmel(const frontend::LogmelConfig& config, int threads);
  Logmel(const Logmel&) = delete;
  Logmel& operator=(const Logmel&) = delete;

  const frontend::LogmelConfig& config() const { return config_; }
  int64_t workspace_bytes() const { return threads_ * slot_floats_ * 4; }
  int64_t output_size(int64_t n, int64_t samples, LogmelOutput output) const;  // floats

  // wave (N, S) in -1..1, or 16-bit integers that stand for x / 32767; workspace is aligned to 64
  // bytes. Throws ERR_PANNS_SHAPE when clips have fewer than config().min_samples() samples.
  void run(ThreadPool& pool, const float* wave, int64_t n, int64_t samples, LogmelOutput output,
           float* out, void* workspace) const;
  void run(ThreadPool& pool, const int16_t* wave, int64_t n, int64_t samples, LogmelOutput output,
           float* out, void* workspace) const;

 private:
  struct Scratch;
  template <typename Sample>
  void run_any(ThreadPool& pool, const Sample* wave, int64_t n, int64_t samples,
               LogmelOutput output, float* out, void* workspace) const;
  template <typename Sample>
  void run_batch(const Sample* clip, int64_t samples, int64_t first_frame, LogmelOutput output,
                 float* out, const Scratch& scratch) const;
  void plan_passes();
  void plan_bands();
  Scratch scratch(void* workspace, int slot) const;

  frontend::LogmelConfig config_;
  int64_t threads_;
  const LogmelKernel& kernel_;
  LogmelTables tables_;
  std::vector<FftPass> passes_;
  std::vector<std::vector<float>> factors_;  // the twiddles and roots of the passes
  std::vector<int32_t> place_, mel_first_, mel_count_;
  std::vector<float> window_, turn_, mel_weights_;
  int64_t transform_floats_ = 0, power_floats_ = 0, bands_floats_ = 0, span_floats_ = 0;
  int64_t slot_floats_ = 0;  // all of one thread's scratch
};

}  // namespace panns::cpu
