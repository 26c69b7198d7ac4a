// Time of the log-mel front-end: 10 s at 32 kHz, window 1024, hop 320, 64 mels.
//   logmel [threads = 1] [repetitions = 200]
// Prints one line: tier, threads, repetitions, median, 10th and 90th percentile in ms.
#include "backends/cpu/logmel.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

int main(int argc, char** argv) {
  using panns::cpu::Logmel;
  using panns::cpu::LogmelOutput;
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const int repetitions = argc > 2 ? std::atoi(argv[2]) : 200;
  constexpr int64_t kSamples = 320000;

  const Logmel logmel({}, threads);
  panns::ThreadPool pool(threads);
  std::mt19937 random(std::random_device{}());
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> wave(kSamples);
  for (float& x : wave) x = uniform(random);
  std::vector<float> out(static_cast<size_t>(logmel.output_size(1, kSamples, LogmelOutput::map)));
  void* workspace = std::aligned_alloc(64, static_cast<size_t>(logmel.workspace_bytes()));

  std::vector<double> times;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    logmel.run(pool, wave.data(), 1, kSamples, LogmelOutput::map, out.data(), workspace);
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
            .count());
  }
  std::free(workspace);
  std::sort(times.begin(), times.end());
  const auto at = [&](double q) { return times[static_cast<size_t>(q * (repetitions - 1))]; };
  std::printf("logmel 10 s %s, %d thread(s), n = %d: median %.3f ms, p10 %.3f, p90 %.3f\n",
              panns::cpu::tier_name(panns::cpu::tier()), threads, repetitions, at(0.5), at(0.1),
              at(0.9));
}
