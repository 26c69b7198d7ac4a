#include "graph/profile.h"

#include <algorithm>
#include <array>

#include "core/philox.h"
#include "graph/fuse.h"

namespace panns::graph {
namespace {

// A device that is done sooner gets the next size: what starts a kernel would count too much.
constexpr double kLongEnough = 2e-3;
// The least that a clock tells apart: a device that computes nothing is no faster.
constexpr double kTick = 1e-9;
// A size is run so often at most, or for so long: the best run is one that nothing disturbed. The
// first one touches memory for the first time, and does not count.
constexpr int kRuns = 100;
constexpr double kTrials = 0.3;

// Values of a size such that sums of thousands of products stay finite in 16 bits. No zeros: a chip
// multiplies these with less power, and so faster.
std::vector<float> values(int64_t count) {
  constexpr int64_t kDrawn = 4096;
  const RandomStream random{0, 0, 0};
  std::vector<float> v(static_cast<size_t>(count));
  for (int64_t i = 0; i < std::min(count, kDrawn); ++i) {
    const auto word = random_word(random, static_cast<uint64_t>(i));
    v[static_cast<size_t>(i)] = static_cast<float>(word) * 0x1p-31f - 1;
  }
  for (int64_t i = kDrawn; i < count; ++i) v[static_cast<size_t>(i)] = v[i - kDrawn];
  return v;
}

struct Measured {
  Work work;
  double seconds = 0;
};

// One op over inputs of these shapes.
Measured measure(backends::Device& device, ops::Op op, const ops::Attrs& attrs,
                 const ops::Specs& inputs, const std::atomic<bool>& cancel) {
  Graph g;
  std::vector<ValueId> in;
  for (const auto& spec : inputs) in.push_back(g.add_value({"input", spec, Kind::input}));
  g.outputs["result"] = g.add_node(op, attrs, "rates", in).out[0];
  Program program(std::move(g), device, {}, {});
  const auto stream = device.stream();
  for (size_t i = 0; i < in.size(); ++i) {
    const auto drawn = values(inputs[i].shape.size());
    device.import_value(*stream, inputs[i], drawn.data(), program.address(in[i]));
  }
  program.refresh(*stream);
  Measured m{work(program, device, 0)};
  double sum = 0;
  for (int run = 0; run < 2 || (run < kRuns && sum < kTrials); ++run) {
    const auto marks = program.mark_nodes(*stream, &cancel);
    check_finished(!marks.empty());
    const double seconds = seconds_between(*stream, marks)[0];
    sum += seconds;
    if (run == 1 || (run > 1 && seconds < m.seconds)) m.seconds = seconds;
  }
  return m;
}

// The best rate over sizes that grow until a run is long enough, or memory has no room for more.
template <typename Sizes, typename Measure>
double best(const Sizes& sizes, double Work::*counted, Measure&& measure) {
  double most = 0;
  for (const auto& size : sizes) {
    Measured m;
    try {
      m = measure(size);
    } catch (const Error& e) {
      if (most == 0 || e.code() != "ERR_PANNS_OUT_OF_MEMORY") throw;
      break;
    }
    most = std::max(most, m.work.*counted / std::max(m.seconds, kTick));
    if (m.seconds >= kLongEnough) break;
  }
  return most;
}

}  // namespace

Program::Marks Program::mark_nodes(backends::Stream& stream, const std::atomic<bool>* cancel) {
  const backends::CancelScope scope(device_, cancel);
  const auto cancelled = [&] {
    return cancel != nullptr && cancel->load(std::memory_order_relaxed);
  };
  Marks marks;
  marks.push_back(stream.mark());
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (cancelled()) return {};
    enqueue(stream, i);
    marks.push_back(stream.mark());
  }
  if (cancelled()) return {};
  return marks;
}

Work work(const Program& program, const backends::Device& device, size_t node) {
  const Graph& g = program.graph();
  const Node& n = g.nodes[node];
  const auto& def = ops::def(n.op);
  const auto spec = node_spec(g, n);
  Work w;
  if (def.cost != nullptr) w.flops = def.cost(n.attrs, spec.in, spec.out).flops;

  std::vector<ValueId> seen;
  for (size_t i = 0; i < n.in.size(); ++i) {
    if (std::find(seen.begin(), seen.end(), n.in[i]) != seen.end()) continue;
    seen.push_back(n.in[i]);
    const auto& input = spec.in[i];
    const bool parameter = g.values[static_cast<size_t>(n.in[i])].kind == Kind::parameter;
    const bool weight = input.form == ops::Form::filter || (parameter && input.shape.rank() > 1);
    size_t bytes = device.bytes(input);
    // What multiplies reads a weight in the type of the maps; what makes one, as it is kept.
    const size_t beside = device.bytes_beside(bytes);
    if (weight && !n.constant && beside > 0) bytes = beside;
    w.bytes += static_cast<double>(bytes);
    if (!def.in_place || i == 1) continue;
    w.bytes += static_cast<double>(bytes + (i == 0 ? beside : 0));
  }
  const auto uses = g.uses();
  for (size_t i = 0; i < n.out.size(); ++i) {
    if (uses[static_cast<size_t>(n.out[i])] == 0) continue;
    w.bytes += static_cast<double>(device.bytes(spec.out[i]));
  }
  return w;
}

std::vector<double> seconds_between(backends::Stream& stream, const Program::Marks& marks) {
  std::vector<double> seconds;
  for (size_t i = 1; i < marks.size(); ++i) {
    seconds.push_back(stream.seconds(*marks[i - 1], *marks[i]));
  }
  return seconds;
}

Rates measure_rates(backends::Device& device, const std::atomic<bool>& cancel) {
  // Channels and positions of a 1x1 convolution: some ms of one core, of two, of many, of a GPU.
  // The last has 2000 operations a byte, several times what a GPU's memory would need to keep up.
  constexpr std::array<std::array<int64_t, 2>, 4> kProducts{
      {{256, 1024}, {512, 2048}, {1024, 4096}, {4096, 16384}}};
  // Positions of 64 channels, 64 or 256 MiB a map in float: three of them are more than the caches
  // of a CPU hold, and than those of a GPU, also in 16 bits.
  constexpr std::array<int64_t, 2> kMaps{1 << 18, 1 << 20};
  Rates rates;
  rates.flops = best(kProducts, &Work::flops, [&](const std::array<int64_t, 2>& size) {
    const auto [channels, positions] = size;
    ops::ConvAttrs product;
    product.out_channels = channels;
    product.frozen = true;
    const ops::TensorSpec x{Shape{1, channels, positions / 8, 8}, ops::Form::map};
    const ops::TensorSpec w{Shape{channels, channels, 1, 1}, ops::Form::filter};
    return measure(device, ops::Op::conv, product, {x, w}, cancel);
  });
  rates.bytes = best(kMaps, &Work::bytes, [&](int64_t positions) {
    const ops::TensorSpec x{Shape{1, 64, positions / 64, 64}, ops::Form::map};
    return measure(device, ops::Op::add, ops::NoAttrs{}, {x, x}, cancel);
  });
  return rates;
}

}  // namespace panns::graph
