// Which plan is chosen and how plans are kept, on a GPU that is only described: what Plans does
// needs no device. Takes a folder to write to; needs a libcuda.so.1, as stub_libcuda.c.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "../native/tap.h"
#include "backends/cuda/conv.h"
#include "backends/cuda/plans.h"
#include "core/error.h"

namespace panns::cuda {
namespace {

const DeviceDescription kDevice{90, 132, 232448, 50 << 20, "NVIDIA H100 80GB HBM3"};

// Small, and with a fused epilogue in bf16, so that its engines are compiled at run time and a plan
// holds machine code.
ConvGraph graph() {
  ConvGraph g;
  g.math = Math::bf16;
  g.n = 2;
  g.c = g.k = 64;
  g.t = 32;
  g.f = 16;
  g.kernel_t = g.kernel_f = 3;
  g.pad_t = g.pad_f = 1;
  g.bias = g.relu = true;
  return g;
}

std::vector<std::filesystem::path> files(const std::string& folder) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) found.push_back(entry);
  return found;
}

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

void keeps_plans(const Target& target, const std::string& folder) {
  PlanOptions options;
  options.folder = folder + "/kept";
  Plans plans(target, "device", options);
  const auto plan = plans.plan(graph());
  tap::ok(plans.plan(graph()) == plan, "a plan is made once");
  const auto kept = files(options.folder);
  tap::ok(kept.size() == 1, "and kept in one file");
  const std::string text = read(kept[0]);
  tap::ok(text.find("\ndevice\n") != std::string::npos &&
              text.find(graph().text()) != std::string::npos,
          "which names the device and the graph");

  // Put in the place of the heuristics' choice, another plan shows that the file was read.
  const CudnnGraph described(target, graph());
  const auto candidates = described.candidates(CUDNN_HEUR_MODE_A);
  std::unique_ptr<Plan> other;
  for (size_t i = candidates.size(); i-- > 1 && other == nullptr;) {
    other = Plan::build(target, candidates[i], nullptr);
  }
  const std::string other_text = other->text();
  tap::ok(other_text != plan->text(), "the candidates differ");
  const std::string key = text.substr(0, text.find("\n---\n") + 5);
  write(kept[0], key + other_text);
  tap::ok(Plans(target, "device", options).plan(graph())->text() == other_text,
          "another process takes the plan from the file");
  write(kept[0], "panns plan 1\nof another graph\n---\n" + other_text);
  // Texts of one engine differ between compilations, so that "not that of the file" is all to ask.
  tap::ok(Plans(target, "device", options).plan(graph())->text() != other_text,
          "a file with another key is not taken");
  tap::ok(read(kept[0]).rfind(key, 0) == 0, "and is written again");
  write(kept[0], key + "{\"damaged\":");
  tap::ok(Plans(target, "device", options).plan(graph()) != nullptr &&
              read(kept[0]).size() > text.size() / 2,
          "nor is a damaged one");
  Plans(target, "another device", options).plan(graph());
  tap::ok(files(options.folder).size() == 2, "another device has plans of its own");

  write(folder + "/file", "");
  options.folder = folder + "/file/below";
  tap::ok(Plans(target, "device", options).plan(graph()) != nullptr,
          "a folder that cannot be written is no error");
}

void measures(const Target& target) {
  PlanOptions options;
  options.measure = true;
  std::vector<std::string> seen;
  const auto choose = [&](auto measure) {
    seen.clear();
    return Plans(target, "device", options,
                 [&](const ConvGraph&, const Plan& plan, std::string*) {
                   seen.push_back(plan.text());
                   return measure(static_cast<int>(seen.size()));
                 })
        .plan(graph())
        ->text();
  };
  using Measured = Plans::Measurement;
  const std::string third = choose([](int i) {
    return Measured{i == 3 ? 1.0f : 2.0f + static_cast<float>(i), true};
  });
  tap::ok(seen.size() > 3 && third == seen[2], "the fastest of those measured is taken");
  const std::string fourth = choose([](int i) {
    return Measured{i == 3 ? 1.0f : i == 4 ? 2.0f : 3.0f + static_cast<float>(i), i != 3};
  });
  tap::ok(fourth == seen[3], "but none that differs from run to run");
  options.deterministic = false;
  const std::string fast = choose([](int i) {
    return Measured{i == 3 ? 1.0f : 2.0f + static_cast<float>(i), i != 3};
  });
  tap::ok(fast == seen[2], "unless that is allowed");
}

