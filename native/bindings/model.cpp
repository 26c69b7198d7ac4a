#include "bindings/model.h"

#include <algorithm>

#include "bindings/convert.h"
#include "bindings/device.h"
#include "graph/fuse.h"

namespace panns::bindings {
namespace {

// Programs kept compiled: a tagger needs one for full windows and one for the last.
constexpr size_t kPrograms = 4;

bool has(const std::vector<std::string>& list, const std::string& item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

// A job that answers with what `of` gives: its parts, the device, what is free, the largest batch.
Napi::Value examine(Napi::Env env, std::shared_ptr<ModelState> model, int64_t batch, bool search,
                    std::function<graph::NeedOf()> of) {
  auto fit = std::make_shared<graph::Fit>();
  Job job;
  job.work = [=](const auto&) { *fit = graph::examine(*model->device, batch, of(), search); };
  // Not the model, which may be gone by then and is not for the event loop to free.
  job.result = [fit, search, kind = model->device->info().kind](Napi::Env e) -> Napi::Value {
    auto o = Napi::Object::New(e);
    const auto set = [&](const char* name, auto value) { o.Set(name, static_cast<double>(value)); };
    o.Set("device", kind);
    set("weights", fit->need.weights);
    set("gradients", fit->need.gradients);
    set("optimizer", fit->need.optimizer);
    set("activations", fit->need.activations);
    set("scratch", fit->need.scratch);
    set("kernels", fit->need.kernels);
    if (fit->free != backends::MemoryState::kUnknown) set("free", fit->free);
    if (search) set("largestBatch", fit->largest);
    return o;
  };
  return instance(env).compute->post(env, std::move(job));
}

}  // namespace

std::unique_ptr<graph::Program> compile_inference(const ModelState& model, backends::Device& device,
                                                  const Inference& inference,
                                                  const std::vector<std::string>& passes_off) {
  graph::Spec spec = model.spec;
  for (const auto& name : inference.outputs) {
    if (name.size() > 1 && name[0] == '#') spec.outputs[name] = std::atoi(name.c_str() + 1);
  }
  graph::Graph g = graph::parse(
      spec, {inference.batch, inference.samples, false, false, inference.from, nullptr});
  std::map<std::string, graph::ValueId> wanted;
  for (const auto& name : inference.outputs) {
    const auto it = g.outputs.find(name);
    PANNS_CHECK(it != g.outputs.end(), "ERR_PANNS_OPTION", model.spec.name,
                "the model has no output '", name, "'");
    wanted.insert(*it);
  }
  g.outputs = wanted;
  if (!has(passes_off, "prune")) graph::prune(g);
  if (!has(passes_off, "fold_batch_norm")) graph::fold_batch_norm(g);
  if (!has(passes_off, "fuse")) graph::fuse(g, device, passes_off);
  std::vector<void*> bound(g.values.size(), nullptr);
  for (size_t v = 0; v < g.values.size(); ++v) {
    const auto kind = g.values[v].kind;
    if (kind != graph::Kind::parameter && kind != graph::Kind::buffer) continue;
    bound[v] = model.parameters->address(model.parameters->entry(g.values[v].name));
  }
  graph::Program::Options options;
  options.reuse_memory = !has(passes_off, "plan");
  return std::make_unique<graph::Program>(std::move(g), device, bound, options);
}

graph::NeedOf need_of(const ModelState& model, const Inference& inference) {
  return [&model, inference](backends::Device& dry, int64_t batch) {
    Inference sized = inference;
    sized.batch = batch;
    graph::Need n = compile_inference(model, dry, sized, {})->need();
    n.weights = model.parameters->bytes();
    return n;
  };
}

bool ModelState::drop_program() {
  if (programs.empty()) return false;
  programs.pop_back();
  return true;
}

graph::Program& ModelState::program(const Inference& inference) {
  for (auto it = programs.begin(); it != programs.end(); ++it) {
    if (!(it->inference == inference)) continue;
    programs.splice(programs.begin(), programs, it);
    break;
  }
  Cached* hit = programs.empty() ? nullptr : &programs.front();
  if (hit == nullptr || !(hit->inference == inference)) {
    if (programs.size() >= kPrograms) drop_program();
    graph::FitOptions fit{spec.name};
    fit.make_room = [this] { return drop_program(); };
    auto made = graph::make_fitting(*device, inference.batch, need_of(*this, inference), fit, [&] {
      return compile_inference(*this, *device, inference, {});
    });
    programs.push_front({inference, std::move(made), 0});
    hit = &programs.front();
  }
  if (hit->version != parameters->version()) {
    hit->program->refresh(parameters->stream());
    hit->version = parameters->version();
  }
  return *hit->program;
}

// ---- Model

Napi::Function ModelHandle::define(Napi::Env env) {
  return DefineClass(
      env, "NativeModel",
      {InstanceMethod<&ModelHandle::parameters>("parameters"),
       InstanceMethod<&ModelHandle::initialise>("initialise"),
       InstanceMethod<&ModelHandle::get>("get"), InstanceMethod<&ModelHandle::set>("set"),
       InstanceMethod<&ModelHandle::infer>("infer"), InstanceMethod<&ModelHandle::text>("text"),
       InstanceMethod<&ModelHandle::memory>("memory"),
       InstanceMethod<&ModelHandle::session_memory>("sessionMemory"),
       InstanceMethod<&ModelHandle::choose_inference_plan>("chooseInferencePlan"),
       InstanceMethod<&ModelHandle::choose_training_plan>("chooseTrainingPlan"),
       InstanceMethod<&ModelHandle::rates>("rates"),
       InstanceMethod<&ModelHandle::profile>("profile"), InstanceMethod<&ModelHandle::held>("held"),
       InstanceMethod<&ModelHandle::dispose>("dispose")});
}

ModelHandle::ModelHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ModelHandle>(info) {}

std::shared_ptr<ModelState> ModelHandle::state() const {
  PANNS_CHECK(state_ != nullptr, "ERR_PANNS_DISPOSED", "model", "the model was disposed of");
  return state_;
}

Napi::Value ModelHandle::parameters(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    auto list = Napi::Array::New(env);
    uint32_t i = 0;
    for (const auto& e : state()->parameters->entries()) {
      auto o = Napi::Object::New(env);
      o.Set("name", e.name);
      o.Set("shape", shape_array(env, e.spec.shape));
      o.Set("trainable", e.trainable);
      list.Set(i++, o);
    }
    return list;
  });
}

