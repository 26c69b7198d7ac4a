// What cuDNN would run for given convolutions on GPUs that are not here: reads nodes from standard
// input, one a line, and writes one line of JSON for each of them, arithmetic and chip.
//
//   cudnn_plans [--build=N] [--architectures=80,90] [--math=fp32,bf16] < nodes
//
// A line: op=conv_backward_data n=32 c=64 t=1001 f=64 k=64 kernel=3x3 stride=1x1 padding=1x1
//         dilation=1x1 groups=1 bias=0 relu=0 [statistics=1] [paired=1]
// Sizes are the logical ones of a node: what padding and types make of them is the backend's own
// (convolution_of), and with paired=1 over pairs of bins. With --build every Nth plan is also
// compiled, as on the chip itself. Needs a libcuda.so.1, as stub_libcuda.c. Exits with 1 when a
// convolution has no engine on some chip; with statistics, which are asked for in 16 bits alone, it
// may have none.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>

#include "backends/cuda/conv.h"
#include "backends/cuda/plans.h"

namespace panns::cuda {
namespace {

// One chip of each generation. What cuDNN asks is the architecture and its sizes.
const DeviceDescription kDevices[] = {
    {80, 108, 166912, 40 << 20, "NVIDIA A100-SXM4-80GB"},
    {90, 132, 232448, 50 << 20, "NVIDIA H100 80GB HBM3"},
    {100, 148, 232448, 126 << 20, "NVIDIA B200"},
    {120, 170, 101376, 96 << 20, "NVIDIA GeForce RTX 5090"},
};

struct Options {
  int build = 0;
  std::string architectures = "80,90,100,120", math = "fp32,bf16,fp16";
};

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals), value = word.substr(equals + 1);
    if (name == "--build") {
      options.build = std::stoi(value);
    } else if (name == "--architectures") {
      options.architectures = value;
    } else if (name == "--math") {
      options.math = value;
    } else {
      throw Error("ERR_PANNS_OPTION", name, "unknown option");
    }
  }
  return options;
}

bool lists(const std::string& list, const std::string& item) {
  return ("," + list + ",").find("," + item + ",") != std::string::npos;
}

using Fields = std::map<std::string, std::string>;

int64_t number(const Fields& f, const std::string& name) {
  const auto it = f.find(name);
  PANNS_CHECK(it != f.end(), "ERR_PANNS_OPTION", name, "the line lacks it");
  return std::stoll(it->second);
}

ops::Pair pair(const Fields& f, const std::string& name) {
  const auto it = f.find(name);
  PANNS_CHECK(it != f.end(), "ERR_PANNS_OPTION", name, "the line lacks it");
  return {std::stoll(it->second), std::stoll(it->second.substr(it->second.find('x') + 1))};
}

