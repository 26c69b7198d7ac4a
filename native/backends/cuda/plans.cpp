#include "backends/cuda/plans.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

namespace panns::cuda {
namespace {

// Candidates that are timed: those behind them in the heuristics' order have not been the fastest
// in published sweeps, and each costs a compilation.
constexpr int kMeasured = 12;

// FNV-1a: a file name for a key. The key itself stands in the file, so that a collision is seen.
std::string hash_name(const std::string& key) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const unsigned char c : key) h = (h ^ c) * 0x100000001b3u;
  char name[17];
  std::snprintf(name, sizeof(name), "%016llx", static_cast<unsigned long long>(h));
  return name;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// Ends the key in a file; a plan is text of one object, so that it cannot stand in a key.
constexpr const char* kEndOfKey = "\n---\n";

// What is kept of a convolution that can be computed over pairs of bins.
constexpr const char *kPaired = "paired", *kPlain = "plain";

}  // namespace

std::string default_plan_folder() {
  if (const auto folder = environment("PANNS_CACHE"); !folder.empty()) return folder + "/plans";
  if (const auto folder = environment("XDG_CACHE_HOME"); !folder.empty()) {
    return folder + "/panns/plans";
  }
  if (const auto home = environment("HOME"); !home.empty()) return home + "/.cache/panns/plans";
  return "";
}

bool admissible(const ConvGraph& graph, const Candidate& c, bool deterministic) {
  if (c.needs_cublaslt || c.reduced_sums) return false;
  const bool rounds = c.tensor_core || c.converts_down || c.transforms;
  if (graph.math == Math::fp32 && rounds) return false;
  // Sums over a map in an epilogue are added by atomic operations, which no note tells.
  if (deterministic && (c.nondeterministic || graph.statistics)) return false;
  return true;
}

Plans::Plans(const Target& target, std::string device, PlanOptions options, Measure measure)
    : target_(target),
      device_(std::move(device)),
      options_(std::move(options)),
      measure_(std::move(measure)) {}

std::string Plans::key(const ConvGraph& graph, bool measured) const {
  return cat("panns plan 1\ncuDNN ", target_.api->version, "\n", device_, "\n", graph.text(), "\n",
             measured ? "measured" : "listed", options_.deterministic ? " deterministic" : "", " ",
             options_.workspace_limit);
}

std::shared_ptr<const Plan> Plans::plan(const ConvGraph& graph) {
  std::string reason;
  auto found = try_plan(graph, &reason);
  // Where nothing is left, what failed may have failed by something else: later ones try again.
  if (found == nullptr) remove_text(refused_key(graph));
  PANNS_CHECK(found != nullptr, "ERR_PANNS_UNSUPPORTED", "cuda", "cuDNN ",
              target_.api->version_text(), " has no engine on ", device_, " for the convolution ",
              graph.text(), reason.empty() ? "" : ": ", reason);
  return found;
}

std::shared_ptr<const Plan> Plans::try_plan(const ConvGraph& graph, std::string* reason) {
  const std::string name = graph.text();
  if (const auto it = known_.find(name); it != known_.end()) return it->second;
  const std::string own = key(graph, options_.measure);
  std::shared_ptr<const Plan> found;
  if (refused_.count(name) == 0) {
    found = read(key(graph, true));
    if (found == nullptr && !options_.measure) found = read(own);
  }
  if (found == nullptr) {
    std::unique_ptr<Plan> chosen;
    try {
      chosen = choose(graph, reason);
    } catch (const DeviceLost&) {
      throw;
    } catch (const Error& e) {
      // A graph that cuDNN cannot even express has no engine either. Too little memory to measure,
      // and a cancelled search, say nothing about the graph.
      if (e.code() != "ERR_PANNS_DEVICE") throw;
      if (reason != nullptr) *reason = e.what();
    }
    if (chosen == nullptr) return nullptr;
    write(own, *chosen);
    found = std::move(chosen);
  }
  known_[name] = found;
  return found;
}

// The kept plan goes too: that of a graph is always one that has not failed yet.
void Plans::refuse(const ConvGraph& graph, const Plan& plan, const std::string& reason) {
  std::map<int, std::string>& refused = refused_[graph.text()];
  std::string words = cat(plan.name(), ": ", reason);
  std::replace(words.begin(), words.end(), '\n', ' ');
  // Several kernels may have had it.
  if (!refused.emplace(plan.place(), words).second) return;
  known_.erase(graph.text());
  for (const bool measured : {true, false}) remove_text(key(graph, measured));
  recall_refused(graph);  // what other processes have found
  std::string text;
  for (const auto& [place, why] : refused) text += cat(place, " ", why, "\n");
  write_text(refused_key(graph), text);
}

std::string Plans::refused_key(const ConvGraph& graph) const {
  return cat(key(graph, false), "\nrefused");
}

// A line each: its place and why.
void Plans::recall_refused(const ConvGraph& graph) {
  std::istringstream lines(read_text(refused_key(graph)));
  int place = 0;
  for (std::string why; lines >> place && std::getline(lines >> std::ws, why);) {
    refused_[graph.text()].emplace(place, why);
  }
}

void Plans::prefer_float_gradient(ConvGraph& graph) {
  if (graph.pass != Pass::backward_weight || element_bytes(graph.math) == sizeof(float)) return;
  graph.float_gradient = true;
  if (try_plan(graph) == nullptr) graph.float_gradient = false;
}