// A plan that fails when it first runs.
void passes_over(const Target& target, const std::string& folder) {
  PlanOptions options;
  options.folder = folder + "/refused";
  Plans plans(target, "device", options);
  const auto first = plans.plan(graph());
  plans.refuse(graph(), *first, "fails");
  const auto second = plans.plan(graph());
  tap::ok(second->place() > first->place(), "the next candidate is taken");
  plans.refuse(graph(), *first, "fails");
  tap::ok(plans.plan(graph()) == second, "also where several kernels had the first");
  const auto kept = Plans(target, "device", options).plan(graph());
  tap::ok(kept->text() == second->text() && kept->name() == second->name(),
          "and kept in its place: " + kept->name());
  for (const auto& file : files(options.folder)) {
    if (read(file).find("\nrefused\n") == std::string::npos) std::filesystem::remove(file);
  }
  tap::ok(Plans(target, "device", options).plan(graph())->place() == second->place(),
          "without it, what failed is still passed over");

  std::string code;
  Plans lost(
      target, "lost",
      [&] {
        PlanOptions measuring = options;
        measuring.measure = true;
        return measuring;
      }(),
      [](const ConvGraph&, const Plan&, std::string*) -> std::optional<Plans::Measurement> {
        throw DeviceLost("ERR_PANNS_DEVICE", "cuda", "lost");
      });
  try {
    lost.try_plan(graph());
  } catch (const DeviceLost& e) {
    code = e.code();
  }
  tap::ok(code == "ERR_PANNS_DEVICE", "a lost device is an error, not an engine less");
  tap::ok(Plans(target, "lost", options).plan(graph())->place() > first->place(),
          "and its engine is passed over from then on");
}

void tunes(const Target& target, const std::string& folder) {
  PlanOptions listing;
  listing.folder = folder + "/tuned";
  PlanOptions measuring = listing;
  measuring.measure = true;
  int asked = 0;
  const auto third = [&](const ConvGraph&, const Plan&, std::string*) {
    ++asked;
    return Plans::Measurement{asked == 3 ? 1.0f : 2.0f, true};
  };
  const std::string listed = Plans(target, "device", listing).plan(graph())->text();

  std::atomic<bool> cancelled = false;
  Plans stopped(target, "device", measuring,
                [&](const ConvGraph& g, const Plan& plan, std::string* reason) {
                  cancelled = true;
                  return third(g, plan, reason);
                });
  stopped.set_cancel(&cancelled);
  std::string code;
  try {
    stopped.plan(graph());
  } catch (const Error& e) {
    code = e.code();
  }
  tap::ok(code == "ABORT_ERR" && asked == 1, "measuring stops between two candidates");
  tap::ok(files(listing.folder).size() == 1, "and keeps nothing that is half done");

  asked = 0;
  const auto tuned = Plans(target, "device", measuring, third).plan(graph());
  tap::ok(asked >= 3 && files(listing.folder).size() == 2, "what was measured is kept");
  const int before = asked;
  tap::ok(Plans(target, "device", measuring, third).plan(graph())->text() == tuned->text() &&
              asked == before,
          "and not measured again");
  tap::ok(Plans(target, "device", listing).plan(graph())->text() == tuned->text() &&
              tuned->text() != listed,
          "a run that measures nothing takes it rather than the heuristics'");

  measuring.folder.clear();
  code.clear();
  try {
    Plans(target, "device", measuring,
          [](const ConvGraph&, const Plan&, std::string*) -> Plans::Measurement {
            throw Error("ERR_PANNS_OUT_OF_MEMORY", "cuda", "too little");
          })
        .plan(graph());
  } catch (const Error& e) {
    code = e.code();
  }
  tap::ok(code == "ERR_PANNS_OUT_OF_MEMORY", "too little memory to measure is told as that");
}

