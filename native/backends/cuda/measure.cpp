#include "backends/cuda/measure.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "backends/cuda/bin_pairs.h"
#include "backends/cuda/check.h"
#include "backends/cuda/device.h"
#include "backends/cuda/memory.h"
#include "core/philox.h"

namespace panns::cuda {
namespace {

// Timed batches and runs of each; the first batch also warms up and is not counted.
constexpr int kBatches = 5, kRuns = 3;
// Values that are drawn; a buffer repeats them.
constexpr size_t kPattern = 1 << 18;

// Random bits of a number in -1..1 whose magnitude is at least 1/8, in the graph's storage.
std::vector<std::byte> pattern(Math math) {
  const RandomStream random{0, 0, 0};
  std::vector<std::byte> bytes(kPattern * static_cast<size_t>(element_bytes(math)));
  for (size_t i = 0; i < kPattern; ++i) {
    const uint32_t bits = random_word(random, i);
    const uint32_t sign = bits >> 31, below = bits >> 29 & 3;  // 2^-1 ... 2^-3 and a mantissa
    const uint32_t octave = below == 0 ? 1 : below;
    const uint32_t single = sign << 31 | (127 - octave) << 23 | (bits & 0x7fffff);
    const auto half = static_cast<uint16_t>(sign << 15 | (15 - octave) << 10 | (bits & 0x3ff));
    const auto brain = static_cast<uint16_t>(single >> 16);
    if (element_bytes(math) == 4) {
      std::memcpy(&bytes[4 * i], &single, 4);
    } else {
      std::memcpy(&bytes[2 * i], math == Math::fp16 ? &half : &brain, 2);
    }
  }
  return bytes;
}

// Copies what stands in front until the whole buffer holds it.
void repeat(std::byte* data, size_t held, size_t bytes, cudaStream_t stream) {
  while (held < bytes) {
    const size_t piece = std::min(held, bytes - held);
    PANNS_CUDA(cudaMemcpyAsync(data + held, data, piece, cudaMemcpyDeviceToDevice, stream));
    held += piece;
  }
}

struct Timer {
  Timer() {
    PANNS_CUDA(cudaEventCreate(&begin));
    PANNS_CUDA(cudaEventCreate(&end));
  }
  ~Timer() {
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
  }
  cudaEvent_t begin = nullptr, end = nullptr;
};

}  // namespace

bool first_run(const Target& target, CudaStream& stream, const ConvGraph& graph, const Plan& plan,
               const BoundPlan& bound, std::string* reason) {
  stream.synchronize();  // what failed before is no engine's fault
  target.api->check(target.api->set_stream(target.handle, stream.raw()), "cudnnSetStream");
  const bool ran = bound.try_run(reason);
  cudaGetLastError();  // of a launch that was refused, which its status has told
  if (const cudaError_t e = cudaStreamSynchronize(stream.raw()); e != cudaSuccess) {
    throw DeviceLost(
        "ERR_PANNS_DEVICE", "cuda",
        cat(plan.name(), " of cuDNN ", target.api->version_text(), " failed in the convolution ",
            graph.text(), " and left the GPU unusable to this process: ", cudaGetErrorString(e),
            " (", cudaGetErrorName(e), "); a process that is started anew passes over it"));
  }
  return ran;
}

std::optional<Plans::Measurement> measure_plan(const Target& target, int ordinal,
                                               const ConvGraph& graph, const Plan& plan,
                                               std::string* reason) {
  CudaStream stream(ordinal);
  const auto elements = [&](int64_t count) {
    // Also where the result is float although the maps are not.
    return static_cast<size_t>(count) * sizeof(float);
  };
  const bool pairs = graph.pairs == Pairs::each_run;
  const Filter unpaired{graph.k / 2, graph.c / 2, graph.kernel_t, 3};
  const std::array<size_t, 7> sizes{
      elements(graph.n * graph.c * graph.t * graph.f),
      elements(graph.k * (graph.c / graph.groups) * graph.kernel_t * graph.kernel_f),
      elements(graph.n * graph.k * graph.out_t() * graph.out_f()),
      elements(graph.k),
      elements(graph.k),
      elements(graph.k),
      elements(pairs ? unpaired.size() : 1)};
  const std::vector<std::byte> values = pattern(graph.math);
  std::vector<std::unique_ptr<backends::Memory>> buffers;
  for (const size_t bytes : sizes) {
    buffers.push_back(allocate_device_memory(ordinal, bytes));
    const size_t held = std::min(bytes, values.size());
    stream.upload(buffers.back()->data(), values.data(), held);
    repeat(buffers.back()->data(), held, bytes, stream.raw());
  }
  const auto scratch = allocate_device_memory(ordinal, std::max<size_t>(plan.workspace(), 1));
  const BoundPlan bound(target, plan, graph,
                        {buffers[0]->data(), buffers[1]->data(), buffers[2]->data(),
                         buffers[3]->data(), buffers[4]->data(), buffers[5]->data()},
                        scratch->data());
  if (!first_run(target, stream, graph, plan, bound, reason)) return std::nullopt;
  const Launch launch{stream.raw()};
  const Storage type = graph.float_gradient ? Storage::fp32 : storage_of(graph.math);
  const auto run_once = [&] {
    void *filter = buffers[1]->data(), *bins = buffers[6]->data();
    const bool gradient = graph.pass == Pass::backward_weight;
    if (pairs && !gradient) pair_filter(launch, unpaired, type, bins, type, filter);
    bound.run();
    if (pairs && gradient) {
      unpair_gradient(launch, unpaired, type, filter, static_cast<float*>(bins));
    }
  };
  Timer timer;
  std::vector<float> times;
  for (int batch = 0; batch < kBatches; ++batch) {
    PANNS_CUDA(cudaEventRecord(timer.begin, stream.raw()));
    for (int run = 0; run < kRuns; ++run) run_once();
    PANNS_CUDA(cudaEventRecord(timer.end, stream.raw()));
    PANNS_CUDA(cudaEventSynchronize(timer.end));
    float milliseconds = 0;
    PANNS_CUDA(cudaEventElapsedTime(&milliseconds, timer.begin, timer.end));
    if (batch > 0) times.push_back(milliseconds / kRuns);
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());

  // Sums over a whole map are where engines differ from run to run: they are split over blocks.
  bool repeats = true;
  if (graph.pass == Pass::backward_weight) {
    std::vector<std::byte> first(sizes[1]), second(sizes[1]);
    stream.download(first.data(), buffers[1]->data(), sizes[1]);
    bound.run();
    stream.download(second.data(), buffers[1]->data(), sizes[1]);
    stream.synchronize();
    repeats = first == second;
  }
  return Plans::Measurement{times[times.size() / 2], repeats};
}

}  // namespace panns::cuda
