// The log-mel front-end against double-precision code that follows the definitions, and against
// numbers measured on the published models.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backends/cpu/logmel.h"
#include "core/error.h"
#include "frontend/mel.h"
#include "frontend/window.h"
#include "seed.h"
#include "tap.h"

namespace {

using panns::cat;
using panns::ThreadPool;
using panns::cpu::Logmel;
using panns::cpu::LogmelOutput;
using panns::frontend::LogmelConfig;
using panns::ops::LogKind;
using panns::ops::MelScale;

constexpr double kPi = 3.14159265358979323846;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::mt19937_64 rng(test::seed());

std::vector<float> noise(int64_t count) {
  std::normal_distribution<float> normal(0, 0.1f);
  std::vector<float> x(static_cast<size_t>(count));
  for (float& v : x) v = normal(rng);
  return x;
}

// ---- the oracle

struct Oracle {
  std::vector<double> power, bands, logmel;  // (T, bins), (T, mels) twice
};

double slaney_mel(double hz) {
  return hz < 1000 ? 3 * hz / 200 : 15 + 27 * std::log(hz / 1000) / std::log(6.4);
}
double slaney_hz(double mel) {
  return mel < 15 ? 200 * mel / 3 : 1000 * std::pow(6.4, (mel - 15) / 27);
}

double kaldi_mel(double hz) { return 1127 * std::log(1 + hz / 700); }

// Sample i of the window that lies in the middle of n samples.
double hann(const LogmelConfig& c, int64_t i) {
  const int64_t length = c.window_length > 0 ? c.window_length : c.window_size;
  i -= (c.window_size - length) / 2;
  if (i < 0 || i >= length) return 0;
  const auto period = static_cast<double>(c.periodic ? length : length - 1);
  return std::pow(std::sin(kPi * static_cast<double>(i) / period), 2);
}

// The weight of bin k in band m, from the band's corners along the axis.
double mel_weight(const LogmelConfig& c, int64_t m, int64_t k) {
  const bool kaldi = c.mel_scale == MelScale::kaldi;
  if (kaldi && 2 * k == c.window_size) return 0;
  const auto to_mel = kaldi ? kaldi_mel : slaney_mel;
  const double low = to_mel(c.fmin), high = to_mel(c.fmax);
  double corner[3];
  for (int64_t i = 0; i < 3; ++i) {
    corner[i] =
        low + (high - low) * static_cast<double>(m + i) / static_cast<double>(c.mel_bins + 1);
    if (!kaldi) corner[i] = slaney_hz(corner[i]);
  }
  const double hz = static_cast<double>(k * c.sample_rate) / static_cast<double>(c.window_size);
  const double at = kaldi ? kaldi_mel(hz) : hz;
  const double rise = (at - corner[0]) / (corner[1] - corner[0]);
  const double fall = (corner[2] - at) / (corner[2] - corner[1]);
  const double height = kaldi ? 1 : 2 / (corner[2] - corner[0]);
  return std::max(0.0, std::min(rise, fall)) * height;
}

Oracle oracle(const LogmelConfig& c, const float* wave, int64_t samples) {
  std::vector<double> x(wave, wave + samples);
  if (c.preemphasis != 0) {
    for (size_t i = 0; i + 1 < x.size(); ++i) x[i] = x[i + 1] - c.preemphasis * x[i];
    x.pop_back();
    --samples;
  }
  const int64_t n = c.window_size, bins = n / 2 + 1, frames = samples / c.hop_size + 1;
  std::vector<double> cosine, sine;
  for (int64_t i = 0; i < n; ++i) {
    cosine.push_back(std::cos(2 * kPi * static_cast<double>(i) / static_cast<double>(n)));
    sine.push_back(std::sin(2 * kPi * static_cast<double>(i) / static_cast<double>(n)));
  }
  Oracle o;
  for (int64_t t = 0; t < frames; ++t) {
    std::vector<double> frame;
    for (int64_t i = 0; i < n; ++i) {
      int64_t at = t * c.hop_size + i - n / 2;
      if (at < 0) at = -at;
      if (at >= samples) at = 2 * (samples - 1) - at;
      frame.push_back(x[static_cast<size_t>(at)] * hann(c, i));
    }
    for (int64_t k = 0; k < bins; ++k) {
      double re = 0, im = 0;
      for (int64_t i = 0; i < n; ++i) {
        re += frame[static_cast<size_t>(i)] * cosine[static_cast<size_t>(i * k % n)];
        im -= frame[static_cast<size_t>(i)] * sine[static_cast<size_t>(i * k % n)];
      }
      o.power.push_back(re * re + im * im);
    }
  }
  o.bands.resize(static_cast<size_t>(frames * c.mel_bins));
  for (int64_t m = 0; m < c.mel_bins; ++m) {
    for (int64_t k = 0; k < bins; ++k) {
      const double weight = mel_weight(c, m, k);
      for (int64_t t = 0; weight > 0 && t < frames; ++t) {
        o.bands[static_cast<size_t>(t * c.mel_bins + m)] +=
            weight * o.power[static_cast<size_t>(t * bins + k)];
      }
    }
  }
  for (double band : o.bands) {
    const double y =
        c.log == LogKind::natural ? std::log(band + 1e-5) : 10 * std::log10(std::max(band, c.amin));
    o.logmel.push_back((y + c.shift) * c.scale);
  }
  return o;
}

// ---- running the front-end on poisoned memory, with sentinels behind the output and workspace

constexpr float kSentinel = 12345.0f;

template <typename Sample>
std::vector<float> run(const LogmelConfig& config, const std::vector<Sample>& wave, int64_t n,
                       LogmelOutput output, int threads = 1) {
  const auto samples = static_cast<int64_t>(wave.size()) / n;
  const Logmel logmel(config, threads);
  ThreadPool pool(threads);
  const int64_t size = logmel.output_size(n, samples, output);
  const int64_t scratch = logmel.workspace_bytes() / 4;
  std::vector<float> out(static_cast<size_t>(size + 16), kNan);
  const std::unique_ptr<float, void (*)(void*)> owner(
      static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(scratch + 16) * 4)),
      std::free);
  float* const workspace = owner.get();
  std::fill(workspace, workspace + scratch, kNan);
  std::fill(workspace + scratch, workspace + scratch + 16, kSentinel);
  std::fill(out.end() - 16, out.end(), kSentinel);
  logmel.run(pool, wave.data(), n, samples, output, out.data(), workspace);
  const auto untouched = [](float v) { return v == kSentinel; };
  if (!std::all_of(out.end() - 16, out.end(), untouched) ||
      !std::all_of(workspace + scratch, workspace + scratch + 16, untouched)) {
    tap::ok(false, "nothing is written past the output or the workspace");
  }
  out.resize(static_cast<size_t>(size));
  return out;
}

