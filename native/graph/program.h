// A graph compiled for one device: every value has an address, every node a kernel.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "backends/backend.h"
#include "graph/graph.h"
#include "graph/need.h"
#include "graph/plan.h"

namespace panns::graph {

// What an input is given as: floats, or samples of 16 bits (backends::sample_of).
using InputValues = std::variant<const float*, const int16_t*>;

class Program {
 public:
  struct Options {
    bool reuse_memory = true;  // the plan pass
    bool capture = true;       // record the run once and replay it, where the device can
    // In device memory: the state that runs share with those of other programs, which whoever gives
    // it writes; null: its own.
    backends::StepState* state = nullptr;
  };

  // `bound` gives the addresses of values that live outside the arena, null for the others, and
  // `beside` those of their second forms (backends::Args), where there are any.
  // Throws ERR_PANNS_OUT_OF_MEMORY with what the plan needs.
  Program(Graph graph, backends::Device& device, const std::vector<void*>& bound, Options options,
          const std::vector<void*>& beside = {});

  // From here on `follow(stream, i)` adds to each run, after the node i.
  using Follow = std::function<void(backends::Stream&, size_t node)>;
  void set_follow(Follow follow);
  // The same, and each run is one of several processes: kernels that sum over them use `processes`.
  void join(backends::Collective* processes, Follow follow);

  // Constant nodes and kernels' own forms of frozen weights; call when the parameters changed.
  void refresh(backends::Stream& stream);
  // Uploads an input; one that the graph does not read is passed over. Throws ERR_PANNS_SHAPE for a
  // null address, and for samples of 16 bits where none are wanted.
  void set_input(backends::Stream& stream, const std::string& name, const InputValues& values);
  // Uploads the state and runs all nodes. Returns false if `cancel` became true on the way (the
  // results are then undefined); checked between nodes where the device does not replay.
  bool run(backends::Stream& stream, const backends::StepState& state,
           const std::atomic<bool>* cancel = nullptr) {
    set_state(stream, state);
    return run(stream, cancel);
  }
  // With the state as it is.
  bool run(backends::Stream& stream, const std::atomic<bool>* cancel = nullptr);
  // The state of its next runs, and one node of it, for a run that is part of another program's.
  void set_state(backends::Stream& stream, const backends::StepState& state);
  void enqueue(backends::Stream& stream, size_t node);
  // A run with the state as it is, node by node, never as a recording, constant nodes too, and
  // nothing that follows them: marks before the first node and after each, none where `cancel`
  // became true on the way.
  using Marks = std::vector<std::unique_ptr<backends::Event>>;
  Marks mark_nodes(backends::Stream& stream, const std::atomic<bool>* cancel = nullptr);
  // The state as the last run left it (gradient norm).
  backends::StepState read_state(backends::Stream& stream);

  const Graph& graph() const { return graph_; }
  void* address(ValueId v) const { return address_[static_cast<size_t>(v)]; }
  // The value of that name among inputs; kNoValue if the graph does not read it.
  ValueId input(const std::string& name) const;
  ValueId output(const std::string& name) const;
  // What it takes of device memory beside the values that live elsewhere.
  Need need() const;
  // Bytes of the arena, scratch memory included.
  size_t bytes() const { return plan_.arena_bytes + workspace_; }
  double flops() const { return flops_; }
  // The graph with each value's place and size, each node's work, and the totals.
  std::string text() const;

 private:
  struct Step {
    std::unique_ptr<backends::Kernel> kernel;
    backends::Args args;
    bool constant;
  };

  Graph graph_;
  backends::Device& device_;
  Options options_;
  Plan plan_;
  std::vector<void*> address_;
  size_t workspace_ = 0;
  double flops_ = 0;
  std::unique_ptr<backends::Memory> arena_, own_state_;
  backends::StepState* state_;
  std::vector<Step> steps_;
  std::unique_ptr<backends::Recording> recording_;
  std::shared_ptr<void> until_end_;  // of the processes it is one of: lets them drop the recording
  Follow follow_;
};

// Throws ABORT_ERR where a run was cancelled on its way.
void check_finished(bool finished);

}  // namespace panns::graph
