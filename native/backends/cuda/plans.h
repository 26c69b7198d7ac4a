// Which plan computes a convolution: the fastest of those that were measured at any time, else the
// heuristics' first. Plans are kept by what they depend on, in memory and on disk, since compiling
// one can take a second. So are the engines that were built and failed when they ran.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "backends/cuda/cudnn_conv.h"
#include "core/error.h"

namespace panns::cuda {

// Whether convolutions over two bins are computed over pairs of them (bin_pairs.h). measured: where
// that was faster on this device; not where nobody has measured it.
enum class PairBins : uint8_t { measured, always, never };

struct PlanOptions {
  // Only engines that give the same bits from run to run.
  bool deterministic = true;
  // Time the candidates on this device where no plan that was measured is kept.
  bool measure = false;
  PairBins pair_bins = PairBins::measured;
  // Where plans are kept; empty: nowhere.
  std::string folder;
  // Engines that need more scratch memory than this are passed over.
  size_t workspace_limit = size_t{1} << 30;
};

// $PANNS_CACHE/plans, else $XDG_CACHE_HOME/panns/plans, else ~/.cache/panns/plans; empty when
// none of the variables is set.
std::string default_plan_folder();

// Whether an engine computes what the graph's arithmetic promises. Float engines that round or
// transform their inputs, or round sums, and those that need cuBLASLt, which is not among the
// libraries, never do.
bool admissible(const ConvGraph& graph, const Candidate& candidate, bool deterministic);

// An engine's run has left the device unusable to this process.
class DeviceLost : public Error {
  using Error::Error;
};

class Plans {
 public:
  // The time of one run in ms, and whether two runs gave the same bits.
  struct Measurement {
    float milliseconds;
    bool repeats;
  };
  // Nothing, with cuDNN's reason, of an engine that fails; DeviceLost is thrown.
  using Measure =
      std::function<std::optional<Measurement>(const ConvGraph&, const Plan&, std::string* reason)>;

  // `device` names the chip and the driver in the keys of kept plans. `measure` is asked only when
  // the options say so.
  Plans(const Target& target, std::string device, PlanOptions options, Measure measure = nullptr);

  const Target& target() const { return target_; }
  const PlanOptions& options() const { return options_; }

  // The plan for a graph, made at the first call. Throws ERR_PANNS_UNSUPPORTED naming the graph and
  // what cuDNN said when no engine computes it.
  std::shared_ptr<const Plan> plan(const ConvGraph& graph);
  // The plan failed when it ran: from here on the graph's plan is another one, in later processes
  // too.
  void refuse(const ConvGraph& graph, const Plan& plan, const std::string& reason);
  // While *flag is true, choosing stops with ABORT_ERR between two candidates; null: never.
  void set_cancel(const std::atomic<bool>* flag) { cancel_ = flag; }
  // Null instead of an error: the caller knows another way.
  std::shared_ptr<const Plan> try_plan(const ConvGraph& graph, std::string* reason = nullptr);

  // Asks for a weight's gradient in float where the maps are not, and an engine gives it so.
  void prefer_float_gradient(ConvGraph& graph);
  // Whether to compute `pairs` instead of `plain`, the same convolution without them.
  bool prefers(const ConvGraph& pairs, const ConvGraph& plain);

 private:
  std::string key(const ConvGraph& graph, bool measured) const;
  bool measure_pairs(const ConvGraph& pairs, const ConvGraph& plain);
  float milliseconds(ConvGraph graph);
  std::optional<Measurement> measure(const ConvGraph& graph, const Plan& plan);
  std::string read_text(const std::string& key) const;
  void write_text(const std::string& key, const std::string& text) const;
  void remove_text(const std::string& key) const;
  std::string path(const std::string& key) const;
  std::string refused_key(const ConvGraph& graph) const;
  void recall_refused(const ConvGraph& graph);
  std::unique_ptr<Plan> choose(const ConvGraph& graph, std::string* reason);
  std::unique_ptr<Plan> read(const std::string& key) const;
  void write(const std::string& key, const Plan& plan) const;

  Target target_;
  std::string device_;
  PlanOptions options_;
  Measure measure_;
  const std::atomic<bool>* cancel_ = nullptr;
  std::map<std::string, std::shared_ptr<const Plan>> known_;  // by the graph's text
  std::map<std::string, bool> prefers_pairs_;                 // by the text of pairs
  // By the graph's text and by place: what failed when it ran, and why.
  std::map<std::string, std::map<int, std::string>> refused_;
};

}  // namespace panns::cuda
