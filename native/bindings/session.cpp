#include "bindings/convert.h"
#include "bindings/model.h"
#include "bindings/parallel.h"
#include "graph/fuse.h"

namespace panns::bindings {
namespace {

// More than a spec may have.
constexpr int64_t kNodes = 1 << 20;

// More than any model's gradients have.
constexpr int64_t kBytes = int64_t{1} << 40;

train::Optimizer to_optimizer(const Napi::Value& value) {
  PANNS_CHECK(value.IsObject(), "ERR_PANNS_OPTION", "optimizer", "expected an object");
  const auto o = value.As<Napi::Object>();
  const std::string kind = text(o, "kind");
  PANNS_CHECK(kind == "adam" || kind == "sgd", "ERR_PANNS_OPTION", "optimizer",
              "expected 'adam' or 'sgd', got '", kind, "'");
  ops::AttrMap map = to_attrs(o.Get("attrs"), "optimizer");
  train::Optimizer optimizer;
  if (kind == "adam") {
    optimizer.attrs = ops::AdamAttrs::parse(map);
  } else {
    optimizer.attrs = ops::SgdAttrs::parse(map);
  }
  map.finish();
  return optimizer;
}

}  // namespace

train::SessionOptions to_session_options(const Napi::Value& value) {
  PANNS_CHECK(value.IsObject(), "ERR_PANNS_OPTION", "session", "expected options as an object");
  const auto o = value.As<Napi::Object>();
  train::SessionOptions options;
  options.batch = batch_size(o.Get("batch"));
  options.samples = sample_count(o.Get("samples"));
  options.mixup = flag(o, "mixup");
  options.loss = text(o, "loss");
  options.optimizer = to_optimizer(o.Get("optimizer"));
  options.frozen = strings(o.Get("frozen"), "frozen");
  if (given(o, "frozenNorms")) {
    options.frozen_norms_train = choice(o, "frozenNorms", {"eval", "train"}) == 1;
  }
  if (given(o, "from")) options.from = static_cast<int>(integer(o.Get("from"), "from", 0, kNodes));
  if (given(o, "rates")) {
    PANNS_CHECK(o.Get("rates").IsObject(), "ERR_PANNS_OPTION", "rates", "expected an object");
    const auto rates = o.Get("rates").As<Napi::Object>();
    const Napi::Array prefixes = rates.GetPropertyNames();
    for (uint32_t i = 0; i < prefixes.Length(); ++i) {
      const std::string prefix = prefixes.Get(i).As<Napi::String>().Utf8Value();
      options.rates[prefix] = number(rates, prefix.c_str());
    }
  }
  if (given(o, "syncNorms")) options.sync_norms = flag(o, "syncNorms");
  options.passes_off = strings(o.Get("passesOff"), "passesOff");
  graph::check_passes(options.passes_off);
  if (given(o, "passesOn")) {
    for (const auto& name : strings(o.Get("passesOn"), "passesOn")) {
      PANNS_CHECK(name == "early_update", "ERR_PANNS_OPTION", "passesOn", "unknown pass '", name,
                  "'; expected early_update");
      options.early_update = true;
    }
  }
  if (given(o, "earlyBytes")) {
    options.early_bytes =
        static_cast<size_t>(integer(o.Get("earlyBytes"), "earlyBytes", 1, kBytes));
  }
  return options;
}

backends::StepState to_step_state(const Napi::Object& o) {
  backends::StepState s;
  s.seed = bigint(o.Get("seed"), "seed");
  s.step = static_cast<uint32_t>(integer(o, "step"));
  s.lr = static_cast<float>(number(o, "lr"));
  s.max_norm = static_cast<float>(number(o, "maxNorm"));
  return s;
}

Napi::Function SessionHandle::define(Napi::Env env) {
  return DefineClass(
      env, "NativeSession",
      {InstanceMethod<&SessionHandle::join>("join"), InstanceMethod<&SessionHandle::step>("step"),
       InstanceMethod<&SessionHandle::profile>("profile"),
       InstanceMethod<&SessionHandle::begin>("begin"),
       InstanceMethod<&SessionHandle::finish>("finish"),
       InstanceMethod<&SessionHandle::depth>("depth"),
       InstanceMethod<&SessionHandle::gradient>("gradient"),
       InstanceMethod<&SessionHandle::slots>("slots"),
       InstanceMethod<&SessionHandle::get_slot>("getSlot"),
       InstanceMethod<&SessionHandle::set_slot>("setSlot"),
       InstanceMethod<&SessionHandle::trains>("trains"),
       InstanceMethod<&SessionHandle::stages>("stages"),
       InstanceMethod<&SessionHandle::cost>("cost"), InstanceMethod<&SessionHandle::text>("text"),
       InstanceMethod<&SessionHandle::dispose>("dispose")});
}

SessionHandle::SessionHandle(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<SessionHandle>(info) {}

std::shared_ptr<SessionState> SessionHandle::state() const {
  PANNS_CHECK(state_ != nullptr, "ERR_PANNS_DISPOSED", "session",
              "the training session was disposed of");
  return state_;
}

Napi::Value SessionHandle::join(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    PANNS_CHECK(info[0].IsObject() &&
                    info[0].As<Napi::Object>().InstanceOf(instance(info.Env()).group.Value()),
                "ERR_PANNS_OPTION", "session", "expected a group of processes");
    const auto processes = GroupHandle::Unwrap(info[0].As<Napi::Object>())->processes();
    PANNS_CHECK(info[1].IsObject(), "ERR_PANNS_OPTION", "join", "expected options as an object");
    const auto o = info[1].As<Napi::Object>();
    train::JoinOptions options;
    if (given(o, "overlap")) options.overlap = flag(o, "overlap");
    if (given(o, "bucketBytes")) {
      options.bucket_bytes =
          static_cast<size_t>(integer(o.Get("bucketBytes"), "bucketBytes", 1, kBytes));
    }
    Job job;
    job.work = [=](const std::atomic<bool>& cancel) {
      s->session->join(processes, options, &cancel);
    };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

namespace {

Napi::Value to_result(Napi::Env env, const train::StepResult& result) {
  auto o = Napi::Object::New(env);
  o.Set("loss", result.loss);
  o.Set("gradNorm", result.grad_norm);
  o.Set("leftOut", result.left_out);
  return o;
}

// What a step is given, checked now; the job calls `then` with it.
template <typename Then>
Job step_job(const Napi::CallbackInfo& info, const std::shared_ptr<SessionState>& s, Then then) {
  const train::Session& session = *s->session;
  const int64_t clips = session.clips();
  Job job;
  const int64_t samples = clips * session.options().samples;
  std::optional<SampleInput> waveform;
  if (!info[0].IsUndefined()) waveform.emplace(info[0], "waveform", samples, job);
  const FloatInput target(info[1], "target", clips * session.classes(), job);
  std::optional<FloatInput> lambda;
  if (session.options().mixup) lambda.emplace(info[2], "lambda", clips, job);
  PANNS_CHECK(info[3].IsObject(), "ERR_PANNS_OPTION", "state", "expected an object");
  const auto o = info[3].As<Napi::Object>();
  const auto state = to_step_state(o);
  const bool update = flag(o, "update");
  std::optional<ArrayInput<int16_t>> next;
  if (!info[4].IsUndefined()) next.emplace(info[4], "next", samples, job);
  job.work = [=](const std::atomic<bool>& cancel) {
    const graph::InputValues staged = static_cast<const int16_t*>(nullptr);
    then(*s->session,
         {waveform ? waveform->values() : staged, target.data(), lambda ? lambda->data() : nullptr,
          state, update, next ? next->data() : nullptr},
         &cancel);
  };
  return job;
}

}  // namespace

Napi::Value SessionHandle::step(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto result = std::make_shared<train::StepResult>();
    Job job = step_job(info, state(),
                       [result](train::Session& session, const train::StepInput& input,
                                const auto* cancel) { *result = session.step(input, cancel); });
    job.result = [result](Napi::Env env) { return to_result(env, *result); };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value SessionHandle::begin(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Job job = step_job(info, state(),
                       [](train::Session& session, const train::StepInput& input,
                          const auto* cancel) { session.begin(input, cancel); });
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value SessionHandle::finish(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const auto result = std::make_shared<train::StepResult>();
    Job job;
    job.work = [=](const auto&) { *result = s->session->finish(); };
    job.result = [result](Napi::Env env) { return to_result(env, *result); };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value SessionHandle::depth(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return Napi::Number::New(info.Env(), static_cast<double>(state()->session->depth()));
  });
}

Napi::Value SessionHandle::gradient(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const std::string name = info[0].ToString().Utf8Value();
    auto values =
        std::make_shared<std::vector<float>>(s->model->parameters->entry(name).spec.shape.size());
    return instance(info.Env())
        .compute->post(info.Env(), {[=](const auto&) {
                                      s->session->gradient(name, values->data(),
                                                           static_cast<int64_t>(values->size()));
                                    },
                                    [values](Napi::Env env) { return to_array(env, *values); },
                                    {}});
  });
}

Napi::Value SessionHandle::slots(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    auto list = Napi::Array::New(info.Env());
    uint32_t i = 0;
    for (const auto& name : state()->session->options().optimizer.slots()) list.Set(i++, name);
    return list;
  });
}

