#include "train/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "graph/fuse.h"
#include "parallel/agree.h"
#include "train/buckets.h"

namespace panns::train {
namespace {

using graph::Graph;
using graph::Kind;
using graph::ValueId;
using ops::Op;

bool off(const SessionOptions& o, const std::string& pass) {
  return std::find(o.passes_off.begin(), o.passes_off.end(), pass) != o.passes_off.end();
}

bool starts_with(const std::string& s, const std::string& prefix) {
  return s.compare(0, prefix.size(), prefix) == 0;
}

bool frozen(const SessionOptions& o, const std::string& parameter) {
  return std::any_of(o.frozen.begin(), o.frozen.end(),
                     [&](const std::string& prefix) { return starts_with(parameter, prefix); });
}

double rate_of(const SessionOptions& o, const std::string& parameter) {
  size_t longest = 0;
  double rate = 1;
  for (const auto& [prefix, value] : o.rates) {
    if (!starts_with(parameter, prefix) || prefix.size() < longest) continue;
    longest = prefix.size();
    rate = value;
  }
  return rate;
}

// The loss on the output it is defined for, with mixed targets where clips are mixed.
ValueId add_loss(Graph& g, const SessionOptions& o) {
  const bool bce = o.loss == "bce";
  PANNS_CHECK(bce || o.loss == "cross_entropy", "ERR_PANNS_OPTION", "loss",
              "expected 'bce' or 'cross_entropy', got '", o.loss, "'");
  const std::string name = bce ? "clipwise_output" : "logits";
  const auto it = g.outputs.find(name);
  PANNS_CHECK(it != g.outputs.end(), "ERR_PANNS_SPEC", "loss",
              "expected the model to have the output '", name, "', which ", o.loss,
              " is computed on");
  const Shape y = g.spec(it->second).shape;
  ValueId target = g.add_value(
      {"target", {Shape{y[0] * (o.mixup ? 2 : 1), y[1]}, ops::Form::dense}, Kind::input});
  if (o.mixup) {
    ValueId lambda = graph::kNoValue;
    for (size_t v = 0; v < g.values.size(); ++v) {
      if (g.values[v].name == "mixup_lambda") lambda = static_cast<ValueId>(v);
    }
    target = g.add_node(Op::mixup, ops::NoAttrs{}, "target", {target, lambda}).out[0];
  }
  return g.add_node(bce ? Op::bce : Op::cross_entropy, ops::NoAttrs{}, "loss", {it->second, target})
      .out[0];
}

}  // namespace

Session::Session(backends::Device& device, graph::Parameters& parameters, const graph::Spec& spec,
                 const SessionOptions& options)
    : device_(device),
      parameters_(parameters),
      options_(options),
      clips_(options.batch * (options.mixup ? 2 : 1)) {
  const auto still = [&](const std::string& name) {
    return !options.frozen_norms_train && frozen(options, name);
  };
  Graph g = graph::parse(spec, {options.batch, options.samples, true, options.mixup, options.from,
                                still, options.sync_norms});
  const ValueId loss = add_loss(g, options);
  classes_ = g.spec(g.nodes.back().in[0]).shape[1];
  const ValueId predictions = g.nodes.back().in[0];
  PANNS_CHECK(g.spec(predictions).shape[0] == options.batch, "ERR_PANNS_SPEC", spec.name,
              "expected ", options.batch, " rows of predictions, got ", g.spec(predictions).shape,
              options.mixup ? "; does the model mix its clips?" : "");
  g.outputs = {{"loss", loss}};

  // By entry of Parameters and by value of the graph.
  trainable_.assign(parameters.entries().size(), false);
  std::vector<bool> wanted(g.values.size(), false);
  std::map<std::string, ValueId> value_of;
  for (size_t v = 0; v < g.values.size(); ++v) {
    if (g.values[v].kind == Kind::parameter || g.values[v].kind == Kind::buffer) {
      value_of[g.values[v].name] = static_cast<ValueId>(v);
    }
  }
  for (size_t i = 0; i < parameters.entries().size(); ++i) {
    const auto& e = parameters.entries()[i];
    const auto it = value_of.find(e.name);
    if (it == value_of.end() || !e.trainable || frozen(options, e.name)) continue;
    wanted[static_cast<size_t>(it->second)] = true;
  }
  // What nothing trainable leads to computes as at inference.
  graph::mark_frozen(g, wanted);
  if (!off(options, "fold_batch_norm")) graph::fold_batch_norm(g);
  if (!off(options, "fuse")) graph::fuse(g, device, options.passes_off);
  graph::autodiff(g, loss, wanted);
  if (!off(options, "prune")) graph::prune(g);

  std::vector<void*> bound(g.values.size(), nullptr);
  for (size_t i = 0; i < parameters.entries().size(); ++i) {
    const auto& e = parameters.entries()[i];
    const auto it = value_of.find(e.name);
    if (it == value_of.end()) continue;
    bound[static_cast<size_t>(it->second)] = parameters.address(e);
    trainable_[i] = g.gradients.count(it->second) > 0;
    if (!trainable_[i]) continue;
    if (span_ == 0) first_ = e.offset;
    span_ = e.offset + e.bytes - first_;
  }
  gradients_ = device.allocate(span_);
  for (size_t i = 0; i < trainable_.size(); ++i) {
    if (!trainable_[i]) continue;
    const auto& e = parameters.entries()[i];
    const ValueId grad = g.gradients[value_of[e.name]];
    bound[static_cast<size_t>(grad)] = gradients_->data() + (e.offset - first_);
  }
  for (size_t i = 0; i < options.optimizer.slots().size(); ++i) {
    slots_.push_back(device.allocate(span_));
  }
  if (const size_t bytes = device.bytes_beside(span_); bytes > 0) beside_ = device.allocate(bytes);
  std::vector<void*> beside(g.values.size(), nullptr);
  for (const auto& e : parameters.entries()) {
    const auto it = value_of.find(e.name);
    if (it != value_of.end()) beside[static_cast<size_t>(it->second)] = address_beside(e.offset);
  }
  state_ = device.allocate(std::max(sizeof(backends::StepState), device.alignment()));
  graph::Program::Options program;
  program.state = state();
  program.reuse_memory = !off(options, "plan");
  forward_backward_ =
      std::make_unique<graph::Program>(std::move(g), device, bound, program, beside);
  const ValueId waveform = forward_backward_->input("waveform");
  if (device.uploads() && waveform != graph::kNoValue) {
    stage_ =
        std::make_unique<ClipStage>(device, forward_backward_->graph().spec(waveform).shape.size());
  }

  update_ = update_program(device, options.optimizer, arrays(),
                           runs([](const Entry&) { return true; }), state());
  update_->refresh(parameters.stream());
  if (options.early_update && device.updates_early()) make_early_update();
}

Session::~Session() {
  if (flights_.empty()) return;
  try {
    // The device still writes to memory of this session, the host's too.
    parameters_.stream().synchronize();
  } catch (const Error&) {
    // Of a device that has failed, which the next call to it says.
  }
}

std::vector<Run> Session::runs(const std::function<bool(const Entry&)>& wanted) const {
  std::vector<Run> runs;
  for (size_t i = 0; i < trainable_.size(); ++i) {
    const Entry& e = parameters_.entries()[i];
    if (!trainable_[i] || !wanted(e)) continue;
    const double rate = rate_of(options_, e.name);
    if (!runs.empty() && runs.back().end == e.offset && runs.back().rate == rate) {
      runs.back().end += e.bytes;
    } else {
      runs.push_back({e.offset, e.offset + e.bytes, rate});
    }
  }
  return runs;
}

FlatArrays Session::arrays() const {
  FlatArrays a{parameters_.data(), gradients_->data(), {}, first_, [this](size_t offset) {
                 return address_beside(offset);
               }};
  for (const auto& slot : slots_) a.slots.push_back(slot->data());
  return a;
}

void Session::make_early_update() {
  const Graph& g = forward_backward_->graph();
  const size_t last = g.nodes.size() - 1;
  std::vector<Run> early;
  std::vector<size_t> after;
  const auto inside = [](const Bucket& b, const Entry& e) {
    return e.offset >= b.begin && e.offset < b.end;
  };
  auto buckets = gradient_buckets(g, parameters_.entries(), options_.early_bytes, Ready::free);
  // What is ready with the last node has nothing to run beside.
  std::erase_if(buckets, [&](const Bucket& b) { return b.node == last; });
  for (const Bucket& b : buckets) {
    for (const Run& run : runs([&](const Entry& e) { return inside(b, e); })) {
      early.push_back(run);
      after.push_back(b.node);
    }
  }
  if (early.empty()) return;
  const auto late = runs([&](const Entry& e) {
    return std::none_of(buckets.begin(), buckets.end(),
                        [&](const Bucket& b) { return inside(b, e); });
  });
  early_ = std::make_unique<EarlyUpdate>(device_, options_.optimizer, arrays(), early,
                                         std::move(after), last, &state()->gate);
  rest_ = update_program(device_, options_.optimizer, arrays(), late, state());
  forward_backward_->set_follow(
      [this](backends::Stream& stream, size_t node) { early_->follow(stream, node); });
}

void Session::join(std::shared_ptr<backends::Collective> processes, const JoinOptions& options,
                   const std::atomic<bool>* cancel) {
  const std::string own = device_.info().kind, theirs = processes->device();
  PANNS_CHECK(own == theirs, "ERR_PANNS_PARALLEL", "session", "expected a model on ", theirs,
              ", whose memory ", processes->engine(), " works on, got one on ", own);
  processes_ = std::move(processes);
  processes_->set_cancel(cancel);
  backends::Stream& stream = parameters_.stream();
  processes_->share(stream, parameters_.data(), static_cast<int64_t>(parameters_.bytes()));
  for (const auto& slot : slots_) {
    processes_->share(stream, slot->data(), static_cast<int64_t>(span_));
  }
  stream.synchronize();
  parameters_.touch();

  // A gradient is ready for the update when it has been averaged, and that all wait for.
  early_.reset();
  rest_.reset();
  const graph::Graph& g = forward_backward_->graph();
  const size_t last = g.nodes.size() - 1;
  auto buckets = gradient_buckets(g, parameters_.entries(), options.bucket_bytes);
  for (Bucket& b : buckets) b.node = options.overlap ? b.node : last;
  forward_backward_->join(processes_.get(), [=, this](backends::Stream& s, size_t node) {
    for (const Bucket& b : buckets) {
      if (b.node != node) continue;
      std::byte* gradients = gradients_->data() + (b.begin - first_);
      processes_->begin_average(s, reinterpret_cast<float*>(gradients),
                                static_cast<int64_t>((b.end - b.begin) / sizeof(float)));
    }
    if (node == last) processes_->end_averages(s);
  });
}

StepResult Session::average_gradients(const StepInput& input, const std::atomic<bool>* cancel) {
  processes_->set_cancel(cancel);
  parallel::together(*processes_, [&] {
    take(input);
    return 0.0;
  });
  try {
    run(cancel);
    bring_next(input);
    processes_->wait(parameters_.stream());
  } catch (...) {
    processes_->abandon();
    throw;
  }
  const double sum = parallel::together(*processes_, [&] { return loss(input); });
  StepResult result;
  result.loss = static_cast<float>(sum / processes_->size());
  return result;
}

void Session::take(const StepInput& input) {
  backends::Stream& stream = parameters_.stream();
  graph::Program& p = *forward_backward_;
  PANNS_CHECK(
      input.next == nullptr || stages(), "ERR_PANNS_UNSUPPORTED", "next",
      "expected a session that takes the samples of the next step, which is one on waveforms "
      "and on a device with memory of its own");
  // The model's owner may have set a parameter since.
  if (version_ != parameters_.version()) p.refresh(stream);
  version_ = parameters_.version();
  p.set_input(stream, "target", input.target);
  p.set_input(stream, "mixup_lambda", input.mixup_lambda);
  const char* name = options_.from < 0 ? "waveform" : "features";
  const auto* const* codes = std::get_if<const int16_t*>(&input.waveform);
  if (stages() && codes != nullptr) {
    if (*codes != nullptr) stage_->bring(*codes);
    PANNS_CHECK(stage_->full(), "ERR_PANNS_SHAPE", name,
                "expected samples, got none, and the step before brought none for this one");
    stage_->take_out(stream, static_cast<float*>(p.address(p.input(name))));
  } else {
    if (stages()) stage_->drop();
    p.set_input(stream, name, input.waveform);
  }
  set_state(input.state, updates_early(input));
  // A NaN would reach the running statistics on its way to the loss.
  const auto* const* floats = std::get_if<const float*>(&input.waveform);
  if (floats == nullptr) return;
  const int64_t samples = clips_ * options_.samples;
  float poison = 0;
  for (int64_t i = 0; i < samples; ++i) poison += (*floats)[i] * 0.0f;
  PANNS_CHECK(poison == 0.0f, "ERR_PANNS_NAN", name, "expected finite values, got NaN or infinity");
}

void Session::bring_next(const StepInput& input) {
  if (input.next != nullptr) stage_->bring(input.next);
}

float Session::loss(const StepInput& input) {
  backends::Stream& stream = parameters_.stream();
  const graph::Program& p = *forward_backward_;
  float loss = 0;
  stream.download(&loss, p.address(p.output("loss")), sizeof(float));
  stream.synchronize();
  check_loss(loss, input.state.step);
  return loss;
}

void Session::check_loss(float loss, uint32_t step) {
  PANNS_CHECK(std::isfinite(loss), "ERR_PANNS_NAN", "loss", "expected a finite loss, got ", loss,
              " at step ", step,
              "; a lower learning rate, gradient clipping or a check of the input may help");
}

void Session::set_state(const backends::StepState& given, bool early) {
  backends::Stream& stream = parameters_.stream();
  // Behind a step in flight the gate stays as that one leaves it.
  const bool first = flights_.empty();
  stream.upload(state(), &given, first ? sizeof(given) : backends::kStepInputBytes);
  if (early_ == nullptr) return;
  backends::StepState own = given;
  own.grad_scale = early ? 1 : 0;
  early_->set_state(stream, own);
}

void Session::run(const std::atomic<bool>* cancel) {
  graph::check_finished(forward_backward_->run(parameters_.stream(), cancel));
}

bool Session::updates_early(const StepInput& input) const {
  return early_ != nullptr && input.update && !(input.state.max_norm > 0);
}

void Session::update(const StepInput& input) {
  (updates_early(input) ? rest_ : update_)->run(parameters_.stream());
  parameters_.touch();
  // This step moved nothing that is frozen.
  version_ = parameters_.version();
}

bool Session::reads_state(const StepInput& input) const {
  return input.update && (input.state.max_norm > 0 || device_.scales_loss());
}

void Session::set_norm(StepResult& result, const backends::StepState& after) const {
  const bool scaled = device_.scales_loss();
  PANNS_CHECK(!scaled || std::isfinite(after.gate), "ERR_PANNS_NAN", "gradients",
              "expected gradients that fp16 can hold, got an overflow at step ", after.step,
              " however small the loss was scaled; bf16, a lower learning rate or a check of the "
              "input may help");
  result.left_out = scaled && !std::isfinite(after.grad_norm);
  if (after.max_norm > 0) result.grad_norm = after.grad_norm;
}

StepResult Session::step_at_once(const StepInput& input, const std::atomic<bool>* cancel) {
  backends::Stream& stream = parameters_.stream();
  StepResult result;
  if (processes_ != nullptr) {
    result = average_gradients(input, cancel);
  } else {
    take(input);
    run(cancel);
    bring_next(input);
    result.loss = loss(input);
  }
  if (!input.update) return result;
  // Never left half done: a cancelled step has either updated everything or nothing.
  update(input);
  if (reads_state(input)) set_norm(result, update_->read_state(stream));
  stream.synchronize();
  return result;
}

void Session::enqueue(const StepInput& input, const std::atomic<bool>* cancel, Flight& flight) {
  backends::Stream& stream = parameters_.stream();
  // Before anything moves, as there may be none.
  if (outcomes_ == nullptr) outcomes_ = device_.host_memory(kDepth * sizeof(Outcome));
  take(input);
  run(cancel);
  if (input.update) update(input);
  auto* outcome = reinterpret_cast<Outcome*>(outcomes_->data()) + next_outcome_;
  next_outcome_ = (next_outcome_ + 1) % kDepth;
  const graph::Program& p = *forward_backward_;
  stream.download(&outcome->loss, p.address(p.output("loss")), sizeof(float));
  stream.download(&outcome->state, state(), sizeof(backends::StepState));
  flight.outcome = outcome;
  flight.done = stream.record();
  bring_next(input);
}

void Session::begin(const StepInput& input, const std::atomic<bool>* cancel) {
  PANNS_CHECK(flights_.size() < depth(), "ERR_PANNS_BUSY", "session", "expected at most ", depth(),
              " steps in flight: finish one before the next begins");
  Flight flight{input.state.step, reads_state(input)};
  const bool behind = !flights_.empty();
  flight.error = ended_ == nullptr && behind ? flights_.back().error : ended_;
  if (flight.error == nullptr) {
    try {
      if (queues()) {
        enqueue(input, cancel, flight);
      } else {
        flight.result = step_at_once(input, cancel);
      }
    } catch (...) {
      flight.error = std::current_exception();
    }
  }
  // Not for a later step, which may have other clips.
  if (flight.error != nullptr && stages()) stage_->drop();
  flights_.push_back(std::move(flight));
}

StepResult Session::finish() {
  PANNS_CHECK(!flights_.empty(), "ERR_PANNS_BUSY", "session",
              "expected a step in flight, got none: begin one first");
  Flight flight = std::move(flights_.front());
  flights_.pop_front();
  try {
    if (flight.done != nullptr) {
      parameters_.stream().await(*flight.done);
      flight.result.loss = flight.outcome->loss;
    }
    if (ended_ != nullptr) std::rethrow_exception(ended_);
    if (flight.error != nullptr) std::rethrow_exception(flight.error);
    if (flight.done != nullptr) {
      check_loss(flight.result.loss, flight.step);
      if (flight.reads_state) set_norm(flight.result, flight.outcome->state);
    }
  } catch (...) {
    ended_ = flights_.empty() ? nullptr : std::current_exception();
    throw;
  }
  const bool fails = !std::isfinite(flight.result.grad_norm) && !flight.result.left_out;
  if (fails && !flights_.empty()) {
    ended_ = std::make_exception_ptr(Error("ERR_PANNS_NAN", "gradients",
                                           cat("expected a finite norm to clip by, got ",
                                               flight.result.grad_norm, " at step ", flight.step)));
  }
  return flight.result;
}

StepResult Session::step(const StepInput& input, const std::atomic<bool>* cancel) {
  PANNS_CHECK(flights_.empty(), "ERR_PANNS_BUSY", "session",
              "expected no step in flight: finish those that were begun");
  begin(input, cancel);
  return finish();
}

Session::Profile Session::profile(const StepInput& input, const std::atomic<bool>* cancel) {
  PANNS_CHECK(processes_ == nullptr, "ERR_PANNS_UNSUPPORTED", "profile",
              "expected a session of one process, got one of several");
  PANNS_CHECK(flights_.empty(), "ERR_PANNS_BUSY", "profile",
              "expected no step in flight: finish those that were begun");
  backends::Stream& stream = parameters_.stream();
  take(input);
  const auto first = forward_backward_->mark_nodes(stream, cancel);
  graph::check_finished(!first.empty());
  // Before the first half is waited for, so that the device goes on without a rest.
  const auto second = update_->mark_nodes(stream);
  StepInput usual = input;
  if (stages()) {
    bring_next(input);
    usual.waveform = static_cast<const int16_t*>(nullptr);
    usual.next = nullptr;
  }
  Profile profile;
  for (const auto* marks : {&first, &second}) {
    const auto seconds = graph::seconds_between(stream, *marks);
    profile.nodes.insert(profile.nodes.end(), seconds.begin(), seconds.end());
  }
  loss(input);
  parameters_.touch();
  version_ = parameters_.version();

  ++usual.state.step;
  const auto begin = std::chrono::steady_clock::now();
  step(usual, cancel);
  profile.step = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return profile;
}

std::byte* Session::address_beside(size_t offset) const {
  if (beside_ == nullptr || offset < first_ || offset >= first_ + span_) return nullptr;
  return beside_->data() + device_.bytes_beside(offset - first_);
}

const graph::Parameters::Entry& Session::trained(const std::string& parameter) const {
  const auto& e = parameters_.entry(parameter);
  PANNS_CHECK(trains(parameter), "ERR_PANNS_SPEC", parameter, "this parameter does not train");
  return e;
}

void Session::gradient(const std::string& parameter, float* values, int64_t count) const {
  const auto& e = trained(parameter);
  PANNS_CHECK(count == e.spec.shape.size(), "ERR_PANNS_SHAPE", parameter, "expected room for ",
              e.spec.shape.size(), " values, got ", count);
  device_.export_value(parameters_.stream(), e.spec, gradients_->data() + (e.offset - first_),
                       values);
  parameters_.stream().synchronize();
}

size_t Session::slot_index(const std::string& slot) const {
  const auto names = options_.optimizer.slots();
  const auto it = std::find(names.begin(), names.end(), slot);
  PANNS_CHECK(it != names.end(), "ERR_PANNS_CHECKPOINT", slot,
              "the optimizer keeps no state of this name");
  return static_cast<size_t>(it - names.begin());
}

void Session::get_slot(const std::string& slot, const std::string& parameter, float* values,
                       int64_t count) const {
  const auto& e = trained(parameter);
  PANNS_CHECK(count == e.spec.shape.size(), "ERR_PANNS_SHAPE", parameter, "expected room for ",
              e.spec.shape.size(), " values, got ", count);
  device_.export_value(parameters_.stream(), e.spec,
                       slots_[slot_index(slot)]->data() + (e.offset - first_), values);
  parameters_.stream().synchronize();
}

void Session::set_slot(const std::string& slot, const std::string& parameter, const float* values,
                       int64_t count) {
  const auto& e = trained(parameter);
  PANNS_CHECK(count == e.spec.shape.size(), "ERR_PANNS_SHAPE", parameter, "expected ",
              e.spec.shape.size(), " values, got ", count);
  device_.import_value(parameters_.stream(), e.spec, values,
                       slots_[slot_index(slot)]->data() + (e.offset - first_));
  parameters_.stream().synchronize();
}

bool Session::trains(const std::string& parameter) const {
  for (size_t i = 0; i < trainable_.size(); ++i) {
    if (parameters_.entries()[i].name == parameter) return trainable_[i];
  }
  return false;
}

graph::Need Session::need() const {
  graph::Need n = forward_backward_->need();
  n += update_->need();
  if (early_ != nullptr) {
    n += early_->need();
    n += rest_->need();
  }
  n.weights = parameters_.bytes();
  if (beside_ != nullptr) n.kernels += beside_->bytes();
  if (stage_ != nullptr) n.activations += stage_->bytes();
  n.kernels += state_->bytes();
  n.gradients = gradients_->bytes();
  for (const auto& slot : slots_) n.optimizer += slot->bytes();
  return n;
}

graph::NeedOf Session::need_of(graph::Parameters& parameters, const graph::Spec& spec,
                               const SessionOptions& options) {
  return [&parameters, spec, options](backends::Device& dry, int64_t batch) {
    SessionOptions sized = options;
    sized.batch = batch;
    return Session(dry, parameters, spec, sized).need();
  };
}

std::string Session::text() const {
  if (early_ == nullptr) return forward_backward_->text() + update_->text();
  return forward_backward_->text() + early_->text() + rest_->text();
}

}  // namespace panns::train
