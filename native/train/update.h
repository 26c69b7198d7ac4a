// The optimizer as a program over flat arrays: all of it, or a part.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "graph/program.h"
#include "train/optimizer.h"

namespace panns::train {

// Parameters that lie side by side and train at one rate: bytes, as Parameters::Entry::offset.
struct Run {
  size_t begin, end;
  double rate;
};

// Where they lie, their gradients, and the optimizer's state.
struct FlatArrays {
  std::byte* parameters = nullptr;
  std::byte* gradients = nullptr;  // of the parameters from `first` on, as the slots
  std::vector<std::byte*> slots;
  size_t first = 0;
  // Of the second form of the parameters at that offset; null: they have none.
  std::function<std::byte*(size_t)> beside;
};

// Clips by the norm of all gradients of these runs, then one node a run. The state is that of the
// program that makes the gradients.
std::unique_ptr<graph::Program> update_program(backends::Device& device, const Optimizer& optimizer,
                                               const FlatArrays& arrays,
                                               const std::vector<Run>& runs,
                                               backends::StepState* state);

// A part of the update beside the run that makes its gradients: on a stream of its own that gives
// way, each run of parameters as soon as nothing of that program needs them any more. Nothing moves
// where its state's grad_scale is 0, nor where the gate is closed, as a loss that is not finite
// does: the host learns of that only when much of this is done.
class EarlyUpdate {
 public:
  // `after[i]`: the node of the other program that runs[i] waits for; `last` is its last one.
  EarlyUpdate(backends::Device& device, const Optimizer& optimizer, const FlatArrays& arrays,
              const std::vector<Run>& runs, std::vector<size_t> after, size_t last,
              const float* gate);

  void set_state(backends::Stream& stream, const backends::StepState& state);
  // To the run on that stream, after a node.
  void follow(backends::Stream& stream, size_t node);

  graph::Need need() const { return program_->need(); }
  std::string text() const { return program_->text(); }

 private:
  std::vector<size_t> after_;
  size_t last_;
  std::unique_ptr<graph::Program> program_;
  std::unique_ptr<backends::Stream> beside_;  // ends before the memory that it writes
};

}  // namespace panns::train