// A gradient, whose type is chosen on the way.
void pairs_bins(const Target& target, const std::string& folder) {
  Convolution conv;
  ConvGraph& plain = conv.graph = graph();
  plain.pass = Pass::backward_weight;
  plain.f = 2;
  plain.bias = plain.relu = false;
  conv.filter = {plain.k, plain.c, 3, 3};
  tap::ok(can_pair(conv), "two bins can be paired");
  const ConvGraph pairs = paired(conv).graph;
  tap::ok(
      pairs.flops() * 3 == plain.flops() * 2 && pairs.text().find(" paired") != std::string::npos,
      "with two thirds of the products: " + pairs.text());
  for (int64_t bins : {1, 3, 4}) {
    Convolution other = conv;
    other.graph.f = bins;
    tap::ok(!can_pair(other), cat(bins, " bins cannot"));
  }
  Convolution summed = conv;
  summed.graph.statistics = true;
  tap::ok(!can_pair(summed), "nor can what is summed by channel");

  PlanOptions listing;
  listing.folder = folder + "/pairs";
  PlanOptions measuring = listing;
  measuring.measure = true;
  int asked = 0;
  // In turn: pairs take less time, or more.
  const auto favour = [&](bool paired) {
    return [&asked, paired](const ConvGraph& g, const Plan&, std::string*) {
      ++asked;
      return Plans::Measurement{(g.pairs != Pairs::none) == paired ? 1.0f : 2.0f, true};
    };
  };
  tap::ok(!Plans(target, "device", listing).prefers(pairs, plain), "not where nobody has measured");
  tap::ok(Plans(target, "device", measuring, favour(true)).prefers(pairs, plain) && asked > 1,
          "where it was faster");
  const int before = asked;
  tap::ok(Plans(target, "device", measuring, favour(false)).prefers(pairs, plain) &&
              asked == before && Plans(target, "device", listing).prefers(pairs, plain),
          "which is kept, and found by a run that measures nothing");
  tap::ok(!Plans(target, "slower", measuring, favour(false)).prefers(pairs, plain) &&
              !Plans(target, "slower", listing).prefers(pairs, plain),
          "not where it was slower");
  conv.graph.pass = Pass::forward;
  const ConvGraph forward = conv.graph, anew = paired(conv).graph;
  conv.frozen = true;
  const ConvGraph before_runs = paired(conv).graph;
  Plans both(target, "device", measuring, [](const ConvGraph& g, const Plan&, std::string*) {
    const bool slow = g.pairs == Pairs::each_run;
    return Plans::Measurement{slow ? 3.0f : g.pairs == Pairs::none ? 2.0f : 1.0f, true};
  });
  tap::ok(!both.prefers(anew, forward) && both.prefers(before_runs, forward) &&
              !both.prefers(anew, forward),
          "a filter that is made once is measured for itself");
  listing.pair_bins = PairBins::always;
  measuring.pair_bins = PairBins::never;
  tap::ok(Plans(target, "slower", listing).prefers(pairs, plain) &&
              !Plans(target, "device", measuring, favour(true)).prefers(pairs, plain),
          "unless somebody chooses");
  Plans twice(target, "third", {});
  ConvGraph gradient = pairs;
  twice.prefer_float_gradient(gradient);
  tap::ok(gradient.float_gradient && twice.plan(gradient) != nullptr,
          "the gradient comes in float: " + gradient.text());
}

void refuses(const Target& target) {
  ConvGraph g = graph();
  g.bias = g.relu = false;
  g.statistics = true;
  std::string code, text;
  try {
    Plans(target, "H100", {}).plan(g);
  } catch (const Error& e) {
    code = e.code();
    text = e.what();
  }
  tap::ok(code == "ERR_PANNS_UNSUPPORTED" && text.find(g.text()) != std::string::npos &&
              text.find("H100") != std::string::npos,
          "sums by atomic operations are no deterministic engine: " + text);
  PlanOptions fast;
  fast.deterministic = false;
  tap::ok(Plans(target, "H100", fast).plan(g) != nullptr, "and are one where speed is asked for");
  g.math = Math::fp32;
  tap::ok(Plans(target, "H100", fast).try_plan(g) == nullptr, "fp32 has none without tensor cores");

  Candidate c{Descriptor(*target.api, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)};
  c.tensor_core = true;
  tap::ok(!admissible(g, c, false), "fp32 takes no tensor core");
  Candidate winograd{Descriptor(*target.api, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)};
  winograd.transforms = true;
  tap::ok(!admissible(g, winograd, false), "nor products of what Winograd makes of its inputs");
  g.math = Math::tf32;
  tap::ok(admissible(g, c, false), "tf32 does");
  c.needs_cublaslt = true;
  tap::ok(!admissible(g, c, false), "nothing takes cuBLASLt");
}

}  // namespace
}  // namespace panns::cuda

int main(int argc, char** argv) {
  using namespace panns::cuda;
  try {
    const CudnnApi& api = cudnn();
    const Descriptor properties = device_properties(api, kDevice);
    const Target target{&api, nullptr, &properties};
    const std::string folder = argc > 1 ? argv[1] : ".";
    keeps_plans(target, folder);
    passes_over(target, folder);
    measures(target);
    tunes(target, folder);
    pairs_bins(target, folder);
    refuses(target);
  } catch (const std::exception& e) {
    tap::ok(false, e.what());
  }
  return tap::done();
}
