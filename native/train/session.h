// One training step as one program: forward, loss, backward, optimizer.
#pragma once

#include <atomic>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/collective.h"
#include "graph/parameters.h"
#include "graph/profile.h"
#include "graph/program.h"
#include "train/clip_stage.h"
#include "train/optimizer.h"
#include "train/update.h"

namespace panns::train {

struct SessionOptions {
  int64_t batch = 32, samples = 0;
  bool mixup = false;
  std::string loss = "bce";  // on the output clipwise_output; cross_entropy on logits
  Optimizer optimizer{ops::AdamAttrs{}};
  std::vector<std::string> frozen;  // parameters whose name starts with one of these do not train
  bool frozen_norms_train = true;   // whether norms that are frozen still follow the batch
  // What multiplies the learning rate of parameters whose name starts so; the longest one counts.
  std::map<std::string, double> rates;
  // A node of the spec whose result (batch, samples) is the input instead of a waveform; the
  // parameters before it do not train. Negative: none.
  int from = -1;
  bool sync_norms = false;              // once joined, norms see the rows of all processes
  std::vector<std::string> passes_off;  // "fuse", "prune", "plan", or a row of the fusion table
  // The update of parameters whose gradients come early runs beside the rest of the backward pass,
  // where the device can, no norm over all gradients is needed and no process waits for others: the
  // same bits.
  bool early_update = false;
  // Of one piece of that, about: a launch should have work for a while (8 MiB of Cnn14's weights
  // take some 50 us with Adam), and the last pieces be small.
  size_t early_bytes = size_t{8} << 20;
};

// How gradients are averaged.
struct JoinOptions {
  bool overlap = true;  // beside the rest of the backward pass, not after it; the same bits
  // Of one message. Long enough that its transfer takes the time and not its start (8 MiB: some
  // 50 us between GPUs, 1 ms over 100 Gb/s, where a start takes 10 to 50 us), short enough that
  // small networks have several, and that little is left to do after the first layers' gradients.
  size_t bucket_bytes = size_t{8} << 20;
};

struct StepInput {
  // Or features: (batch, samples), twice the batch with mixup. Null samples: those that the step
  // before was given as `next`.
  graph::InputValues waveform;
  const float* target;        // (batch, classes), likewise
  const float* mixup_lambda;  // (2 * batch), null without mixup
  backends::StepState state;
  bool update = true;             // false: gradients only
  const int16_t* next = nullptr;  // the samples of the step after this one (Session::stages)
};

struct StepResult {
  float loss = 0;
  float grad_norm = 0;    // 0 without clipping
  bool left_out = false;  // gradients overflowed, and a loss scale left the step out
};

class Session {
 public:
  // What a session with a batch of another size would need. The parameters must outlive it.
  static graph::NeedOf need_of(graph::Parameters& parameters, const graph::Spec& spec,
                               const SessionOptions& options);

  Session(backends::Device& device, graph::Parameters& parameters, const graph::Spec& spec,
          const SessionOptions& options);
  ~Session();

  // From here on each step is one step of all processes: its gradients and its loss are the means
  // over them. Parameters, running statistics and optimizer state become the first process's.
  void join(std::shared_ptr<backends::Collective> processes, const JoinOptions& options,
            const std::atomic<bool>* cancel);

  // Throws ERR_PANNS_NAN if the loss is not finite, or gradients overflow with any loss scale; the
  // parameters are then still those before.
  // Throws ERR_PANNS_BUSY while steps are in flight.
  StepResult step(const StepInput& input, const std::atomic<bool>* cancel = nullptr);

  // The two halves of a step. begin() gives it to the device, and where work queues up returns
  // before it is done: so the device has the next step before the host knows how this one ended,
  // and never waits for it. finish() waits for the one begun first, and gives what step() gives.
  // What a step throws is kept until it is finished. Those begun behind a step that fails, or that
  // clips by a norm that is not finite, move nothing, and fail as it did: on the device the gate of
  // StepState sees to that, which opens with the next step that has none before it in flight.
  // Throws ERR_PANNS_BUSY when depth() steps are in flight, or none.
  void begin(const StepInput& input, const std::atomic<bool>* cancel = nullptr);
  StepResult finish();
  // How many steps may be in flight.
  size_t depth() const { return queues() ? kDepth : 1; }
  // Two steps, in seconds: one node by node, of the programs in their order, and one as usual,
  // until the host knows its loss. Samples of 16 bits may be given as `next` too, where a session
  // stages. Throws ERR_PANNS_UNSUPPORTED for one of several processes, ERR_PANNS_BUSY
  // while steps are in flight.
  struct Profile {
    std::vector<double> nodes;
    double step = 0;
  };
  Profile profile(const StepInput& input, const std::atomic<bool>* cancel = nullptr);
  // Forward and backward, then the update.
  std::vector<const graph::Program*> programs() const {
    return {forward_backward_.get(), update_.get()};
  }

