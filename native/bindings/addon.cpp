// What the addon exports; lib/addon.ts describes it.
#include <napi.h>

#include "backends/cpu/tier.h"
#include "bindings/audio.h"
#include "bindings/device.h"
#include "bindings/engine.h"
#include "bindings/model.h"
#include "bindings/parallel.h"
#include "bindings/testing.h"
#include "core/threads.h"

namespace panns::bindings {
namespace {

Napi::Value cpu(const Napi::CallbackInfo& info) {
  const auto device = backends::make_cpu_device(1);
  auto o = Napi::Object::New(info.Env());
  o.Set("name", device->info().name);
  o.Set("tier", cpu::tier_name(cpu::tier()));
  o.Set("cores", available_cores());
  o.Set("memoryBytes", static_cast<double>(device->info().memory_bytes));
  return o;
}

Napi::Value stop(const Napi::CallbackInfo& info) {
  instance(info.Env()).stop();
  return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* state = new Instance(env);
  env.SetInstanceData(state);
  // Before the environment goes (worker.terminate, the end of the process) its threads must stop;
  // instance data would be freed only after.
  env.AddCleanupHook([state] { state->stop(); });
  state->model = Napi::Persistent(ModelHandle::define(env));
  state->session = Napi::Persistent(SessionHandle::define(env));
  state->features = Napi::Persistent(FeaturesHandle::define(env));
  state->group = Napi::Persistent(GroupHandle::define(env));

  const auto add = [&](const char* name, auto function) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  exports.Set("version", PANNS_VERSION);
  add("cpu", cpu);
  add("cudaStatus", cuda_status);
  add("stop", stop);
  add("audioLibrary", audio_library);
  add("setAudioLibraryFolder", set_audio_library_folder);
  add("createModel", create_model);
  add("createSession", create_session);
  add("createFeatures", create_features);
  add("openMpi", open_mpi);
  add("ncclId", nccl_id);
  add("openNccl", open_nccl);
  add("frontendTensors", frontend_tensors);
  add("probe", probe);
  add("decode", decode);
  add("fillRows", fill_rows);
  add("resample", resample);
  add("resamplerInfo", resampler_info);
  add("runOp", run_op);
  add("nullStep", null_step);
  add("fusions", fusions);
  return exports;
}

NODE_API_MODULE(panns, init)

}  // namespace
}  // namespace panns::bindings
