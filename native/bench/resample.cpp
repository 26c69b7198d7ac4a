// Time of the resampler: 10 s from one rate to another, mono, one thread.
//   resample [from = 44100] [to = 32000] [repetitions = 100]
// Prints one line a quality: taps, passband, median, 10th and 90th percentile in ms.
#include "audio/resample.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

int main(int argc, char** argv) {
  using panns::audio::ResampleQuality;
  const int64_t from = argc > 1 ? std::atoll(argv[1]) : 44100;
  const int64_t to = argc > 2 ? std::atoll(argv[2]) : 32000;
  const int repetitions = argc > 3 ? std::atoi(argv[3]) : 100;
  const int64_t samples = 10 * from;

  std::mt19937 random(std::random_device{}());
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> wave(static_cast<size_t>(samples));
  for (float& x : wave) x = uniform(random);

  for (auto quality : {ResampleQuality::fast, ResampleQuality::standard, ResampleQuality::high}) {
    const panns::audio::Resampler plan(from, to, quality);
    std::vector<float> out(static_cast<size_t>(plan.output_size(samples)));
    std::vector<double> times;
    for (int i = 0; i < repetitions; ++i) {
      const auto start = std::chrono::steady_clock::now();
      panns::audio::resample(wave.data(), samples, from, to, out.data(), quality);
      times.push_back(
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
              .count());
    }
    std::sort(times.begin(), times.end());
    const auto at = [&](double q) { return times[static_cast<size_t>(q * (repetitions - 1))]; };
    std::printf(
        "resample 10 s %lld to %lld Hz, %lld taps, to %.0f Hz, n = %d: median %.3f ms, "
        "p10 %.3f, p90 %.3f\n",
        static_cast<long long>(from), static_cast<long long>(to),
        static_cast<long long>(plan.taps()), plan.passband_hz(), repetitions, at(0.5), at(0.1),
        at(0.9));
  }
}
