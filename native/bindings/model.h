// Model and Session as JavaScript sees them. The handles are thin: what they hold is shared with
// the jobs under way, so disposing of a handle never pulls memory from under a job.
#pragma once

#include <napi.h>

#include <list>
#include <map>
#include <memory>

#include "bindings/engine.h"
#include "graph/parameters.h"
#include "graph/program.h"
#include "train/session.h"

namespace panns::bindings {

// What a program computes: of waveforms, or of a node's results where `from` is its number.
struct Inference {
  int64_t batch, samples;
  std::vector<std::string> outputs;  // names of the spec's, or '#' and a node's number
  int from = -1;

  bool operator==(const Inference&) const = default;
};

// Everything of a model; touched on the compute engine's thread only, once it is made.
struct ModelState {
  std::unique_ptr<backends::Device> device;
  graph::Spec spec;
  std::unique_ptr<graph::Parameters> parameters;

  // Compiled programs by shape, the most recently used first.
  struct Cached {
    Inference inference;
    std::unique_ptr<graph::Program> program;
    uint64_t version;  // of the parameters it was refreshed with
  };
  std::list<Cached> programs;

  graph::Program& program(const Inference& inference);
  // Drops the program that was used least recently; false when there is none.
  bool drop_program();
};

// The inference graph with its passes, bound to the model's parameters, on its device or on one
// that only counts.
std::unique_ptr<graph::Program> compile_inference(const ModelState& model, backends::Device& device,
                                                  const Inference& inference,
                                                  const std::vector<std::string>& passes_off);
// What inference would need with a batch of another size. The model must outlive it.
graph::NeedOf need_of(const ModelState& model, const Inference& inference);

class ModelHandle : public Napi::ObjectWrap<ModelHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit ModelHandle(const Napi::CallbackInfo& info);
  // Throws ERR_PANNS_DISPOSED after dispose().
  std::shared_ptr<ModelState> state() const;
  void adopt(std::shared_ptr<ModelState> state);
  void Finalize(Napi::Env env) override;

 private:
  Napi::Value parameters(const Napi::CallbackInfo& info);
  Napi::Value initialise(const Napi::CallbackInfo& info);
  Napi::Value get(const Napi::CallbackInfo& info);
  Napi::Value set(const Napi::CallbackInfo& info);
  Napi::Value infer(const Napi::CallbackInfo& info);
  Napi::Value text(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  Napi::Value session_memory(const Napi::CallbackInfo& info);
  Napi::Value choose_inference_plan(const Napi::CallbackInfo& info);
  Napi::Value choose_training_plan(const Napi::CallbackInfo& info);
  Napi::Value rates(const Napi::CallbackInfo& info);
  Napi::Value profile(const Napi::CallbackInfo& info);
  Napi::Value held(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<ModelState> state_;
  std::weak_ptr<Engine> engine_;
  ExternalMemory external_;
};

struct SessionState {
  std::shared_ptr<ModelState> model;
  std::unique_ptr<train::Session> session;
};

class SessionHandle : public Napi::ObjectWrap<SessionHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit SessionHandle(const Napi::CallbackInfo& info);
  void adopt(std::shared_ptr<SessionState> state);
  void Finalize(Napi::Env env) override;

 private:
  std::shared_ptr<SessionState> state() const;
  Napi::Value join(const Napi::CallbackInfo& info);
  Napi::Value step(const Napi::CallbackInfo& info);
  Napi::Value profile(const Napi::CallbackInfo& info);
  Napi::Value begin(const Napi::CallbackInfo& info);
  Napi::Value finish(const Napi::CallbackInfo& info);
  Napi::Value depth(const Napi::CallbackInfo& info);
  Napi::Value gradient(const Napi::CallbackInfo& info);
  Napi::Value slots(const Napi::CallbackInfo& info);
  Napi::Value get_slot(const Napi::CallbackInfo& info);
  Napi::Value set_slot(const Napi::CallbackInfo& info);
  Napi::Value trains(const Napi::CallbackInfo& info);
  Napi::Value stages(const Napi::CallbackInfo& info);
  Napi::Value cost(const Napi::CallbackInfo& info);
  Napi::Value text(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<SessionState> state_;
  std::weak_ptr<Engine> engine_;
  ExternalMemory external_;
};

// createModel and createSession.
Napi::Value create_model(const Napi::CallbackInfo& info);
Napi::Value create_session(const Napi::CallbackInfo& info);
train::SessionOptions to_session_options(const Napi::Value& value);
backends::StepState to_step_state(const Napi::Object& o);

}  // namespace panns::bindings
