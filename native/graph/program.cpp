#include "graph/program.h"

#include <algorithm>

#include "backends/collective.h"
#include "graph/fuse.h"

namespace panns::graph {
namespace {

struct DropCapture {
  void operator()(backends::Stream* stream) const { stream->drop_capture(); }
};

}  // namespace

Program::Program(Graph graph, backends::Device& device, const std::vector<void*>& bound,
                 Options options, const std::vector<void*>& beside)
    : graph_(std::move(graph)), device_(device), options_(options), address_(bound) {
  graph_.verify();
  address_.resize(graph_.values.size(), nullptr);
  std::vector<bool> elsewhere(graph_.values.size());
  for (size_t v = 0; v < elsewhere.size(); ++v) {
    elsewhere[v] = address_[v] != nullptr || graph_.values[v].kind == Kind::parameter ||
                   graph_.values[v].kind == Kind::buffer;
  }
  plan_ = plan(
      graph_, device.alignment(), [&](const ops::TensorSpec& s) { return device.bytes(s); },
      elsewhere, options.reuse_memory);
  for (const Node& n : graph_.nodes) {
    const auto spec = node_spec(graph_, n);
    Step step{device.kernel(spec), {}, n.constant};
    workspace_ = std::max(workspace_, step.kernel->workspace());
    if (ops::def(n.op).cost != nullptr)
      flops_ += ops::def(n.op).cost(n.attrs, spec.in, spec.out).flops;
    steps_.push_back(std::move(step));
  }
  workspace_ = (workspace_ + device.alignment() - 1) / device.alignment() * device.alignment();
  arena_ = device.allocate(std::max<size_t>(plan_.arena_bytes + workspace_, device.alignment()));
  if (options.state == nullptr) {
    own_state_ = device.allocate(std::max(sizeof(backends::StepState), device.alignment()));
  }
  state_ = options.state != nullptr ? options.state
                                    : reinterpret_cast<backends::StepState*>(own_state_->data());
  for (size_t v = 0; v < address_.size(); ++v) {
    if (plan_.offset[v] != Plan::kNowhere) address_[v] = arena_->data() + plan_.offset[v];
  }
  const auto uses = graph_.uses();
  for (size_t i = 0; i < steps_.size(); ++i) {
    backends::Args& args = steps_[i].args;
    const Node& n = graph_.nodes[i];
    for (ValueId v : n.in) {
      args.in.push_back(address(v));
      args.beside.push_back(static_cast<size_t>(v) < beside.size() ? beside[v] : nullptr);
    }
    for (ValueId v : n.out) {
      args.out.push_back(uses[static_cast<size_t>(v)] > 0 ? address(v) : nullptr);
    }
    args.workspace = arena_->data() + plan_.arena_bytes;
    args.state = state_;
  }
}

Need Program::need() const {
  Need n;
  n.scratch = workspace_;
  n.activations = arena_->bytes() - workspace_;
  if (own_state_ != nullptr) n.kernels = own_state_->bytes();
  for (const Step& s : steps_) n.kernels += s.kernel->keeps();
  return n;
}

void Program::set_follow(Follow follow) {
  follow_ = std::move(follow);
  recording_.reset();
}

void Program::join(backends::Collective* processes, Follow follow) {
  for (Step& s : steps_) s.args.processes = processes;
  until_end_ = processes->before_end([this] { recording_.reset(); });
  set_follow(std::move(follow));
}

void Program::set_state(backends::Stream& stream, const backends::StepState& state) {
  stream.upload(state_, &state, sizeof(state));
}

void Program::enqueue(backends::Stream& stream, size_t node) {
  steps_[node].kernel->enqueue(stream, steps_[node].args);
}

void Program::refresh(backends::Stream& stream) {
  for (Step& s : steps_) {
    if (s.constant) s.kernel->enqueue(stream, s.args);
    s.kernel->prepare(stream, s.args);
  }
}

void Program::set_input(backends::Stream& stream, const std::string& name,
                        const InputValues& values) {
  const ValueId v = input(name);
  if (v == kNoValue) return;
  const int64_t count = graph_.spec(v).shape.size();
  PANNS_CHECK(!std::visit([](const auto* p) { return p == nullptr; }, values), "ERR_PANNS_SHAPE",
              name, "expected values, got none");
  if (const auto* samples = std::get_if<const int16_t*>(&values)) {
    PANNS_CHECK(name == "waveform", "ERR_PANNS_SHAPE", name, "expected floats, got 16-bit samples");
    device_.import_samples(stream, count, *samples, static_cast<float*>(address(v)));
  } else {
    stream.upload(address(v), std::get<const float*>(values),
                  static_cast<size_t>(count) * sizeof(float));
  }
}

bool Program::run(backends::Stream& stream, const std::atomic<bool>* cancel) {
  const backends::CancelScope scope(device_, cancel);
  const auto cancelled = [&] {
    return cancel != nullptr && cancel->load(std::memory_order_relaxed);
  };
  if (recording_ != nullptr) {
    stream.launch(*recording_);
    return true;
  }
  // An error or a cancelled run leaves no capture open.
  const std::unique_ptr<backends::Stream, DropCapture> capturing(&stream);
  if (options_.capture) stream.begin_capture();
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (cancelled()) return false;
    if (!steps_[i].constant) enqueue(stream, i);
    if (follow_) follow_(stream, i);
  }
  if (options_.capture) {
    recording_ = stream.end_capture();
    if (recording_ != nullptr) {
      stream.launch(*recording_);
      return true;
    }
  }
  return !cancelled();
}

backends::StepState Program::read_state(backends::Stream& stream) {
  backends::StepState state;
  stream.download(&state, state_, sizeof(state));
  stream.synchronize();
  return state;
}

ValueId Program::input(const std::string& name) const {
  const auto uses = graph_.uses();
  for (size_t v = 0; v < graph_.values.size(); ++v) {
    if (graph_.values[v].kind == Kind::input && graph_.values[v].name == name && uses[v] > 0) {
      return static_cast<ValueId>(v);
    }
  }
  return kNoValue;
}

ValueId Program::output(const std::string& name) const {
  const auto it = graph_.outputs.find(name);
  PANNS_CHECK(it != graph_.outputs.end(), "ERR_PANNS_SPEC", name, "the program has no such output");
  return it->second;
}

void check_finished(bool finished) {
  PANNS_CHECK(finished, "ABORT_ERR", "", "the operation was aborted");
}

}  // namespace panns::graph