  // Gradients of the last step and optimizer state, in logical order.
  void gradient(const std::string& parameter, float* values, int64_t count) const;
  void get_slot(const std::string& slot, const std::string& parameter, float* values,
                int64_t count) const;
  void set_slot(const std::string& slot, const std::string& parameter, const float* values,
                int64_t count);
  bool trains(const std::string& parameter) const;
  // Whether a step can be given the samples of the next one, to bring them to the device while it
  // computes: not where memory is the host's, nor for features.
  bool stages() const { return stage_ != nullptr; }

  int64_t clips() const { return clips_; }
  int64_t classes() const { return classes_; }
  const SessionOptions& options() const { return options_; }
  // Of device memory: what it was built with, and what its kernels take with the first step.
  graph::Need need() const;
  double flops() const { return forward_backward_->flops(); }
  std::string text() const;

 private:
  using Entry = graph::Parameters::Entry;

  // One that computes, and one that waits for it: more would not keep the device busier, and each
  // is one more that an abort still has to wait for.
  static constexpr size_t kDepth = 2;

  // What a step leaves for the host, in memory that the device writes by itself.
  struct Outcome {
    float loss;
    backends::StepState state;
  };
  // A step begun and not finished.
  struct Flight {
    uint32_t step;
    bool reads_state;
    const Outcome* outcome = nullptr;       // written when `done` is reached
    std::unique_ptr<backends::Event> done;  // null: `result` is there, or the error
    StepResult result = {};
    std::exception_ptr error = nullptr;
  };

  // Whether the host need not know how a step ended before the next one: several processes agree.
  bool queues() const { return device_.queues() && processes_ == nullptr; }
  // A whole step, as far as the host is concerned; and one that it waits for half-way.
  void enqueue(const StepInput& input, const std::atomic<bool>* cancel, Flight& flight);
  StepResult step_at_once(const StepInput& input, const std::atomic<bool>* cancel);
  // Whether what the step leaves in its state matters to the host.
  bool reads_state(const StepInput& input) const;
  // Throws ERR_PANNS_NAN for gradients that no loss scale keeps from overflowing.
  void set_norm(StepResult& result, const backends::StepState& after) const;
  void set_state(const backends::StepState& given, bool early);
  void run(const std::atomic<bool>* cancel);
  bool updates_early(const StepInput& input) const;
  // The update after its gradients, on whichever way.
  void update(const StepInput& input);

  // Neighbours among the trained parameters that are wanted, by rate.
  std::vector<Run> runs(const std::function<bool(const Entry&)>& wanted) const;
  FlatArrays arrays() const;
  void make_early_update();
  // Everything of a step before the update, in all processes.
  StepResult average_gradients(const StepInput& input, const std::atomic<bool>* cancel);
  // Checks the input and brings it to the device: nothing else has changed when it throws.
  void take(const StepInput& input);
  // After the step's own work was given to the device.
  void bring_next(const StepInput& input);
  // Of the run before; throws where it is not finite.
  float loss(const StepInput& input);
  static void check_loss(float loss, uint32_t step);
  backends::StepState* state() const {
    return reinterpret_cast<backends::StepState*>(state_->data());
  }
  size_t slot_index(const std::string& slot) const;
  // Of the second form of the parameters at that offset; null: they have none.
  std::byte* address_beside(size_t offset) const;
  // Throws ERR_PANNS_SPEC for a parameter that does not train.
  const Entry& trained(const std::string& parameter) const;

  backends::Device& device_;
  graph::Parameters& parameters_;
  SessionOptions options_;
  int64_t clips_, classes_ = 0;
  std::vector<bool> trainable_;  // by entry
  // Gradients and slots hold the parameters from the first to the last that trains: bytes of those.
  size_t first_ = 0, span_ = 0;
  uint64_t version_ = 0;  // of the parameters that frozen weights were last packed from
  std::unique_ptr<backends::Memory> gradients_;
  std::unique_ptr<backends::Memory> beside_;  // the second form of the same; null: none
  std::vector<std::unique_ptr<backends::Memory>> slots_;
  std::unique_ptr<backends::Memory> state_;     // of both programs
  std::unique_ptr<backends::Memory> outcomes_;  // of kDepth steps in turn; null before the first
  size_t next_outcome_ = 0;
  std::deque<Flight> flights_;
  std::exception_ptr ended_;  // what those in flight, and those behind them, fail with
  // Two programs, so that a step can stop between gradients and update (a NaN loss, a gradient
  // check); on a capturing device both are replayed back to back.
  std::unique_ptr<graph::Program> forward_backward_, update_;
  std::unique_ptr<EarlyUpdate> early_;               // null: all of the update comes after
  std::unique_ptr<graph::Program> rest_;             // of the update, beside early_
  std::unique_ptr<ClipStage> stage_;                 // null: clips come with their step
  std::shared_ptr<backends::Collective> processes_;  // null: this one alone
};

}  // namespace panns::train