ops::Op op_of(const std::string& name) {
#define PANNS_OP(op, Attrs) \
  if (name == #op) return ops::Op::op;
#include "ops/list.inc"
#undef PANNS_OP
  throw Error("ERR_PANNS_OPTION", name, "there is no such op");
}

int64_t extent(int64_t in, const ops::ConvAttrs& a, int axis) {
  return (in + 2 * a.padding[axis] - a.dilation[axis] * (a.kernel[axis] - 1) - 1) / a.stride[axis] +
         1;
}

struct Question {
  NodeSpec node;
  bool paired = false;
};

Question parse_question(const std::string& line) {
  Fields f;
  std::istringstream words(line);
  for (std::string word; words >> word;)
    f[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
  NodeSpec node;
  node.op = op_of(f["op"]);
  const int64_t n = number(f, "n"), c = number(f, "c"), k = number(f, "k");
  const bool bias = number(f, "bias") != 0, relu = number(f, "relu") != 0;
  ops::TensorSpec x, w, y;
  if (f["op"].rfind("linear", 0) == 0) {
    ops::LinearAttrs a;
    a.out_features = k;
    a.bias = bias;
    a.relu = relu;
    node.attrs = a;
    x.shape = {n, c};
    w.shape = {k, c};
    y.shape = {n, k};
  } else {
    ops::ConvAttrs a;
    a.out_channels = k;
    a.kernel = pair(f, "kernel");
    a.stride = pair(f, "stride");
    a.padding = pair(f, "padding");
    a.dilation = pair(f, "dilation");
    a.groups = number(f, "groups");
    a.bias = bias;
    a.relu = relu;
    a.statistics = f.count("statistics") > 0;
    node.attrs = a;
    const int64_t t = number(f, "t"), bins = number(f, "f");
    x = {Shape{n, c, t, bins}, ops::Form::map};
    w = {Shape{k, c / a.groups, a.kernel[0], a.kernel[1]}, ops::Form::filter};
    y = {Shape{n, k, extent(t, a, 0), extent(bins, a, 1)}, ops::Form::map};
  }
  if (f["op"].find("backward_data") != std::string::npos) {
    node.in = {y, w};
    node.out = {x};
  } else if (f["op"].find("backward_weight") != std::string::npos) {
    node.in = {x, y};
    node.out = {w};
  } else {
    node.in = {x, w};
    node.out = {y};
  }
  return {node, f.count("paired") > 0};
}

ConvGraph graph_of(const Question& question, Math math) {
  const Convolution conv = convolution_of(question.node, math);
  if (!question.paired) return conv.graph;
  PANNS_CHECK(can_pair(conv), "ERR_PANNS_OPTION", "paired",
              "not one over two bins: ", conv.graph.text());
  return paired(conv).graph;
}

struct Listing {
  int engines = 0, runtime_compiled = 0;
  bool fallback = false;  // only where the heuristics proper have nothing
  bool built = false;
  double seconds = 0;
  int64_t workspace = 0;
  std::string reason;
};

Listing list(const Target& target, const ConvGraph& graph, bool build) {
  Listing found;
  const CudnnGraph described(target, graph);
  for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    for (const Candidate& c : described.candidates(mode)) {
      if (!admissible(graph, c, !graph.statistics)) continue;
      ++found.engines;
      found.runtime_compiled += c.runtime_compiled ? 1 : 0;
      if (!build || found.built) continue;
      const auto begin = std::chrono::steady_clock::now();
      const auto plan = Plan::build(target, c, &found.reason);
      if (plan == nullptr) continue;
      found.built = true;
      found.workspace = static_cast<int64_t>(plan->workspace());
      found.seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    }
    if (found.engines > 0 && (!build || found.built)) break;
    found.fallback = true;
  }
  return found;
}

int run(const Options& options) {
  const CudnnApi& api = cudnn();
  std::vector<Question> nodes;
  for (std::string line; std::getline(std::cin, line);) {
    if (!line.empty()) nodes.push_back(parse_question(line));
  }
  int missing = 0, count = 0;
  for (const DeviceDescription& device : kDevices) {
    if (!lists(options.architectures, std::to_string(device.architecture))) continue;
    const Descriptor properties = device_properties(api, device);
    const Target target{&api, nullptr, &properties};
    for (const Math math : {Math::fp32, Math::tf32, Math::bf16, Math::fp16}) {
      if (!lists(options.math, math_name(math))) continue;
      for (const Question& node : nodes) {
        ConvGraph graph = graph_of(node, math);
        if (graph.statistics && storage_of(math) == Storage::fp32) continue;
        const bool build = options.build > 0 && count++ % options.build == 0;
        Listing found = list(target, graph, build);
        // As the backend does it: bias and relu are then a kernel of its own.
        if (found.engines == 0 && !graph.statistics && (graph.bias || graph.relu)) {
          graph.bias = graph.relu = false;
          found = list(target, graph, build);
        }
        const bool lacks = found.engines == 0 || (build && !found.built);
        missing += lacks && !graph.statistics ? 1 : 0;
        std::printf(
            R"({"architecture":%d,"graph":"%s","engines":%d,"runtimeCompiled":%d,"fallback":%s,)"
            R"("build":%s,"built":%s,"seconds":%.3f,"workspace":%lld})"
            "\n",
            device.architecture, graph.text().c_str(), found.engines, found.runtime_compiled,
            found.fallback ? "true" : "false", build ? "true" : "false",
            found.built ? "true" : "false", found.seconds, static_cast<long long>(found.workspace));
        if (lacks)
          std::fprintf(stderr, "sm_%d: %s: no engine%s%s\n", device.architecture,
                       graph.text().c_str(), found.reason.empty() ? "" : ": ",
                       found.reason.c_str());
      }
    }
  }
  std::fprintf(stderr, "cuDNN %s, %zu nodes\n", api.version_text().c_str(), nodes.size());
  return missing > 0 ? 1 : 0;
}

}  // namespace
}  // namespace panns::cuda

int main(int argc, char** argv) {
  try {
    return panns::cuda::run(panns::cuda::parse_options(argc, argv));
  } catch (const panns::Error& e) {
    std::fprintf(stderr, "%s %s\n", e.code().c_str(), e.what());
    return 2;
  }
}