Napi::Value SessionHandle::get_slot(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const std::string slot = info[0].ToString().Utf8Value(), name = info[1].ToString().Utf8Value();
    auto values =
        std::make_shared<std::vector<float>>(s->model->parameters->entry(name).spec.shape.size());
    return instance(info.Env())
        .compute->post(info.Env(), {[=](const auto&) {
                                      s->session->get_slot(slot, name, values->data(),
                                                           static_cast<int64_t>(values->size()));
                                    },
                                    [values](Napi::Env env) { return to_array(env, *values); },
                                    {}});
  });
}

Napi::Value SessionHandle::set_slot(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const std::string slot = info[0].ToString().Utf8Value(), name = info[1].ToString().Utf8Value();
    Job job;
    const FloatInput values(info[2], name, s->model->parameters->entry(name).spec.shape.size(),
                            job);
    job.work = [=](const auto&) { s->session->set_slot(slot, name, values.data(), values.size()); };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value SessionHandle::trains(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return Napi::Boolean::New(info.Env(), state()->session->trains(info[0].ToString().Utf8Value()));
  });
}

Napi::Value SessionHandle::stages(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return Napi::Boolean::New(info.Env(), state()->session->stages());
  });
}

Napi::Value SessionHandle::cost(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    auto o = Napi::Object::New(info.Env());
    o.Set("bytes", static_cast<double>(state()->session->need().added()));
    o.Set("flops", state()->session->flops());
    return o;
  });
}

