#include "backends/cuda/logmel.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "frontend/mel.h"
#include "frontend/window.h"

namespace panns::cuda {
namespace {

constexpr double kTau = 6.283185307179586476925286766559;
constexpr int64_t kBlockThreads = 256;
constexpr int64_t kSharedFloats = 48 * 1024 / 4;

// cos and -sin of 2 pi numerator / denominator.
void push_angle(std::vector<float>& out, double numerator, double denominator) {
  const double angle = kTau * numerator / denominator;
  out.push_back(static_cast<float>(std::cos(angle)));
  out.push_back(static_cast<float>(-std::sin(angle)));
}

void push_integer(std::vector<float>& out, int64_t value) {
  out.push_back(std::bit_cast<float>(static_cast<int32_t>(value)));
}

}  // namespace

LogmelPlan::LogmelPlan(const frontend::LogmelConfig& config) : config_(config) {
  config_.validate();
  shape_.window = config_.window_size;
  shape_.hop = config_.hop_size;
  shape_.half = static_cast<int32_t>(config_.window_size / 2);
  shape_.mels = static_cast<int32_t>(config_.mel_bins);
  shape_.lost = static_cast<int32_t>(config_.lost());
  shape_.preemphasis = static_cast<float>(config_.preemphasis);
  const bool natural = config_.log == ops::LogKind::natural;
  shape_.amin = static_cast<float>(natural ? 0 : config_.amin);
  shape_.added = static_cast<float>(natural ? frontend::LogmelConfig::kNaturalOffset : 0);
  shape_.factor = static_cast<float>(config_.scale * (natural ? 1 : 10 / std::log(10.0)));
  shape_.shift = static_cast<float>(config_.shift * config_.scale);
  plan_transform();
  add_window();
  add_bands();
}

void LogmelPlan::plan_transform() {
  // 8, 4 and 2 have butterflies of their own; what is left goes by odd primes, smallest first.
  int32_t rest = shape_.half;
  const auto take = [&](int32_t radix) {
    for (; rest % radix == 0; rest /= radix) shape_.radix[shape_.passes++] = radix;
  };
  for (int32_t radix : {8, 4, 2}) take(radix);
  for (int32_t radix = 3; rest > 1; radix += 2) take(radix * radix > rest ? rest : radix);

  // A thread a butterfly of the first pass, and a block as many frames as have a place.
  shape_.lanes = std::clamp<int32_t>(
      static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>((shape_.half + 7) / 8))), 32,
      kBlockThreads);
  shape_.scratch = 2 * 2 * (shape_.half + shape_.half / 16 + 1);
  shape_.frames = static_cast<int32_t>(
      std::clamp<int64_t>(kSharedFloats / shape_.scratch, 1, kBlockThreads / shape_.lanes));
}

void LogmelPlan::add_window() {
  // Halved, which saves taking halves when the transform of real samples is put together.
  for (double w : frontend::frame_window(config_)) {
    tables_.push_back(static_cast<float>(0.5 * w));
  }
  shape_.twiddles = end();
  for (int32_t j = 0; j < shape_.half; ++j) push_angle(tables_, j, shape_.half);
  shape_.turn = end();
  for (int32_t k = 0; k <= shape_.half / 2; ++k) push_angle(tables_, k, 2.0 * shape_.half);
}

void LogmelPlan::add_bands() {
  const frontend::MelFilterBank bank = frontend::mel_filter_bank(config_);
  shape_.mel_first = end();
  for (int64_t first : bank.first) push_integer(tables_, first);
  shape_.mel_count = end();
  for (int64_t count : bank.count) push_integer(tables_, count);
  shape_.mel_offset = end();
  for (int64_t offset : bank.offset) push_integer(tables_, offset);
  shape_.mel_weights = end();
  for (double w : bank.weights) tables_.push_back(static_cast<float>(w));
}

bool LogmelPlan::in_shared() const { return shape_.scratch <= kSharedFloats; }

int64_t LogmelPlan::workspace() const { return in_shared() ? 0 : kBlocks * shape_.scratch * 4; }

}  // namespace panns::cuda