template <typename A, typename B>
double worst(const std::vector<A>& a, const std::vector<B>& b) {
  double most = a.size() == b.size() ? 0 : 1e30;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double d = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    most = d <= most ? most : std::isnan(d) ? 1e30 : d;
  }
  return most;
}

// The largest error of a log-mel in dB, over the bands that a float transform can tell: fainter
// ones than 50 dB below the loudest are noise of its rounding.
double worst_db(const LogmelConfig& c, const std::vector<float>& got, const Oracle& o) {
  const double unit = (c.log == LogKind::natural ? 10 / std::log(10.0) : 1) / std::fabs(c.scale);
  const double least = 1e-5 * *std::max_element(o.bands.begin(), o.bands.end());
  std::vector<double> loud, want;
  for (size_t i = 0; i < std::min(got.size(), o.bands.size()); ++i) {
    // An empty band is silence exactly.
    if (o.bands[i] > 0 && o.bands[i] < least && std::isfinite(got[i])) continue;
    loud.push_back(got[i]);
    want.push_back(o.logmel[i]);
  }
  return got.size() == o.bands.size() ? worst(loud, want) * unit : 1e30;
}

LogmelConfig mobilenet() {
  LogmelConfig c;
  c.mel_bins = 128;
  c.fmin = 0;
  c.fmax = 15000;
  c.window_length = 800;
  c.periodic = false;
  c.preemphasis = 0.97;
  c.mel_scale = MelScale::kaldi;
  c.log = LogKind::natural;
  c.shift = 4.5;
  c.scale = 0.2;
  return c;
}