Napi::Value ModelHandle::initialise(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const uint64_t seed = bigint(info[0], "seed");
    return instance(info.Env())
        .compute->post(
            info.Env(),
            {[s = state(), seed](const auto&) { s->parameters->initialise(seed); }, nullptr, {}});
  });
}

Napi::Value ModelHandle::get(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const std::string name = info[0].ToString().Utf8Value();
    auto values =
        std::make_shared<std::vector<float>>(s->parameters->entry(name).spec.shape.size());
    return instance(info.Env())
        .compute->post(info.Env(), {[=](const auto&) {
                                      s->parameters->get(name, values->data(),
                                                         static_cast<int64_t>(values->size()));
                                    },
                                    [values](Napi::Env env) { return to_array(env, *values); },
                                    {}});
  });
}

Napi::Value ModelHandle::set(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const std::string name = info[0].ToString().Utf8Value();
    Job job;
    const FloatInput values(info[1], name, s->parameters->entry(name).spec.shape.size(), job);
    job.work = [=](const auto&) { s->parameters->set(name, values.data(), values.size()); };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value ModelHandle::infer(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const int64_t batch = batch_size(info[1]), samples = sample_count(info[2]);
    Job job;
    const SampleInput waveform(info[0], "waveform", batch * samples, job);
    const auto outputs = strings(info[3], "outputs");
    take_cancel_flag(info[4], job);
    Inference inference{batch, samples, outputs};
    if (!info[5].IsUndefined()) {
      const auto last = static_cast<int64_t>(s->spec.nodes.size()) - 1;
      inference.from = static_cast<int>(integer(info[5], "from", 0, last));
    }
    auto results = std::make_shared<std::map<std::string, std::vector<float>>>();
    job.work = [=](const std::atomic<bool>& cancel) {
      graph::Program& p = s->program(inference);
      backends::Stream& stream = s->parameters->stream();
      p.set_input(stream, inference.from < 0 ? "waveform" : "features", waveform.values());
      PANNS_CHECK(p.run(stream, {}, &cancel), "ABORT_ERR", "", "the operation was aborted");
      for (const auto& name : outputs) {
        const graph::ValueId v = p.output(name);
        auto& values = (*results)[name];
        values.resize(static_cast<size_t>(p.graph().spec(v).shape.size()));
        s->device->export_value(stream, p.graph().spec(v), p.address(v), values.data());
      }
      stream.synchronize();
    };
    job.result = [=](Napi::Env env) -> Napi::Value {
      auto o = Napi::Object::New(env);
      for (const auto& [name, values] : *results) o.Set(name, to_array(env, values));
      return o;
    };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value ModelHandle::text(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const int64_t batch = batch_size(info[0]), samples = sample_count(info[1]);
    const auto off = strings(info[2], "passesOff");
    graph::check_passes(off);
    auto dump = std::make_shared<std::string>();
    return instance(info.Env())
        .compute->post(
            info.Env(),
            {[=](const auto&) {
               std::vector<std::string> outputs;
               for (const auto& [name, node] : s->spec.outputs) outputs.push_back(name);
               *dump = compile_inference(*s, *s->device, {batch, samples, outputs}, off)->text();
             },
             [dump](Napi::Env env) -> Napi::Value { return Napi::String::New(env, *dump); },
             {}});
  });
}

