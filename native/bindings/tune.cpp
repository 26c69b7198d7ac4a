// Choosing convolutions' plans ahead of their first use, one a job, so that the engine stays free
// for others in between.
#include "backends/dry_device.h"
#include "bindings/convert.h"
#include "bindings/model.h"

namespace panns::bindings {
namespace {

// The nodes whose kernels look for a plan.
std::vector<backends::NodeSpec> planned_nodes(backends::Device& device, int64_t batch,
                                              const graph::NeedOf& need_of) {
  backends::DryDevice dry(device, backends::DryDevice::Kernels::left_out);
  need_of(dry, batch);
  std::vector<backends::NodeSpec> nodes;
  for (const auto& node : dry.nodes()) {
    const std::string op = ops::def(node.op).name;
    if (op.rfind("conv", 0) == 0 || op.rfind("linear", 0) == 0) nodes.push_back(node);
  }
  return nodes;
}

struct Chosen {
  size_t count = 0;
  std::string node;
};

Napi::Value choose(Napi::Env env, std::shared_ptr<ModelState> model, int64_t batch,
                   std::function<graph::NeedOf()> of, const Napi::Value& index,
                   const Napi::Value& flag) {
  const auto at = static_cast<size_t>(integer(index, "index", 0, int64_t{1} << 53));
  auto chosen = std::make_shared<Chosen>();
  Job job;
  take_cancel_flag(flag, job);
  job.work = [=](const std::atomic<bool>& cancel) {
    const auto nodes = planned_nodes(*model->device, batch, of());
    chosen->count = nodes.size();
    if (at >= nodes.size()) return;
    chosen->node = cat(nodes[at].path, " ", ops::def(nodes[at].op).name);
    const backends::CancelScope scope(*model->device, &cancel);
    model->device->kernel(nodes[at]);
  };
  job.result = [chosen](Napi::Env e) -> Napi::Value {
    auto o = Napi::Object::New(e);
    o.Set("count", static_cast<double>(chosen->count));
    o.Set("node", chosen->node);
    return o;
  };
  return instance(env).compute->post(env, std::move(job));
}

}  // namespace

Napi::Value ModelHandle::choose_inference_plan(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const Inference inference{batch_size(info[0]), sample_count(info[1]),
                              strings(info[2], "outputs")};
    const auto of = [=] { return need_of(*s, inference); };
    return choose(info.Env(), s, inference.batch, of, info[3], info[4]);
  });
}

Napi::Value ModelHandle::choose_training_plan(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto s = state();
    const graph::Spec spec = to_spec(info[0]);
    const auto options = to_session_options(info[1]);
    const auto of = [=] { return train::Session::need_of(*s->parameters, spec, options); };
    return choose(info.Env(), s, options.batch, of, info[2], info[3]);
  });
}

}  // namespace panns::bindings
