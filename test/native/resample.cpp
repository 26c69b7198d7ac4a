// The resampler against tones whose resampled values are known exactly.
#include "audio/resample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "seed.h"
#include "tap.h"

namespace {

using panns::cat;
using panns::audio::ResampleQuality;
using panns::audio::Resampler;

constexpr double kPi = 3.14159265358979323846;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::mt19937_64 rng(test::seed());

int64_t pick(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(rng);
}

std::vector<float> noise(int64_t count) {
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> x(static_cast<size_t>(count));
  for (float& v : x) v = uniform(rng);
  return x;
}

struct Tone {
  double hz, amplitude, phase;
};

std::vector<double> play(const std::vector<Tone>& tones, int64_t rate, int64_t samples) {
  std::vector<double> x(static_cast<size_t>(samples), 0);
  for (const Tone& tone : tones) {
    for (size_t i = 0; i < x.size(); ++i) {
      // Reduced before the sine: large angles would cost digits.
      const double turns = tone.hz * static_cast<double>(i) / static_cast<double>(rate);
      x[i] += tone.amplitude * std::sin(2 * kPi * (turns - std::floor(turns)) + tone.phase);
    }
  }
  return x;
}

std::vector<float> whole(const std::vector<float>& x, int64_t from, int64_t to,
                         ResampleQuality quality = ResampleQuality::standard) {
  const Resampler r(from, to, quality);
  std::vector<float> out(static_cast<size_t>(r.output_size(static_cast<int64_t>(x.size()))), kNan);
  resample(x.data(), static_cast<int64_t>(x.size()), from, to, out.data(), quality);
  return out;
}

std::vector<float> in_chunks(Resampler& r, const std::vector<float>& x, int64_t longest) {
  std::vector<float> out;
  const auto grow = [&](int64_t by) {
    out.resize(out.size() + static_cast<size_t>(by), kNan);
    return out.data() + out.size() - by;
  };
  for (int64_t i = 0; i < static_cast<int64_t>(x.size());) {
    const int64_t take = std::min(pick(0, longest), static_cast<int64_t>(x.size()) - i);
    r.process(x.data() + i, take, grow(r.process_size(take)));
    i += take;
  }
  r.flush(grow(r.flush_size()));
  return out;
}

// Signal to error in dB, `skip` outputs left out at either end, where the clip's edges sound.
double snr(const std::vector<float>& y, const std::vector<double>& ideal, int64_t skip) {
  double signal = 0, error = 0;
  for (auto i = static_cast<size_t>(skip); i + static_cast<size_t>(skip) < y.size(); ++i) {
    signal += ideal[i] * ideal[i];
    error += (y[i] - ideal[i]) * (y[i] - ideal[i]);
  }
  return 10 * std::log10(signal / error);
}

std::vector<float> rounded(const std::vector<double>& x) { return {x.begin(), x.end()}; }

int64_t edge(const Resampler& r) { return r.output_size(r.taps()) + 1; }

// ---- the tests

void tones_and_rejection() {
  for (auto quality : {ResampleQuality::fast, ResampleQuality::standard, ResampleQuality::high}) {
    const auto x = play({{997, .4, 0}, {9000, .3, 0}, {19000, .2, 0}}, 44100, 88200);
    const auto y = whole(rounded(x), 44100, 32000, quality);
    const auto ideal = play({{997, .4, 0}, {9000, .3, 0}}, 32000, 64000);
    const Resampler r(44100, 32000, quality);
    const double db = snr(y, ideal, edge(r));
    tap::ok(db > 120, cat("44.1 to 32 kHz, ", r.taps(), " taps, passband to ", r.passband_hz(),
                          " Hz: 997 + 9000 Hz kept and 19 kHz rejected, ", db, " dB"));
  }
  tap::ok(Resampler(44100, 32000).passband_hz() >= 14000,
          "the default passband reaches PANNs' 14 kHz from 44.1 to 32 kHz");
}

void any_ratio() {
  const int64_t pairs[][2] = {{48000, 32000}, {16000, 32000}, {8000, 32000},   {22050, 32000},
                              {11025, 32000}, {96000, 32000}, {192000, 32000}, {44100, 16000},
                              {32000, 44100}, {44100, 31999}, {12345, 54321},  {31999, 44100},
                              {767999, 8000}, {768000, 8000}, {3, 7},          {100, 3}};
  for (const auto& [from, to] : pairs) {
    Resampler r(from, to);
    const auto samples = std::max<int64_t>(4 * r.taps(), 20000) + pick(0, 5000);
    const double low = 0.1 * static_cast<double>(std::min(from, to)), high = r.passband_hz();
    const double stop = 0.5 * static_cast<double>(std::min(from, to));
    const std::vector<Tone> kept = {{low, .4, 1}, {high, .3, 2}};
    std::vector<Tone> all = kept;
    if (to < from) all.push_back({stop * 1.0001, .2, 3});
    const auto x = rounded(play(all, from, samples));
    const auto y = whole(x, from, to);
    const std::string name = cat(from, " to ", to, ": ");
    const int64_t size = (samples * to + from - 1) / from;
    tap::ok(static_cast<int64_t>(y.size()) == size, name + "ceil(samples * to / from) samples");
    const double db = snr(y, play(kept, to, size), edge(r));
    tap::ok(db > 120, name + cat("tones to the edge of the passband, aligned, ", db, " dB"));
    tap::ok(in_chunks(r, x, pick(1, 9000)) == y, name + "chunks equal the whole, bit for bit");
    tap::ok(in_chunks(r, x, pick(1, 500)) == y, name + "a stream after flush is a new stream");
  }
}

void stopband() {
  for (int64_t from : {44100, 48000, 96000}) {
    const Resampler r(from, 32000);
    double loudest = 0;
    for (int i = 0; i < 12; ++i) {
      const double nyquist = static_cast<double>(from) / 2;
      const double hz = 16000 + (nyquist - 16000) * (i + 0.01) / 12;
      const auto y = whole(rounded(play({{hz, 1, 0.5}}, from, 20000)), from, 32000);
      for (auto j = edge(r); j + edge(r) < static_cast<int64_t>(y.size()); ++j) {
        loudest = std::max(loudest, std::fabs(static_cast<double>(y[static_cast<size_t>(j)])));
      }
    }
    const double db = 20 * std::log10(loudest);
    tap::ok(db < -120, cat(from, " to 32000: tones from 16 kHz up peak at ", db, " dB"));
  }
}

void not_finite() {
  for (int64_t to : {32000, 31999}) {
    std::vector<float> x = noise(30000);
    const auto clean = whole(x, 44100, to);
    x[15000] = kNan;
    const Resampler r(44100, to);
    const auto y = whole(x, 44100, to);
    // Rows are padded to a multiple of 16, so a few inputs beyond the taps weigh 0.
    const double reach = static_cast<double>(r.taps() / 2 + 16);
    bool right = true;
    for (size_t i = 0; i < y.size(); ++i) {
      const double at = static_cast<double>(i) * 44100 / static_cast<double>(to);
      right = right && (std::fabs(at - 15000) < reach ? true : y[i] == clean[i]);
    }
    const auto hit = static_cast<size_t>(15000 * to / 44100);
    tap::ok(right && std::isnan(y[hit]), cat("44100 to ", to, ": NaN stays within the taps"));
  }
}

void edges() {
  const auto x = noise(1000);
  tap::ok(whole(x, 32000, 32000) == x, "equal rates copy");
  tap::ok(whole({}, 44100, 32000).empty(), "no samples give none");
  const auto one = whole({1.0f}, 8000, 32000);
  // The cutoff lies halfway from the edge of the passband to the Nyquist frequency.
  const double middle = (Resampler(8000, 32000).passband_hz() + 4000) / 8000;
  tap::ok(one.size() == 4 && std::fabs(one[0] - middle) < 1e-6,
          cat("one sample alone gives the middle of the impulse response (", one[0], ")"));
  Resampler r(44100, 32000);
  std::vector<float> half(static_cast<size_t>(r.process_size(20000)));
  r.process(noise(20000).data(), 20000, half.data());
  r.reset();
  const auto y = noise(5000);
  tap::ok(in_chunks(r, y, 700) == whole(y, 44100, 32000), "reset drops what came before");
}

std::string code_of(int64_t from, int64_t to) {
  try {
    Resampler r(from, to);
  } catch (const panns::Error& e) {
    return e.code();
  }
  return "no error";
}

void errors() {
  tap::ok(code_of(0, 32000) == "ERR_PANNS_OPTION", "a rate of 0 is an error");
  tap::ok(code_of(32000, 768001) == "ERR_PANNS_OPTION", "a rate above 768000 is an error");
  tap::ok(code_of(768000, 1) == "ERR_PANNS_UNSUPPORTED", "768000 to 1 is not supported");
}

void many_threads() {
  const auto x = noise(30000);
  std::vector<std::vector<float>> results(8);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < results.size(); ++i) {
    threads.emplace_back([&, i] { results[i] = whole(x, 44100, i % 2 ? 22050 : 24000); });
  }
  for (std::thread& t : threads) t.join();
  bool same = true;
  for (size_t i = 0; i < results.size(); ++i) same = same && results[i] == results[i % 2];
  tap::ok(same, "threads that design and share filters agree, bit for bit");
}

}  // namespace

int main() {
  tones_and_rejection();
  any_ratio();
  stopband();
  not_finite();
  edges();
  errors();
  many_threads();
  return tap::done();
}