Napi::Value ModelHandle::memory(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const Inference inference{batch_size(info[0]), sample_count(info[1]),
                              strings(info[2], "outputs")};
    return examine(info.Env(), s, inference.batch, info[3].ToBoolean(),
                   [=] { return need_of(*s, inference); });
  });
}

Napi::Value ModelHandle::session_memory(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const graph::Spec spec = to_spec(info[0]);
    const auto options = to_session_options(info[1]);
    return examine(info.Env(), s, options.batch, info[2].ToBoolean(),
                   [=] { return train::Session::need_of(*s->parameters, spec, options); });
  });
}

Napi::Value ModelHandle::held(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    auto bytes = std::make_shared<size_t>();
    Job job;
    job.work = [=](const auto&) { *bytes = s->device->memory().held; };
    job.result = [bytes](Napi::Env env) -> Napi::Value {
      return Napi::Number::New(env, static_cast<double>(*bytes));
    };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

void ModelHandle::adopt(std::shared_ptr<ModelState> state) {
  state_ = std::move(state);
  engine_ = instance(Env()).compute;
  external_.set(Env(), state_->parameters->bytes());
}

void ModelHandle::dispose(const Napi::CallbackInfo& info) { Finalize(info.Env()); }

void ModelHandle::Finalize(Napi::Env env) {
  external_.set(env, 0);
  if (const auto engine = engine_.lock()) engine->release(std::move(state_));
}

Napi::Value create_model(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto state = std::make_shared<ModelState>();
    state->spec = to_spec(info[0]);
    const DeviceChoice device = to_device_choice(info[1]);
    const int64_t samples = sample_count(info[2]);
    Job job;
    job.work = [=](const auto&) {
      state->device = make_device(device);
      const graph::Graph g = graph::parse(state->spec, {1, samples, false, false});
      state->parameters = std::make_unique<graph::Parameters>(g, *state->device);
    };
    job.result = [=](Napi::Env env) -> Napi::Value {
      const Napi::Object handle = instance(env).model.New({});
      ModelHandle::Unwrap(handle)->adopt(state);
      return handle;
    };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

}  // namespace panns::bindings
