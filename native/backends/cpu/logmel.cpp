#include "backends/cpu/logmel.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/layout.h"
#include "core/error.h"
#include "frontend/mel.h"
#include "frontend/window.h"

namespace panns::cpu {
namespace {

constexpr double kTau = 6.283185307179586476925286766559;
constexpr int64_t kAlignFloats = 16;  // 64 bytes, one vector of the widest tier
constexpr int64_t kMaxLanes = 16;
// From this size on the points of the first pass would be multiples of 4 KB apart and share one
// set of the first cache; a point left free after each part spreads them.
constexpr int64_t kSpreadFrom = 16;

// 8, 4 and 2 have butterflies of their own; what is left goes by odd primes, smallest first.
std::vector<int64_t> factorize(int64_t n) {
  std::vector<int64_t> radices;
  for (int64_t r : {8, 4, 2}) {
    for (; n % r == 0; n /= r) radices.push_back(r);
  }
  for (int64_t r = 3; n > 1; r += 2) {
    if (r * r > n) r = n;
    for (; n % r == 0; n /= r) radices.push_back(r);
  }
  return radices;
}

void push_angle(std::vector<float>& out, double numerator, double denominator, double sign) {
  const double angle = kTau * numerator / denominator;
  out.push_back(static_cast<float>(std::cos(angle)));
  out.push_back(static_cast<float>(sign * std::sin(angle)));
}

void widen(const LogmelKernel&, const float* in, int64_t count, float* out) {
  std::copy(in, in + count, out);
}
void widen(const LogmelKernel& kernel, const int16_t* in, int64_t count, float* out) {
  kernel.widen(in, count, out);
}

// Elements begin .. begin + count - 1 of a signal whose ends are mirrors; begin may be negative.
// read(i, n, to) copies n elements from i on; they are read in rising order of their places in out.
template <typename Read>
void copy_reflected(const Read& read, int64_t length, int64_t begin, int64_t count, float* out) {
  const int64_t end = begin + count;
  const int64_t first = std::max<int64_t>(begin, 0), last = std::min(end, length);
  for (int64_t i = begin; i < first; ++i) read(-i, 1, out + (i - begin));
  if (last > first) read(first, last - first, out + (first - begin));
  for (int64_t i = std::max(last, first); i < end; ++i) {
    read(2 * (length - 1) - i, 1, out + (i - begin));
  }
}

}  // namespace

struct Logmel::Scratch {
  float *transform, *power, *bands, *span;
};

Logmel::Logmel(const frontend::LogmelConfig& config, int threads)
    : config_(config), threads_(threads), kernel_(logmel_kernel()) {
  config_.validate();
  PANNS_CHECK(threads >= 1, "ERR_PANNS_OPTION", "logmel", "threads must be at least 1, got ",
              threads);
  plan_passes();
  plan_bands();
  power_floats_ = round_up(config_.bins() * kernel_.lanes, kAlignFloats);
  bands_floats_ = round_up(config_.mel_bins * kernel_.lanes, kAlignFloats);
  span_floats_ = round_up(
      (kernel_.lanes - 1) * config_.hop_size + config_.window_size + config_.lost(), kAlignFloats);
  slot_floats_ = transform_floats_ + power_floats_ + bands_floats_ + span_floats_;
}

void Logmel::plan_passes() {
  const int64_t half = config_.window_size / 2;
  const std::vector<int64_t> radices = factorize(half);
  int64_t length = half, blocks = 1, largest_odd = 0;
  for (size_t i = 0; i < radices.size(); ++i) {
    FftPass pass;
    pass.radix = radices[i];
    pass.count = pass.stride = length / pass.radix;
    pass.blocks = blocks;
    std::vector<float> twiddles, roots;
    if (pass.count > 1) {
      for (int64_t p = 0; p < pass.count; ++p) {
        for (int64_t k = 1; k < pass.radix; ++k) {
          push_angle(twiddles, static_cast<double>(p * k), static_cast<double>(length), 1);
        }
      }
      factors_.push_back(std::move(twiddles));
      pass.twiddles = factors_.back().data();
    }
    if (pass.radix % 2 == 1) {
      largest_odd = std::max(largest_odd, pass.radix);
      for (int64_t j = 0; j < pass.radix; ++j) {
        push_angle(roots, static_cast<double>(j), static_cast<double>(pass.radix), 1);
      }
      factors_.push_back(std::move(roots));
      pass.roots = factors_.back().data();
    }
    passes_.push_back(pass);
    length = pass.count;
    // From the second pass on blocks are counted within one part.
    if (i > 0) blocks *= pass.radix;
  }
  tables_.half = half;
  tables_.parts = passes_[0].radix;
  tables_.part = passes_[0].count;
  tables_.part_stride = tables_.part + (tables_.part >= kSpreadFrom ? 1 : 0);
  passes_[0].stride = tables_.part_stride;
  tables_.passes = passes_.data();
  tables_.pass_count = static_cast<int64_t>(passes_.size());
  transform_floats_ = round_up(
      2 * (tables_.parts * tables_.part_stride + largest_odd) * kernel_.lanes, kAlignFloats);

  // Frequency k, written digit by digit with the first pass's radix lowest, lies where the same
  // digits count from the top.
  place_.resize(static_cast<size_t>(half + 1));
  for (int64_t k = 0; k < half; ++k) {
    int64_t rest = k / tables_.parts, size = tables_.part;
    int64_t place = k % tables_.parts * tables_.part_stride;
    for (size_t i = 1; i < radices.size(); ++i) {
      size /= radices[i];
      place += rest % radices[i] * size;
      rest /= radices[i];
    }
    place_[static_cast<size_t>(k)] = static_cast<int32_t>(place);
  }
  place_.back() = place_.front();
  tables_.place = place_.data();

  for (int64_t k = 0; k <= half / 2; ++k) {
    push_angle(turn_, static_cast<double>(k), static_cast<double>(2 * half), -1);
  }
  tables_.turn = turn_.data();
}

void Logmel::plan_bands() {
  for (double w : frontend::frame_window(config_)) {
    window_.push_back(static_cast<float>(0.5 * w));
  }
  tables_.window = window_.data();
  const frontend::MelFilterBank bank = frontend::mel_filter_bank(config_);
  mel_first_.assign(bank.first.begin(), bank.first.end());
  mel_count_.assign(bank.count.begin(), bank.count.end());
  for (double w : bank.weights) mel_weights_.push_back(static_cast<float>(w));
  tables_.mels = bank.mels;
  tables_.mel_first = mel_first_.data();
  tables_.mel_count = mel_count_.data();
  tables_.mel_weights = mel_weights_.data();
  const bool natural = config_.log == ops::LogKind::natural;
  const double per_neper = config_.scale * (natural ? 1 : 10 / std::log(10.0));
  tables_.added = static_cast<float>(natural ? frontend::LogmelConfig::kNaturalOffset : 0);
  tables_.amin = static_cast<float>(config_.amin);
  tables_.per_neper = static_cast<float>(per_neper);
  tables_.per_octave = static_cast<float>(per_neper * std::log(2.0));
  tables_.shift = static_cast<float>(config_.shift * config_.scale);
}

int64_t Logmel::output_size(int64_t n, int64_t samples, LogmelOutput output) const {
  return n * config_.frames(samples) *
         (output == LogmelOutput::spectrum ? config_.bins() : config_.mel_bins);
}

Logmel::Scratch Logmel::scratch(void* workspace, int slot) const {
  float* at = static_cast<float*>(workspace) + slot * slot_floats_;
  Scratch s;
  s.transform = at;
  s.power = s.transform + transform_floats_;
  s.bands = s.power + power_floats_;
  s.span = s.bands + bands_floats_;
  return s;
}

template <typename Sample>
void Logmel::run_batch(const Sample* clip, int64_t samples, int64_t first_frame,
                       LogmelOutput output, float* out, const Scratch& scratch) const {
  const int64_t lanes = kernel_.lanes, total = config_.frames(samples);
  const int64_t frames = std::min(lanes, total - first_frame);
  const int64_t begin = first_frame * config_.hop_size - config_.window_size / 2;
  const int64_t span = (frames - 1) * config_.hop_size + config_.window_size;

  const int64_t lost = config_.lost();
  const float* start = scratch.span;
  const bool inside = begin >= 0 && begin + span <= samples;
  if constexpr (std::is_same_v<Sample, float>) {
    if (inside && lost == 0) start = clip + begin;
  }
  if (start == scratch.span) {
    // Pre-emphasis leaves its last input behind what it makes; the next elements overwrite it.
    const auto read = [&](int64_t i, int64_t count, float* to) {
      widen(kernel_, clip + i, count + lost, to);
      if (lost > 0) kernel_.emphasize(to, count, static_cast<float>(config_.preemphasis));
    };
    copy_reflected(read, samples - lost, begin, span, scratch.span);
  }
  // Lanes past the last frame repeat it; their results are dropped.
  const float* lane_start[kMaxLanes];
  for (int64_t l = 0; l < lanes; ++l) {
    lane_start[l] = start + std::min(l, frames - 1) * config_.hop_size;
  }
  kernel_.power(tables_, lane_start, scratch.transform, scratch.power);

  const float* values = scratch.power;
  int64_t rows = config_.bins();
  if (output != LogmelOutput::spectrum) {
    kernel_.mel_log(tables_, scratch.power, scratch.bands);
    values = scratch.bands;
    rows = config_.mel_bins;
  }
  if (output == LogmelOutput::map) {
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(out + r * total + first_frame, values + r * lanes,
                  static_cast<size_t>(frames) * sizeof(float));
    }
    return;
  }
  for (int64_t l = 0; l < frames; ++l) {
    float* row = out + (first_frame + l) * rows;
    for (int64_t r = 0; r < rows; ++r) row[r] = values[r * lanes + l];
  }
}