std::string code_of(const LogmelConfig& config, int64_t samples, const char* word) {
  try {
    run(config, noise(samples), 1, LogmelOutput::map);
  } catch (const panns::Error& e) {
    return std::strstr(e.what(), word) ? e.code() : cat("text without ", word, ": ", e.what());
  }
  return "no error";
}

uint64_t fnv1a(const std::vector<float>& values) {
  uint64_t hash = 0xcbf29ce484222325u;
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  for (size_t i = 0; i < values.size() * 4; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3u;
  return hash;
}

// ---- the tests

void any_size() {
  // Powers of two, mixed radices, half windows that are primes, hops above the window.
  std::vector<LogmelConfig> configs = {
      {32000, 1024, 320, 64, 50, 14000}, {16000, 512, 160, 64, 50, 8000},
      {8000, 256, 80, 64, 50, 4000},     {32000, 1024, 320, 128, 50, 14000},
      {44100, 2048, 441, 80, 0, 22050},  {16000, 400, 160, 40, 20, 7600},
      {22050, 1018, 256, 20, 0, 8000},   {8000, 210, 50, 30, 0, 4000},
      {8000, 254, 300, 30, 0, 4000},     {8000, 32, 7, 6, 0, 4000},
      {8000, 10, 3, 2, 0, 4000},         {8000, 4, 1, 1, 0, 4000}};
  // Each again with settings beyond PANNs', all different.
  for (size_t i = 0; i < 12; ++i) {
    LogmelConfig c = configs[i];
    c.window_length = std::uniform_int_distribution<int64_t>(3, c.window_size)(rng);
    c.periodic = i % 2 == 0;
    c.preemphasis = i % 3 == 0 ? 0 : std::uniform_real_distribution<double>(-1, 1)(rng);
    c.mel_scale = i % 5 == 1 ? MelScale::slaney : MelScale::kaldi;
    c.log = i % 4 == 1 ? LogKind::decibel : LogKind::natural;
    c.shift = static_cast<double>(i) - 4;
    c.scale = i % 2 == 0 ? 0.2 : -2;
    configs.push_back(c);
  }
  configs.push_back(mobilenet());
  for (const LogmelConfig& c : configs) {
    const int64_t samples =
        c.min_samples() + std::uniform_int_distribution<int64_t>(0, 20 * c.hop_size)(rng);
    const std::vector<float> x = noise(samples);
    const Oracle o = oracle(c, x.data(), samples);
    const std::string name =
        cat("window ", c.window_length > 0 ? cat(c.window_length, " in ") : "", c.window_size,
            ", hop ", c.hop_size, ", ", c.mel_bins, " mels, pre-emphasis ", c.preemphasis, ", ",
            samples, " samples: ");
    const double scale = *std::max_element(o.power.begin(), o.power.end());
    const double power = worst(run(c, x, 1, LogmelOutput::spectrum), o.power) / scale;
    tap::ok(power < 1e-6, name + cat("power within 1e-6 of the largest (", power, ")"));
    const std::vector<float> rows = run(c, x, 1, LogmelOutput::rows);
    const double db = worst_db(c, rows, o);
    tap::ok(db < 1e-3, name + cat("log-mel within 1e-3 dB (", db, ")"));
    const int64_t frames = c.frames(samples);
    std::vector<float> turned(rows.size());
    for (int64_t t = 0; t < frames; ++t) {
      for (int64_t m = 0; m < c.mel_bins; ++m) {
        turned[static_cast<size_t>(m * frames + t)] = rows[static_cast<size_t>(t * c.mel_bins + m)];
      }
    }
    tap::ok(run(c, x, 1, LogmelOutput::map) == turned, name + "the map is the transpose");
  }
}

void shortest_clip() {
  for (const LogmelConfig& c : {LogmelConfig{}, mobilenet()}) {
    const int64_t samples = c.min_samples();
    tap::ok(samples == (c.preemphasis != 0 ? 514 : 513), "the fewest samples that reflect");
    const std::vector<float> x = noise(samples);
    const double db = worst_db(c, run(c, x, 1, LogmelOutput::rows), oracle(c, x.data(), samples));
    tap::ok(db < 1e-3, cat(samples, " samples within 1e-3 dB (", db, ")"));
  }
}

void batches_and_threads(const LogmelConfig& c) {
  constexpr int64_t kSamples = 5000, kClips = 5;
  const std::vector<float> x = noise(kClips * kSamples);
  const std::vector<float> all = run(c, x, kClips, LogmelOutput::map);
  bool same = true;
  for (int64_t i = 0; i < kClips; ++i) {
    const std::vector<float> clip(x.begin() + i * kSamples, x.begin() + (i + 1) * kSamples);
    const std::vector<float> one = run(c, clip, 1, LogmelOutput::map);
    same = same &&
           std::equal(one.begin(), one.end(), all.begin() + i * static_cast<int64_t>(one.size()));
  }
  tap::ok(same, "a batch equals its clips, bit for bit");
  tap::ok(run(c, x, kClips, LogmelOutput::map, 3) == all, "3 threads equal 1, bit for bit");
}

void integers(const LogmelConfig& c) {
  std::uniform_int_distribution<int> any(-32768, 32767);
  std::vector<int16_t> x(7001);
  std::vector<float> wide;
  for (int16_t& v : x) {
    v = static_cast<int16_t>(any(rng));
    wide.push_back(static_cast<float>(v) / 32767.0f);
  }
  tap::ok(run(c, x, 1, LogmelOutput::rows) == run(c, wide, 1, LogmelOutput::rows),
          "16-bit samples equal x / 32767 in float32, bit for bit");
}

void not_finite() {
  const LogmelConfig c;
  std::vector<float> x = noise(32000);
  x[16000] = kNan;
  const std::vector<float> db = run(c, x, 1, LogmelOutput::rows);
  bool right = true;
  for (int64_t t = 0; t < c.frames(32000); ++t) {
    // The window is 0 at its first sample, and 0 * NaN is NaN.
    const bool touched = t * 320 - 512 <= 16000 && 16000 < t * 320 + 512;
    for (int64_t m = 0; m < 64; ++m) {
      right = right && std::isnan(db[static_cast<size_t>(t * 64 + m)]) == touched;
    }
  }
  tap::ok(right, "NaN in gives NaN in the frames it touches, and in no other");
  std::fill(x.begin(), x.end(), 1e30f);
  tap::ok(std::isinf(run(c, x, 1, LogmelOutput::spectrum)[0]), "an overflow gives infinity");
}

void errors() {
  const LogmelConfig good;
  const auto with = [&](auto change) {
    LogmelConfig c = good;
    change(c);
    return c;
  };
  const char* option = "ERR_PANNS_OPTION";
  tap::ok(code_of(good, 512, "at least 513") == "ERR_PANNS_SHAPE", "512 samples are too few");
  tap::ok(code_of(with([](auto& c) { c.window_size = 1023; }), 2000, "1023") == option,
          "an odd window is an error");
  tap::ok(code_of(with([](auto& c) { c.window_size = 0; }), 2000, "got 0") == option,
          "a window of 0 is an error");
  tap::ok(code_of(with([](auto& c) { c.hop_size = -7; }), 2000, "-7") == option,
          "a negative hop is an error");
  tap::ok(code_of(with([](auto& c) { c.mel_bins = 514; }), 2000, "514") == option,
          "more mels than bins is an error");
  tap::ok(code_of(with([](auto& c) { c.fmax = 16001; }), 2000, "16001") == option,
          "fmax above half the rate is an error");
  tap::ok(code_of(with([](auto& c) { c.fmin = std::nan(""); }), 2000, "fmin") == option,
          "fmin NaN is an error");
  tap::ok(code_of(with([](auto& c) { c.sample_rate = 0; }), 2000, "sample_rate") == option,
          "a rate of 0 is an error");
  tap::ok(code_of(with([](auto& c) { c.amin = 0; }), 2000, "amin") == option, "amin 0 is an error");
  tap::ok(code_of(mobilenet(), 513, "at least 514") == "ERR_PANNS_SHAPE",
          "513 samples are too few for pre-emphasis");
  tap::ok(code_of(with([](auto& c) { c.window_length = 1025; }), 2000, "1025") == option,
          "a window longer than the frame is an error");
  tap::ok(code_of(with([](auto& c) { c.window_length = 2; }), 2000, "got 2") == option,
          "a window of two samples is an error");
  tap::ok(code_of(with([](auto& c) { c.preemphasis = -1.5; }), 2000, "-1.5") == option,
          "pre-emphasis beyond 1 is an error");
  tap::ok(code_of(with([](auto& c) { c.scale = 0; }), 2000, "scale") == option,
          "a scale of 0 is an error");
  tap::ok(code_of(with([](auto& c) { c.shift = std::nan(""); }), 2000, "shift") == option,
          "a shift that is NaN is an error");
}

// ---- numbers of the published models

// torchaudio.compliance.kaldi.get_mel_banks in float64, with a row of zeros for the last bin.
void kaldi_filter_bank() {
  const panns::frontend::MelFilterBank bank = mel_filter_bank(mobilenet());
  tap::ok(bank.weights.size() == 947 && *std::min_element(bank.count.begin(), bank.count.end()) > 0,
          "Kaldi's filter bank: 947 weights, no filter is empty");
  const int64_t first[] = {1, 1, 2, 2, 3};
  tap::ok(std::equal(first, first + 5, bank.first.begin()) &&
              bank.first.back() + bank.count.back() - 1 == 479,
          "Kaldi's filter bank: first bins, last bin");
  double sum = 0;
  for (double w : bank.weights) sum += w;
  tap::ok(std::fabs(sum - 473.49055127265) < 1e-9 &&
              std::fabs(bank.weights.front() - .188593189148516) < 1e-12 &&
              std::fabs(bank.weights.back() - .082635260256756) < 1e-12,
          "Kaldi's filter bank: sum, first and last weight");
  // 38 * (32000 / 76) rounds to a little less than 16000.
  LogmelConfig wide{32000, 76, 20, 10, 0, 16000};
  wide.mel_scale = MelScale::kaldi;
  const panns::frontend::MelFilterBank all = mel_filter_bank(wide);
  tap::ok(all.bins == 39 && all.first.back() + all.count.back() == 38,
          "Kaldi's filter bank leaves the last bin out");
}

void filter_banks() {
  struct Facts {
    LogmelConfig config;
    int64_t nonzero, first[3], last;
    double largest;
    uint64_t hash;  // FNV-1a of the bytes of melW
  };
  const Facts table[] = {
      {{32000, 1024, 320, 64, 50, 14000}, 866, {2, 4, 6}, 447, .018149516, 0x6a78be8ca120994a},
      {{16000, 512, 160, 64, 50, 8000}, 495, {2, 4, 5}, 255, .02162881, 0x6eb3d0393f0a66a2},
      {{8000, 256, 80, 64, 50, 4000}, 247, {2, 3, 4}, 127, .028041514, 0x3688af8931d176ff},
      {{32000, 1024, 320, 32, 50, 14000}, 842, {2, 6, 9}, 447, .0093969, 0x12b9ffb50360a244},
      {{32000, 1024, 320, 128, 50, 14000}, 879, {2, 3, 4}, 447, .0363785, 0x2f1ea30e1a6ceea4}};
  for (const Facts& f : table) {
    const panns::frontend::MelFilterBank bank = mel_filter_bank(f.config);
    const std::vector<float> dense = bank.dense();
    const std::string name = cat("filter bank ", f.config.sample_rate, "/", f.config.window_size,
                                 "/", f.config.mel_bins, ": ");
    tap::ok(static_cast<int64_t>(bank.weights.size()) == f.nonzero,
            name + cat(f.nonzero, " weights"));
    tap::ok(std::equal(f.first, f.first + 3, bank.first.begin()), name + "first bins");
    tap::ok(bank.first.back() + bank.count.back() - 1 == f.last, name + "last bin");
    tap::ok(std::fabs(*std::max_element(dense.begin(), dense.end()) - f.largest) < 5e-8,
            name + "largest weight");
    tap::ok(fnv1a(dense) == f.hash, name + "melW bit for bit");
    tap::ok(*std::min_element(bank.count.begin(), bank.count.end()) > 0,
            name + "no filter is empty");
  }
  const std::vector<float> dense = mel_filter_bank(LogmelConfig{}).dense();
  const double expected[] = {.00428909, .01501181, .01131285, .00059012};
  double most = 0;
  for (size_t k = 0; k < 4; ++k) {
    most = std::max(most, std::fabs(dense[(k + 2) * 64] - expected[k]));
  }
  tap::ok(most < 5e-9, "melW[2..5, 0]");
  using panns::frontend::hz_to_mel;
  using panns::frontend::mel_to_hz;
  const double low = hz_to_mel(50), step = (hz_to_mel(14000) - low) / 65;
  const double corners[][2] = {{1, 103.9849},   {2, 157.9698},   {3, 211.9548},
                               {63, 12524.798}, {64, 13241.872}, {65, 14000}};
  most = 0;
  for (const auto& [i, hz] : corners)
    most = std::max(most, std::fabs(mel_to_hz(low + i * step) - hz));
  tap::ok(most < 5e-4, "corners of the default filter bank, Hz");
}

void stft_kernels() {
  const auto genuine = panns::frontend::stft_kernels(LogmelConfig{});
  tap::ok(fnv1a(genuine.real) == 0x589d8b1a9368f99a && fnv1a(genuine.imag) == 0x5e67bf40ff08b142,
          "conv_real and conv_imag of 32 kHz models, bit for bit");
  const auto small = panns::frontend::stft_kernels({8000, 256, 80, 64, 50, 4000});
  tap::ok(fnv1a(small.real) == 0x8154b394adf660b8 && fnv1a(small.imag) == 0xd6f7b39d662ad786,
          "conv_real and conv_imag of 8 kHz models, bit for bit");
  const std::vector<double> w = panns::frontend::hann(1024);
  double sum = 0, squares = 0;
  for (double v : w) {
    sum += v;
    squares += v * v;
  }
  tap::ok(
      w[0] == 0 && w[512] == 1 && std::fabs(sum - 512) < 1e-9 && std::fabs(squares - 384) < 1e-9,
      "the Hann window is periodic: 0, 1, sum N / 2, sum of squares 3 N / 8");
  const std::vector<double> f = panns::frontend::frame_window(mobilenet());
  double uneven = 0;
  for (size_t i = 0; i < 512; ++i) uneven = std::max(uneven, std::fabs(f[i] - f[1023 - i]));
  tap::ok(f.size() == 1024 && uneven < 1e-15, "a symmetric window lies in the middle of its frame");
  tap::ok(f[112] == 0 && f[113] > 0 && f[511] < 1 && f[511] > 0.999,
          "800 samples of 1024 begin at 112, and no sample is the top");
}

void known_sounds() {
  const LogmelConfig c;
  std::vector<float> tone(32000);
  for (size_t i = 0; i < tone.size(); ++i) {
    tone[i] = static_cast<float>(0.5 * std::sin(2 * kPi * 1000 * static_cast<double>(i) / 32000));
  }
  const std::vector<float> power = run(c, tone, 1, LogmelOutput::spectrum);
  const float* frame = power.data() + 50 * 513;
  tap::ok(
      std::max_element(frame, frame + 513) - frame == 32 && std::fabs(frame[32] - 16383.996) < 0.02,
      cat("1 kHz: power peaks in bin 32 with 128^2 (", frame[32], ")"));
  const std::vector<float> db = run(c, tone, 1, LogmelOutput::rows);
  const float* middle = db.data() + 50 * 64;
  tap::ok(std::max_element(middle, middle + 64) - middle == 17 &&
              std::fabs(middle[17] - 23.6652) < 2e-4,
          cat("1 kHz: log-mel peaks in mel 17 with 23.6652 dB (", middle[17], ")"));
  tap::ok(std::count(middle, middle + 4, -100.0f) == 4, "1 kHz: mels 0 to 3 are -100 dB");
  tap::ok(std::fabs(*std::max_element(db.begin(), db.begin() + 64) - 21.7171) < 2e-4,
          "1 kHz: frame 0 peaks at 21.7171 dB");
  const std::vector<float> silence = run(c, std::vector<float>(32000), 1, LogmelOutput::rows);
  tap::ok(std::count(silence.begin(), silence.end(), -100.0f) == 101 * 64,
          "silence is -100 dB exactly");
  const int64_t seconds[] = {1, 2, 5, 7, 10, 30}, frames[] = {101, 201, 501, 701, 1001, 3001};
  for (size_t i = 0; i < 6; ++i) {
    tap::ok(c.frames(seconds[i] * 32000) == frames[i],
            cat(seconds[i], " s: ", frames[i], " frames"));
  }
}

// 16-bit mono PCM as floats x / 32768; empty where there is no such file.
std::vector<float> read_wav(const std::string& path) {
  std::vector<float> samples;
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) return samples;
  std::vector<char> bytes(1 << 20);
  bytes.resize(std::fread(bytes.data(), 1, bytes.size(), file));
  std::fclose(file);
  const char mark[] = {'d', 'a', 't', 'a'};
  const auto data = std::search(bytes.begin(), bytes.end(), mark, mark + 4);
  for (auto at = data + 8; at + 2 <= bytes.end(); at += 2) {
    int16_t value;
    std::memcpy(&value, &*at, 2);
    samples.push_back(static_cast<float>(value) / 32768.0f);
  }
  return samples;
}

