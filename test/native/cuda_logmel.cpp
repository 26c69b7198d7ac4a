// The log-mel kernel of the CUDA backend, on the host, against the definition in double: a direct
// transform of reflected, windowed frames. The tables of window and bands are the front-end's own,
// tested in frontend.cpp.
#include "cuda_on_host.h"
// The kernels' sources after it.
#include "backends/cuda/logmel.cpp"
#include "backends/cuda/logmel.cu"
#include "cuda_values.h"

using namespace cuda_test;
namespace cuda = panns::cuda;
using panns::frontend::LogmelConfig;

namespace {

constexpr double kPi = 3.14159265358979323846;

// (N, T, F) of a batch of clips.
Doubles naive(const LogmelConfig& c, const Doubles& wave, int64_t n, int64_t samples) {
  const Doubles window = panns::frontend::frame_window(c);
  const auto bank = panns::frontend::mel_filter_bank(c);
  const int64_t size = c.window_size, length = samples - c.lost();
  Doubles out, cosine(static_cast<size_t>(size)), sine(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    cosine[i] = std::cos(2 * kPi * static_cast<double>(i) / static_cast<double>(size));
    sine[i] = std::sin(2 * kPi * static_cast<double>(i) / static_cast<double>(size));
  }
  for (int64_t clip = 0; clip < n; ++clip) {
    const double* x = wave.data() + clip * samples;
    for (int64_t t = 0; t < c.frames(samples); ++t) {
      Doubles frame(static_cast<size_t>(size)), power;
      for (int64_t i = 0; i < size; ++i) {
        int64_t from = std::abs(t * c.hop_size - size / 2 + i);
        if (from >= length) from = 2 * (length - 1) - from;
        const double value = c.preemphasis == 0 ? x[from] : x[from + 1] - c.preemphasis * x[from];
        frame[i] = value * window[i];
      }
      for (int64_t k = 0; k <= size / 2; ++k) {
        double re = 0, im = 0;
        for (int64_t i = 0; i < size; ++i) {
          re += frame[i] * cosine[i * k % size];
          im -= frame[i] * sine[i * k % size];
        }
        power.push_back(re * re + im * im);
      }
      for (int64_t m = 0; m < bank.mels; ++m) {
        double sum = 0;
        for (int64_t i = 0; i < bank.count[m]; ++i) {
          sum += bank.weights[bank.offset[m] + i] * power[bank.first[m] + i];
        }
        const double log = c.log == panns::ops::LogKind::natural
                               ? std::log(sum + LogmelConfig::kNaturalOffset)
                               : 10 * std::log10(std::max(sum, c.amin));
        out.push_back((log + c.shift) * c.scale);
      }
    }
  }
  return out;
}

// Noise, and a tone far above it in one clip of two: bands far below their neighbours, and loud
// frames beside quiet ones.
Floats waves(int64_t n, int64_t samples) {
  Floats x = normal(n * samples, 0, 0.02);
  for (int64_t i = 0; i < samples; ++i) {
    if (i % 4000 < 2000) x[i] += static_cast<float>(0.8 * std::sin(0.3 * static_cast<double>(i)));
  }
  return x;
}

void check(const std::string& name, const LogmelConfig& config, int64_t n, int64_t samples) {
  Floats x = waves(n, samples);
  const Doubles want = naive(config, wide(x), n, samples);
  // 2e-4 dB, or as much of the natural logarithm. And a float transform's rounding, 1e-7 of the
  // frame's largest amplitude, is that much more of a band far below.
  const double per_neper =
      config.scale * (config.log == panns::ops::LogKind::natural ? 1 : 10 / std::log(10.0));
  Doubles allowed;
  for (size_t i = 0; i < want.size(); ++i) {
    const auto frame = want.begin() + static_cast<int64_t>(i) / config.mel_bins * config.mel_bins;
    const double loudest = *std::max_element(frame, frame + config.mel_bins);
    const double below = std::exp((loudest - want[i]) / (2 * per_neper));
    allowed.push_back(per_neper * (2e-4 / 4.3429 + 2e-7 * below));
  }
  on_orders(
      cat("logmel ", name, " (", n, ",", samples, ")"),
      [&] {
        const cuda::LogmelPlan plan(config);
        Floats tables = plan.tables();
        auto work = workspace(plan.workspace());
        Array out(Run(std::ssize(want)));
        cuda::logmel(kLaunch, plan, tables.data(), x.data(), n, samples, out, work.data());
        return std::vector<Array>{out};
      },
      [&](const std::vector<Array>& o) {
        double worst = 0;
        for (size_t i = 0; i < want.size(); ++i) {
          const double e = std::fabs(o[0].at(static_cast<int64_t>(i)) - want[i]) / allowed[i];
          worst = e <= worst ? worst : std::isnan(e) ? INFINITY : e;
        }
        return worst;
      });
}

LogmelConfig sized(int64_t window, int64_t hop, int64_t mels) {
  LogmelConfig c;
  c.window_size = window;
  c.hop_size = hop;
  c.mel_bins = mels;
  return c;
}

// Silence beside a loud frame: the floor is exact, and a NaN stays in the frames that it touches.
void edges() {
  const LogmelConfig config;
  const cuda::LogmelPlan plan(config);
  Floats tables = plan.tables(), x(16000, 0.0f);
  for (int64_t i = 8000; i < 16000; ++i) x[i] = i % 2 == 0 ? 1.0f : -0.9f;
  x[15999] = NAN;
  const int64_t frames = config.frames(16000);
  Array out(Run(frames * 64));
  cuda::logmel(kLaunch, plan, tables.data(), x.data(), 1, 16000, out, nullptr);
  bool floor = true, poisoned = true, finite = true;
  for (int64_t t = 0; t < frames; ++t) {
    for (int64_t m = 0; m < 64; ++m) {
      const float v = out.at(t * 64 + m);
      if (t * 320 + 512 <= 8000) {
        floor = floor && std::fabs(v + 100) < 2e-5;
      } else if (t * 320 + 512 > 15999) {
        poisoned = poisoned && std::isnan(v);
      } else {
        finite = finite && std::isfinite(v);
      }
    }
  }
  tap::ok(floor, "logmel: silence is -100 dB in every frame, loud neighbours or not");
  tap::ok(poisoned && finite, "logmel: a NaN sample reaches the frames that hold it and no other");
  tap::ok(
      throws("ERR_PANNS_SHAPE",
             [&] { cuda::logmel(kLaunch, plan, tables.data(), x.data(), 1, 512, out, nullptr); }),
      "logmel: a clip of half a window is refused");
}

}  // namespace

