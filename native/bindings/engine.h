// An engine thread: runs jobs one after another off the event loop, and settles their promises on
// it. Not libuv's pool: a training job there would starve file reads, and worker.terminate() and
// process.exit() would wait for its end.
#pragma once

#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace panns::bindings {

// A piece of work and what it needs kept alive.
struct Job {
  // Runs on the engine's thread, and ends there. May throw panns::Error.
  std::function<void(const std::atomic<bool>& cancel)> work;
  // Runs on the event loop after it, and makes the promise's value.
  std::function<Napi::Value(Napi::Env)> result;
  // JavaScript objects that must outlive the job: shared buffers, wrapped objects.
  std::vector<Napi::ObjectReference> held;
  // The caller's own flag, if it gave one; stop() sets it too.
  std::atomic<bool>* cancel = nullptr;
};

class Engine {
 public:
  explicit Engine(Napi::Env env);
  ~Engine();

  // Event loop only. Rejects with ERR_PANNS_DISPOSED once stopped.
  Napi::Promise post(Napi::Env env, Job job);
  // Lets go of an object behind the jobs under way, on the engine's thread: freeing gigabytes, or
  // waiting until a device has done what it does with them, is not for the event loop. Once stopped
  // no job runs any more, and it ends here.
  void release(std::shared_ptr<void> object);
  // Cancels the running job, drops the waiting ones, joins the thread. Event loop only.
  void stop();

 private:
  struct Pending;
  static void settle(Napi::Env env, Napi::Function, Engine*, Pending* pending);
  using Callback = Napi::TypedThreadSafeFunction<Engine, Pending, settle>;
  void loop();
  // False once stopped.
  bool queue(Pending* pending);

  Callback callback_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Pending*> queue_;
  std::atomic<bool> cancel_{false};  // of jobs without a flag of their own
  Pending* running_ = nullptr;
  bool stopping_ = false;
  int outstanding_ = 0;  // on the event loop: jobs whose promise is open
};

// Tells the garbage collector how much memory a handle holds, so that forgotten ones are collected.
class ExternalMemory {
 public:
  void set(Napi::Env env, size_t bytes) {
    Napi::MemoryManagement::AdjustExternalMemory(env, static_cast<int64_t>(bytes) - bytes_);
    bytes_ = static_cast<int64_t>(bytes);
  }

 private:
  int64_t bytes_ = 0;
};

// One set of engines for each JavaScript environment (main thread or worker).
struct Instance {
  explicit Instance(Napi::Env env);
  ~Instance();
  // Computing and reading audio overlap, so each has its own thread. Handles may be finalised after
  // this has gone.
  std::shared_ptr<Engine> compute, audio;
  Napi::FunctionReference model, session, features, group;
  void stop();
};

Instance& instance(Napi::Env env);

}  // namespace panns::bindings
