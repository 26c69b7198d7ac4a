// Where the time of an inference and of a training step goes: one round a job, so that the engine
// stays free for others in between.
#include "graph/profile.h"

#include <algorithm>
#include <chrono>

#include "bindings/convert.h"
#include "bindings/model.h"
#include "core/philox.h"

namespace panns::bindings {
namespace {

// A node of a step, and what was measured of it.
struct ProfiledNode {
  const char* pass;
  std::string path, op, detail;
  Shape shape;
  bool once;
  graph::Work work;
  double seconds = 0;
};

struct Profile {
  std::vector<ProfiledNode> nodes;
  double step = 0;
};

// Noise of full scale, the same in each round; a clip's length is repeated.
std::vector<int16_t> noise(int64_t clips, int64_t samples) {
  const RandomStream random{0, 0, 0};
  std::vector<int16_t> values(static_cast<size_t>(clips * samples));
  const auto count = static_cast<size_t>(samples);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<int16_t>(random_word(random, i) >> 16);
  for (size_t i = count; i < values.size(); ++i) values[i] = values[i - count];
  return values;
}

// Appends a program's nodes; those behind the one that makes `loss` are the backward pass. Where
// gradients are not clipped their norm is not made, but in fp16, for the loss scale.
void describe(const graph::Program& program, const backends::Device& device, const char* pass,
              graph::ValueId loss, bool clips, Profile& profile) {
  const graph::Graph& g = program.graph();
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    const graph::Node& n = g.nodes[i];
    // Optimizers work in place.
    const graph::ValueId made = n.out.empty() ? n.in[0] : n.out[0];
    const bool idle = n.op == ops::Op::grad_norm && !clips;
    profile.nodes.push_back({pass, n.path, ops::def(n.op).name, ops::text(n.attrs),
                             g.spec(made).shape, n.constant,
                             idle ? graph::Work{} : graph::work(program, device, i)});
    if (loss != graph::kNoValue && made == loss) pass = "backward";
  }
}

void add_seconds(const std::vector<double>& seconds, Profile& profile) {
  for (size_t i = 0; i < seconds.size(); ++i) profile.nodes[i].seconds = seconds[i];
}

Napi::Value to_object(Napi::Env env, const Profile& profile) {
  auto nodes = Napi::Array::New(env);
  for (const ProfiledNode& n : profile.nodes) {
    auto o = Napi::Object::New(env);
    o.Set("pass", n.pass);
    o.Set("path", n.path);
    o.Set("op", n.op);
    o.Set("detail", n.detail);
    o.Set("shape", shape_array(env, n.shape));
    o.Set("once", n.once);
    o.Set("flops", n.work.flops);
    o.Set("bytes", n.work.bytes);
    o.Set("seconds", n.seconds);
    nodes.Set(nodes.Length(), o);
  }
  auto o = Napi::Object::New(env);
  o.Set("nodes", nodes);
  o.Set("stepSeconds", profile.step);
  return o;
}

}  // namespace

Napi::Value ModelHandle::rates(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    Job job;
    take_cancel_flag(info[0], job);
    auto rates = std::make_shared<graph::Rates>();
    job.work = [=](const std::atomic<bool>& cancel) {
      *rates = graph::measure_rates(*s->device, cancel);
    };
    job.result = [rates, device = s->device->info()](Napi::Env env) -> Napi::Value {
      auto o = Napi::Object::New(env);
      o.Set("device", device.kind);
      o.Set("name", device.name);
      o.Set("detail", device.detail);
      o.Set("flops", rates->flops);
      o.Set("bytes", rates->bytes);
      return o;
    };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value ModelHandle::profile(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const Inference inference{batch_size(info[0]), sample_count(info[1]),
                              strings(info[2], "outputs")};
    Job job;
    take_cancel_flag(info[3], job);
    auto profile = std::make_shared<Profile>();
    job.work = [=](const std::atomic<bool>& cancel) {
      graph::Program& p = s->program(inference);
      backends::Stream& stream = s->parameters->stream();
      const auto waveform = noise(inference.batch, inference.samples);
      describe(p, *s->device, "forward", graph::kNoValue, false, *profile);
      p.set_input(stream, "waveform", waveform.data());
      p.set_state(stream, {});
      const auto marks = p.mark_nodes(stream, &cancel);
      graph::check_finished(!marks.empty());
      add_seconds(graph::seconds_between(stream, marks), *profile);

      const auto begin = std::chrono::steady_clock::now();
      p.set_input(stream, "waveform", waveform.data());
      graph::check_finished(p.run(stream, {}, &cancel));
      std::vector<float> values;
      for (const auto& name : inference.outputs) {
        const graph::ValueId v = p.output(name);
        values.resize(static_cast<size_t>(p.graph().spec(v).shape.size()));
        s->device->export_value(stream, p.graph().spec(v), p.address(v), values.data());
        stream.synchronize();
      }
      const auto end = std::chrono::steady_clock::now();
      profile->step = std::chrono::duration<double>(end - begin).count();
    };
    job.result = [profile](Napi::Env env) { return to_object(env, *profile); };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value SessionHandle::profile(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    PANNS_CHECK(info[0].IsObject(), "ERR_PANNS_OPTION", "state", "expected an object");
    const auto state = to_step_state(info[0].As<Napi::Object>());
    Job job;
    take_cancel_flag(info[1], job);
    auto profile = std::make_shared<Profile>();
    job.work = [=](const std::atomic<bool>& cancel) {
      train::Session& session = *s->session;
      const auto programs = session.programs();
      const auto& device = *s->model->device;
      const bool clips = state.max_norm > 0;
      describe(*programs[0], device, "forward", programs[0]->output("loss"), clips, *profile);
      describe(*programs[1], device, "optimizer", graph::kNoValue, clips, *profile);

      const int64_t rows = session.clips(), classes = session.classes();
      const auto waveform = noise(rows, session.options().samples);
      // One class a clip suits both losses.
      std::vector<float> target(static_cast<size_t>(rows * classes));
      for (int64_t i = 0; i < rows; ++i) {
        target[static_cast<size_t>(i * classes + i % classes)] = 1;
      }
      const std::vector<float> lambda(static_cast<size_t>(rows), 0.5f);
      train::StepInput input{waveform.data(), target.data(), lambda.data(), state};
      if (session.stages()) input.next = waveform.data();
      const auto measured = session.profile(input, &cancel);
      add_seconds(measured.nodes, *profile);
      profile->step = measured.step;
    };
    job.result = [profile](Napi::Env env) { return to_object(env, *profile); };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

}  // namespace panns::bindings