template <typename Sample>
void Logmel::run_any(ThreadPool& pool, const Sample* wave, int64_t n, int64_t samples,
                     LogmelOutput output, float* out, void* workspace) const {
  config_.check_samples(samples);
  PANNS_CHECK(n >= 0, "ERR_PANNS_SHAPE", "logmel", "expected a batch of 0 or more clips, got ", n);
  PANNS_CHECK(pool.size() <= threads_, "ERR_PANNS_INTERNAL", "logmel", "planned for ", threads_,
              " threads, got a pool of ", pool.size());
  const int64_t batches = (config_.frames(samples) + kernel_.lanes - 1) / kernel_.lanes;
  const int64_t image = output_size(1, samples, output);
  pool.run(n * batches, [&](int64_t index, int slot) {
    const int64_t clip = index / batches, first_frame = index % batches * kernel_.lanes;
    run_batch(wave + clip * samples, samples, first_frame, output, out + clip * image,
              scratch(workspace, slot));
  });
}

void Logmel::run(ThreadPool& pool, const float* wave, int64_t n, int64_t samples,
                 LogmelOutput output, float* out, void* workspace) const {
  run_any(pool, wave, n, samples, output, out, workspace);
}

void Logmel::run(ThreadPool& pool, const int16_t* wave, int64_t n, int64_t samples,
                 LogmelOutput output, float* out, void* workspace) const {
  run_any(pool, wave, n, samples, output, out, workspace);
}

}  // namespace panns::cpu