int main() {
  check("PANNs", {}, 2, 5000);
  check("PANNs", {}, 1, 4321);
  check("PANNs, shortest", {}, 3, 513);
  LogmelConfig rate16 = sized(512, 160, 64);
  rate16.sample_rate = 16000;
  rate16.fmax = 8000;
  check("16 kHz", rate16, 2, 3001);
  LogmelConfig rate8 = sized(256, 80, 64);
  rate8.sample_rate = 8000;
  rate8.fmax = 4000;
  check("8 kHz", rate8, 2, 1999);
  LogmelConfig mobile = sized(1024, 320, 128);
  mobile.window_length = 800;
  mobile.periodic = false;
  mobile.preemphasis = 0.97;
  mobile.mel_scale = panns::ops::MelScale::kaldi;
  mobile.log = panns::ops::LogKind::natural;
  mobile.shift = 4.5;
  mobile.scale = 0.2;
  mobile.fmin = 0;
  mobile.fmax = 15000;
  check("MobileNetV3", mobile, 2, 3333);
  check("MobileNetV3", mobile, 1, 2000);
  // Every radix, alone and mixed, primes beyond 7, odd halves, and too long for shared memory.
  for (int64_t window : {4, 6, 14, 22, 64, 400, 630, 882, 2048, 2310, 8192}) {
    check(cat("window ", window), sized(window, window / 2 + 1, std::min<int64_t>(window / 2, 20)),
          1, 3 * window + 5);
  }
  // More frames than all blocks have places for at once.
  check("many frames", sized(64, 33, 20), 3, 33 * 200);
  edges();
  return tap::done();
}
