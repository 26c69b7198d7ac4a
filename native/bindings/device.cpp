#include "bindings/device.h"

#include <algorithm>

#include "bindings/convert.h"

namespace panns::bindings {
namespace {

// More devices than any machine has: a bound for a mistyped number.
constexpr int64_t kMostDevices = 1024;
// More threads than this only wait for each other; it also bounds a mistyped number.
constexpr int64_t kMostThreads = 1024;

Napi::Object to_object(Napi::Env env, const backends::CudaStatus& status) {
  auto o = Napi::Object::New(env);
  o.Set("available", status.available);
  o.Set("problem", status.problem);
  o.Set("reason", status.reason);
  o.Set("mend", status.mend);
  o.Set("driver", status.driver);
  o.Set("runtime", status.runtime);
  auto devices = Napi::Array::New(env);
  for (const auto& d : status.devices) {
    auto one = Napi::Object::New(env);
    one.Set("index", d.index);
    one.Set("name", d.name);
    one.Set("architecture", d.architecture);
    one.Set("multiprocessors", d.multiprocessors);
    one.Set("memoryBytes", static_cast<double>(d.memory_bytes));
    one.Set("reason", d.reason);
    devices.Set(devices.Length(), one);
  }
  o.Set("devices", devices);
  auto libraries = Napi::Array::New(env);
  for (const auto& l : status.libraries) {
    auto one = Napi::Object::New(env);
    one.Set("name", l.name);
    one.Set("path", l.path);
    one.Set("version", l.version);
    one.Set("reason", l.reason);
    libraries.Set(libraries.Length(), one);
  }
  o.Set("libraries", libraries);
  return o;
}

// A whole number of the object within 0..most.
int bounded(const Napi::Object& o, const char* name, int64_t most, const char* meaning) {
  const int64_t value = integer(o, name);
  PANNS_CHECK(value >= 0 && value <= most, "ERR_PANNS_OPTION", name, "expected 0", meaning, " to ",
              most, ", got ", value);
  return static_cast<int>(value);
}

}  // namespace

DeviceChoice to_device_choice(const Napi::Value& value) {
  PANNS_CHECK(value.IsObject(), "ERR_PANNS_OPTION", "device", "expected an object");
  const auto o = value.As<Napi::Object>();
  DeviceChoice choice;
  choice.kind = text(o, "device");
  PANNS_CHECK(choice.kind == "cpu" || choice.kind == "cuda" || choice.kind == "null",
              "ERR_PANNS_DEVICE", "device", "expected 'cpu', 'cuda' or 'null', got '", choice.kind,
              "'");
  choice.threads = bounded(o, "threads", kMostThreads, " (one a core)");
  if (o.Has("memoryLimit")) {
    choice.memory_limit = static_cast<size_t>(std::max<int64_t>(0, integer(o, "memoryLimit")));
  }
  if (o.Has("index")) choice.cuda.index = bounded(o, "index", kMostDevices, "");
  if (o.Has("precision")) choice.cuda.precision = text(o, "precision");
  if (o.Has("deterministic")) choice.cuda.deterministic = flag(o, "deterministic");
  if (o.Has("measurePlans")) choice.cuda.measure_plans = flag(o, "measurePlans");
  if (o.Has("pairBins")) choice.cuda.pair_bins = text(o, "pairBins");
  return choice;
}

std::unique_ptr<backends::Device> make_device(const DeviceChoice& choice) {
  if (choice.kind == "cuda") return backends::make_cuda_device(choice.cuda);
  if (choice.kind == "null") return backends::make_null_device(choice.memory_limit);
  return backends::make_cpu_device(choice.threads);
}

Napi::Value cuda_status(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto status = std::make_shared<backends::CudaStatus>();
    Job job;
    job.work = [status](const auto&) { *status = backends::cuda_status(); };
    job.result = [status](Napi::Env env) -> Napi::Value { return to_object(env, *status); };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

}  // namespace panns::bindings
