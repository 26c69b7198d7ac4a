#include "bindings/engine.h"

#include "bindings/convert.h"

namespace panns::bindings {

struct Engine::Pending {
  Job job;
  std::optional<Napi::Promise::Deferred> deferred;  // none: nobody waits
  std::unique_ptr<Error> error;
};

Engine::Engine(Napi::Env env) : callback_(Callback::New(env, "panns engine", 0, 1, this)) {
  callback_.Unref(env);  // an idle engine does not keep the process alive
  thread_ = std::thread([this] { loop(); });
}

Engine::~Engine() { stop(); }

Napi::Promise Engine::post(Napi::Env env, Job job) {
  auto* pending = new Pending{std::move(job), Napi::Promise::Deferred::New(env), nullptr};
  const Napi::Promise promise = pending->deferred->Promise();
  if (!queue(pending)) {
    pending->deferred->Reject(
        to_js(env, Error("ERR_PANNS_DISPOSED", "engine", "the process is exiting")).Value());
    delete pending;
    return promise;
  }
  if (outstanding_++ == 0) callback_.Ref(env);
  return promise;
}

void Engine::release(std::shared_ptr<void> object) {
  Job job;
  job.work = [object = std::move(object)](const auto&) {};
  auto* pending = new Pending{std::move(job), std::nullopt, nullptr};
  if (!queue(pending)) delete pending;
}

bool Engine::queue(Pending* pending) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return false;
    queue_.push_back(pending);
  }
  wake_.notify_one();
  return true;
}

void Engine::loop() {
  for (;;) {
    Pending* pending = nullptr;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      pending = queue_.front();
      queue_.pop_front();
      running_ = pending;
    }
    try {
      pending->job.work(pending->job.cancel != nullptr ? *pending->job.cancel : cancel_);
    } catch (const Error& e) {
      pending->error = std::make_unique<Error>(e);
    } catch (const std::bad_alloc&) {
      pending->error = std::make_unique<Error>(refused_memory());
    } catch (const std::length_error&) {
      pending->error = std::make_unique<Error>(refused_memory());
    } catch (const std::exception& e) {
      pending->error = std::make_unique<Error>("ERR_PANNS_INTERNAL", "engine", e.what());
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      running_ = nullptr;
    }
    // What it held may be the last of a model: not for the event loop to free.
    pending->job.work = nullptr;
    if (!pending->deferred.has_value()) {
      delete pending;
      continue;
    }
    // Never the blocking call: the event loop may be waiting in stop() for this thread.
    if (callback_.NonBlockingCall(pending) != napi_ok) return;  // the environment is closing
  }
}

void Engine::settle(Napi::Env env, Napi::Function, Engine* engine, Pending* pending) {
  const std::unique_ptr<Pending> owned(pending);
  if (env == nullptr) return;  // closing: only free
  if (--engine->outstanding_ == 0) engine->callback_.Unref(env);
  const Napi::HandleScope scope(env);
  if (owned->error != nullptr) {
    owned->deferred->Reject(to_js(env, *owned->error).Value());
    return;
  }
  try {
    owned->deferred->Resolve(guarded(env, [&]() -> Napi::Value {
      return owned->job.result ? owned->job.result(env) : env.Undefined();
    }));
  } catch (const Napi::Error& e) {
    owned->deferred->Reject(e.Value());
  }
}

void Engine::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
    cancel_ = true;
    if (running_ != nullptr && running_->job.cancel != nullptr) *running_->job.cancel = true;
  }
  wake_.notify_all();
  thread_.join();
  for (Pending* p : queue_) delete p;
  queue_.clear();
  callback_.Abort();
}

Instance::Instance(Napi::Env env)
    : compute(std::make_shared<Engine>(env)), audio(std::make_shared<Engine>(env)) {}

Instance::~Instance() { stop(); }

void Instance::stop() {
  compute->stop();
  audio->stop();
}

Instance& instance(Napi::Env env) { return *env.GetInstanceData<Instance>(); }

}  // namespace panns::bindings
