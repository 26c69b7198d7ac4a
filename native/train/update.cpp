#include "train/update.h"

#include <algorithm>

namespace panns::train {
namespace {

using graph::Graph;
using graph::ValueId;
using ops::Op;

// A null gate: with the norm of all gradients first.
std::unique_ptr<graph::Program> compile(backends::Device& device, const Optimizer& optimizer,
                                        const FlatArrays& arrays, const std::vector<Run>& runs,
                                        const float* gate, backends::StepState* state) {
  Graph g;
  std::vector<void*> addresses, seconds;
  const auto add = [&](const std::string& name, void* address, size_t bytes) {
    addresses.push_back(address);
    return g.add_value({name,
                        {Shape{static_cast<int64_t>(bytes / sizeof(float))}, ops::Form::dense},
                        graph::Kind::buffer});
  };
  const auto slots = optimizer.slots();
  std::vector<ValueId> gradients;
  for (const Run& run : runs) {
    gradients.push_back(
        add("gradients", arrays.gradients + (run.begin - arrays.first), run.end - run.begin));
  }
  ValueId gated = graph::kNoValue;
  if (gate != nullptr) {
    gated = add("gate", const_cast<float*>(gate), sizeof(float));
  } else {
    g.add_node(Op::grad_norm, ops::NoAttrs{}, "clip", gradients);
  }
  for (size_t r = 0; r < runs.size(); ++r) {
    const auto [begin, end, rate] = runs[r];
    std::vector<ValueId> in{add("parameters", arrays.parameters + begin, end - begin),
                            gradients[r]};
    seconds.resize(g.values.size(), nullptr);
    seconds[static_cast<size_t>(in[0])] = arrays.beside(begin);
    for (size_t k = 0; k < slots.size(); ++k) {
      in.push_back(add(slots[k], arrays.slots[k] + (begin - arrays.first), end - begin));
    }
    if (gate != nullptr) in.push_back(gated);
    const char* path = gate != nullptr ? "early optimizer" : "optimizer";
    if (const auto* adam = std::get_if<ops::AdamAttrs>(&optimizer.attrs)) {
      ops::AdamAttrs attrs = *adam;
      attrs.rate = rate;
      g.add_node(Op::adam, attrs, path, in);
    } else {
      auto attrs = std::get<ops::SgdAttrs>(optimizer.attrs);
      attrs.rate = rate;
      g.add_node(Op::sgd, attrs, path, in);
    }
  }
  graph::Program::Options options;
  options.state = state;
  return std::make_unique<graph::Program>(std::move(g), device, addresses, options, seconds);
}

}  // namespace

std::vector<std::string> Optimizer::slots() const {
  if (const auto* adam = std::get_if<ops::AdamAttrs>(&attrs)) {
    return adam->amsgrad ? std::vector<std::string>{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
                         : std::vector<std::string>{"exp_avg", "exp_avg_sq"};
  }
  return std::get<ops::SgdAttrs>(attrs).momentum > 0 ? std::vector<std::string>{"momentum_buffer"}
                                                     : std::vector<std::string>{};
}

std::unique_ptr<graph::Program> update_program(backends::Device& device, const Optimizer& optimizer,
                                               const FlatArrays& arrays,
                                               const std::vector<Run>& runs,
                                               backends::StepState* state) {
  return compile(device, optimizer, arrays, runs, nullptr, state);
}

EarlyUpdate::EarlyUpdate(backends::Device& device, const Optimizer& optimizer,
                         const FlatArrays& arrays, const std::vector<Run>& runs,
                         std::vector<size_t> after, size_t last, const float* gate)
    : after_(std::move(after)),
      last_(last),
      program_(compile(device, optimizer, arrays, runs, gate, nullptr)),
      beside_(device.stream_beside()) {}

void EarlyUpdate::set_state(backends::Stream& stream, const backends::StepState& state) {
  program_->set_state(stream, state);
}

void EarlyUpdate::follow(backends::Stream& stream, size_t node) {
  for (size_t i = 0; i < after_.size(); ++i) {
    if (after_[i] != node) continue;
    beside_->wait(*stream.record());
    program_->enqueue(*beside_, i);
  }
  if (node == last_) stream.wait(*beside_->record());
}

}  // namespace panns::train