void resource_clip() {
  const char* shared = std::getenv("PANNS_SHARED");
  std::vector<float> x =
      read_wav(std::string(shared ? shared : "") + "/data/audioset/R9_ZSCveAHg_7s.wav");
  if (!shared || x.size() < 224000) {
    tap::ok(true, "log-mel of R9_ZSCveAHg_7s.wav # SKIP PANNS_SHARED does not lead to it");
    return;
  }
  x.resize(224000);
  const std::vector<float> db = run(LogmelConfig{}, x, 1, LogmelOutput::rows);
  double sum = 0, squares = 0;
  for (float v : db) sum += v;
  const double mean = sum / static_cast<double>(db.size());
  for (float v : db) squares += (v - mean) * (v - mean);
  const double deviation = std::sqrt(squares / static_cast<double>(db.size()));
  tap::ok(db.size() == 701 * 64 && std::fabs(mean + 25.866512) < 1e-3 &&
              std::fabs(deviation - 17.246982) < 1e-3,
          cat("R9 clip: mean and deviation (", mean, ", ", deviation, ")"));
  tap::ok(std::fabs(*std::min_element(db.begin(), db.end()) + 79.83339) < 1e-3 &&
              std::fabs(*std::max_element(db.begin(), db.end()) - 18.821955) < 1e-3,
          "R9 clip: lowest and highest value");
  struct Probe {
    int64_t frame, mel;
    std::vector<float> values;
  };
  const Probe probes[] = {{0, 0, {-25.1110f, -16.1547f, -13.1206f, -13.8640f}},
                          {350, 30, {-33.3683f, -26.1342f, -20.2160f, -21.3477f}},
                          {700, 62, {-60.0124f, -58.4528f}}};
  for (const Probe& p : probes) {
    const float* at = db.data() + p.frame * 64 + p.mel;
    const std::vector<float> got(at, at + p.values.size());
    tap::ok(worst(got, p.values) < 1e-3, cat("R9 clip: frame ", p.frame, " from mel ", p.mel));
  }
}

}  // namespace

int main() {
  any_size();
  shortest_clip();
  batches_and_threads(LogmelConfig{});
  batches_and_threads(mobilenet());
  integers({16000, 512, 160, 64, 50, 8000});
  integers(mobilenet());
  not_finite();
  errors();
  filter_banks();
  kaldi_filter_bank();
  stft_kernels();
  known_sounds();
  resource_clip();
  return tap::done();
}
