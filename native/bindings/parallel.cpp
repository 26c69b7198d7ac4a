#include "bindings/parallel.h"

#include <algorithm>
#include <functional>

#include "backends/cuda_library.h"
#include "bindings/convert.h"
#include "parallel/mpi.h"

namespace panns::bindings {

Napi::Function GroupHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeGroup",
                     {InstanceMethod<&GroupHandle::sum>("sum"),
                      InstanceMethod<&GroupHandle::broadcast>("broadcast"),
                      InstanceMethod<&GroupHandle::leave>("leave")});
}

std::shared_ptr<backends::Collective> GroupHandle::processes() const {
  PANNS_CHECK(processes_ != nullptr, "ERR_PANNS_DISPOSED", "processes",
              "this process has left the others");
  return processes_;
}

void GroupHandle::adopt(std::shared_ptr<backends::Collective> processes) {
  processes_ = std::move(processes);
  engine_ = instance(Env()).compute;
  auto o = Value();
  o.Set("rank", processes_->rank());
  o.Set("size", processes_->size());
  o.Set("engine", processes_->engine());
}

void GroupHandle::Finalize(Napi::Env) {
  if (const auto engine = engine_.lock()) engine->release(std::move(processes_));
}

Napi::Value GroupHandle::sum(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    PANNS_CHECK(info[0].IsTypedArray() &&
                    info[0].As<Napi::TypedArray>().TypedArrayType() == napi_float64_array,
                "ERR_PANNS_SHAPE", "sum", "expected a Float64Array");
    const auto given = info[0].As<Napi::Float64Array>();
    auto values =
        std::make_shared<std::vector<double>>(given.Data(), given.Data() + given.ElementLength());
    Job job;
    job.work = [values, processes = processes()](const auto& cancel) {
      processes->set_cancel(&cancel);
      processes->sum(values->data(), static_cast<int64_t>(values->size()));
    };
    job.result = [values](Napi::Env env) -> Napi::Value {
      auto out = Napi::Float64Array::New(env, values->size());
      std::copy(values->begin(), values->end(), out.Data());
      return out;
    };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value GroupHandle::broadcast(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto p = processes();
    const auto root = static_cast<int>(integer(info[1], "root", 0, p->size() - 1));
    PANNS_CHECK(info[0].IsTypedArray() &&
                    info[0].As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array,
                "ERR_PANNS_SHAPE", "broadcast", "expected a Uint8Array");
    const auto given = info[0].As<Napi::Uint8Array>();
    auto bytes =
        std::make_shared<std::vector<uint8_t>>(given.Data(), given.Data() + given.ElementLength());
    Job job;
    job.work = [=](const auto& cancel) {
      p->set_cancel(&cancel);
      double length = p->rank() == root ? static_cast<double>(bytes->size()) : 0;
      p->sum(&length, 1);
      bytes->resize(static_cast<size_t>(length));
      p->broadcast(bytes->data(), static_cast<int64_t>(bytes->size()), root);
    };
    job.result = [bytes](Napi::Env env) -> Napi::Value {
      auto out = Napi::Uint8Array::New(env, bytes->size());
      std::copy(bytes->begin(), bytes->end(), out.Data());
      return out;
    };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value GroupHandle::leave(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Job job;
    job.work = [processes = processes()](const auto&) { processes->leave(); };
    processes_.reset();
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

namespace {

// More processes than any machine has: a bound for a mistyped number.
constexpr int64_t kMostProcesses = int64_t{1} << 24;

using Open = std::function<std::unique_ptr<backends::Collective>()>;

// A group that is opened on the engine's thread, which alone uses it.
Napi::Value post_group(Napi::Env env, Open open) {
  auto opened = std::make_shared<std::unique_ptr<backends::Collective>>();
  Job job;
  job.work = [=](const auto&) { *opened = open(); };
  job.result = [opened](Napi::Env e) -> Napi::Value {
    const Napi::Object handle = instance(e).group.New({});
    GroupHandle::Unwrap(handle)->adopt(std::move(*opened));
    return handle;
  };
  return instance(env).compute->post(env, std::move(job));
}

}  // namespace

Napi::Value open_mpi(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    PANNS_CHECK(info[0].IsObject(), "ERR_PANNS_OPTION", "openMpi", "expected an object");
    const auto o = info[0].As<Napi::Object>();
    parallel::MpiOptions options;
    options.libraries = strings(o.Get("libraries"), "libraries");
    options.expected_size = static_cast<int>(integer(o.Get("size"), "size", 0, kMostProcesses));
    options.timeout_seconds = number(o, "timeoutSeconds");
    parallel::prepare_environment();
    return post_group(info.Env(), [=] { return parallel::open_mpi(options); });
  });
}

Napi::Value nccl_id(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    auto id = std::make_shared<std::string>();
    Job job;
    job.work = [id, make = info[0].ToBoolean().Value()](const auto&) {
      *id = backends::cuda_nccl_id(make);
    };
    job.result = [id](Napi::Env env) -> Napi::Value {
      auto out = Napi::Uint8Array::New(env, id->size());
      std::copy(id->begin(), id->end(), out.Data());
      return out;
    };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value open_nccl(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    PANNS_CHECK(info[0].IsObject(), "ERR_PANNS_OPTION", "openNccl", "expected an object");
    const auto o = info[0].As<Napi::Object>();
    backends::NcclOptions options;
    options.index = static_cast<int>(integer(o.Get("index"), "index", 0, 1024));
    options.size = static_cast<int>(integer(o.Get("size"), "size", 1, kMostProcesses));
    options.rank = static_cast<int>(integer(o.Get("rank"), "rank", 0, options.size - 1));
    options.timeout_seconds = number(o, "timeoutSeconds");
    PANNS_CHECK(o.Get("id").IsTypedArray() &&
                    o.Get("id").As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array,
                "ERR_PANNS_SHAPE", "openNccl", "expected an id as a Uint8Array");
    const auto id = o.Get("id").As<Napi::Uint8Array>();
    options.id.assign(reinterpret_cast<const char*>(id.Data()), id.ElementLength());
    return post_group(info.Env(), [=] { return backends::join_cuda_processes(options); });
  });
}

}  // namespace panns::bindings