Napi::Value SessionHandle::text(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return Napi::String::New(info.Env(), state()->session->text());
  });
}

void SessionHandle::adopt(std::shared_ptr<SessionState> state) {
  state_ = std::move(state);
  engine_ = instance(Env()).compute;
  external_.set(Env(), state_->session->need().added());
}

void SessionHandle::dispose(const Napi::CallbackInfo& info) { Finalize(info.Env()); }

void SessionHandle::Finalize(Napi::Env env) {
  external_.set(env, 0);
  if (const auto engine = engine_.lock()) engine->release(std::move(state_));
}

Napi::Value create_session(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    PANNS_CHECK(
        info[0].IsObject() && info[0].As<Napi::Object>().InstanceOf(instance(env).model.Value()),
        "ERR_PANNS_OPTION", "session", "expected a model");
    const auto state = std::make_shared<SessionState>();
    state->model = ModelHandle::Unwrap(info[0].As<Napi::Object>())->state();
    const graph::Spec spec = to_spec(info[1]);
    const auto options = to_session_options(info[2]);
    Job job;
    std::optional<Inference> evaluation;
    if (const auto o = info[2].As<Napi::Object>(); given(o, "evaluation")) {
      PANNS_CHECK(o.Get("evaluation").IsObject(), "ERR_PANNS_OPTION", "evaluation",
                  "expected an object");
      const auto e = o.Get("evaluation").As<Napi::Object>();
      evaluation = {batch_size(e.Get("batch")), options.samples,
                    strings(e.Get("outputs"), "outputs")};
    }
    job.work = [=](const auto&) {
      ModelState& model = *state->model;
      graph::FitOptions fit{model.spec.name};
      // An evaluation that finds no memory would end a training that has long been under way.
      if (evaluation) {
        const auto other =
            graph::examine(*model.device, evaluation->batch, need_of(model, *evaluation), false);
        fit.reserve = other.need.added();
        fit.reserved = "evaluations";
      }
      fit.make_room = [&] { return model.drop_program(); };
      state->session =
          graph::make_fitting(*model.device, options.batch,
                              train::Session::need_of(*model.parameters, spec, options), fit, [&] {
                                return std::make_unique<train::Session>(
                                    *model.device, *model.parameters, spec, options);
                              });
    };
    job.result = [=](Napi::Env e) -> Napi::Value {
      const Napi::Object handle = instance(e).session.New({});
      SessionHandle::Unwrap(handle)->adopt(state);
      return handle;
    };
    return instance(env).compute->post(env, std::move(job));
  });
}

}  // namespace panns::bindings