bool Plans::prefers(const ConvGraph& pairs, const ConvGraph& plain) {
  if (options_.pair_bins != PairBins::measured) return options_.pair_bins == PairBins::always;
  const auto [it, fresh] = prefers_pairs_.try_emplace(pairs.text(), false);
  if (!fresh) return it->second;
  try {
    it->second = measure_pairs(pairs, plain);
  } catch (...) {
    prefers_pairs_.erase(it);
    throw;
  }
  return it->second;
}

// What was found before, else now where measuring is asked for.
bool Plans::measure_pairs(const ConvGraph& pairs, const ConvGraph& plain) {
  const std::string name = key(plain, true) + "\n" + pairs.text();
  const std::string kept = read_text(name);
  if (kept == kPaired || kept == kPlain) return kept == kPaired;
  if (!options_.measure || measure_ == nullptr) return false;
  const bool faster = milliseconds(pairs) < milliseconds(plain);
  write_text(name, faster ? kPaired : kPlain);
  return faster;
}

float Plans::milliseconds(ConvGraph graph) {
  prefer_float_gradient(graph);
  const auto plan = try_plan(graph);
  if (plan == nullptr) return std::numeric_limits<float>::infinity();
  const auto measured = measure(graph, *plan);
  return measured ? measured->milliseconds : std::numeric_limits<float>::infinity();
}

std::unique_ptr<Plan> Plans::choose(const ConvGraph& graph, std::string* reason) {
  const bool measures = options_.measure && measure_ != nullptr;
  std::unique_ptr<Plan> best;
  float least = std::numeric_limits<float>::infinity();
  int measured = 0, place = 0;
  recall_refused(graph);
  const auto refused = [&](int at) {
    const auto it = refused_.find(graph.text());
    return it != refused_.end() && it->second.count(at) > 0;
  };
  const CudnnGraph described(target_, graph);
  for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK}) {
    for (Candidate& c : described.candidates(mode)) {
      PANNS_CHECK(cancel_ == nullptr || !*cancel_, "ABORT_ERR", "", "the operation was aborted");
      c.place = place++;
      if (!admissible(graph, c, options_.deterministic) || refused(c.place)) continue;
      auto plan = Plan::build(target_, c, reason);
      if (plan == nullptr || plan->workspace() > options_.workspace_limit) continue;
      if (!measures) return plan;
      const auto m = measure(graph, *plan);
      if (!m || (options_.deterministic && !m->repeats)) continue;
      if (m->milliseconds < least) {
        least = m->milliseconds;
        best = std::move(plan);
      }
      if (++measured == kMeasured) return best;
    }
    // Slower by intent: only where nothing else is.
    if (best != nullptr && mode != CUDNN_HEUR_MODE_A) break;
  }
  if (const auto it = refused_.find(graph.text());
      best == nullptr && reason != nullptr && it != refused_.end()) {
    *reason = "what could be built failed when it ran";
    for (const auto& [at, why] : it->second) *reason += cat("; ", why);
  }
  return best;
}

// Nothing where it fails, which is kept.
std::optional<Plans::Measurement> Plans::measure(const ConvGraph& graph, const Plan& plan) {
  std::string reason;
  try {
    auto found = measure_(graph, plan, &reason);
    if (!found) refuse(graph, plan, reason);
    return found;
  } catch (const DeviceLost& e) {
    refuse(graph, plan, e.what());
    throw;
  }
}

std::unique_ptr<Plan> Plans::read(const std::string& key) const {
  const std::string text = read_text(key);
  auto plan = text.empty() ? nullptr : Plan::from_text(target_, text);
  if (plan != nullptr && plan->workspace() > options_.workspace_limit) return nullptr;
  return plan;
}

void Plans::write(const std::string& key, const Plan& plan) const {
  if (options_.folder.empty()) return;
  std::string text;
  try {
    text = plan.text();
  } catch (const Error&) {
    return;  // some engines cannot be written down
  }
  write_text(key, text);
}

std::string Plans::path(const std::string& key) const {
  return options_.folder + "/" + hash_name(key) + ".plan";
}

// What is kept by a key; empty: nothing.
std::string Plans::read_text(const std::string& key) const {
  if (options_.folder.empty()) return "";
  std::ifstream file(path(key), std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const size_t end = text.find(kEndOfKey);
  if (end == std::string::npos || text.compare(0, end, key) != 0) return "";
  return text.substr(end + std::string(kEndOfKey).size());
}

// A cache: whatever goes wrong costs time in the next run and is no error in this one.
void Plans::write_text(const std::string& key, const std::string& text) const {
  if (options_.folder.empty()) return;
  std::error_code failed;
  std::filesystem::create_directories(options_.folder, failed);
  const std::string whole = path(key);
  // Whole or not at all: other processes may read the folder meanwhile.
  const std::string draft = cat(whole, ".", getpid());
  std::ofstream file(draft, std::ios::binary);
  file << key << kEndOfKey << text;
  file.close();
  if (file.good()) std::filesystem::rename(draft, whole, failed);
  if (!file.good() || failed) std::filesystem::remove(draft, failed);
}

void Plans::remove_text(const std::string& key) const {
  if (options_.folder.empty()) return;
  std::error_code failed;
  std::filesystem::remove(path(key), failed);
}

}  // namespace panns::cuda
