// A small fork-join pool: the caller takes part, chunks are claimed dynamically, workers spin
// briefly and then sleep (two busy-waiting pools on a shared machine would starve each other).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace panns {

class ThreadPool {
 public:
  // threads: how many run at once, the caller included; 0 means one per available core.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // While *flag is true run() hands out no more indices: the work under way ends early and what it
  // was to write is undefined. Null: never. Set between runs.
  void set_cancel(const std::atomic<bool>* flag) { cancel_ = flag; }

  // Calls body(index, slot) for every index in [0, count), in any order; slot in [0, size())
  // names the thread, for scratch memory. Returns when all are done; rethrows the first exception.
  // Results must not depend on which slot ran an index: a reduction writes one partial per index
  // and adds them in index order afterwards. Not reentrant: body must not call run on this pool.
  template <typename Body>
  void run(int64_t count, Body&& body) {
    using B = std::remove_reference_t<Body>;
    run_erased(
        count, [](void* ctx, int64_t i, int slot) { (*static_cast<B*>(ctx))(i, slot); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Fn = void (*)(void*, int64_t, int);
  void run_erased(int64_t count, Fn fn, void* ctx);
  // The generation whose tickets are being drawn: set last, when a run is all there.
  uint32_t drawn() const {
    return static_cast<uint32_t>(ticket_.load(std::memory_order_acquire) >> 32);
  }
  bool cancelled() const { return cancel_ != nullptr && cancel_->load(std::memory_order_relaxed); }
  void stop();  // ends and joins the workers
  void work(int slot);
  void worker(int slot);

  // What a run hands out. A ticket is (generation << 32 | index); a thread that wakes late may draw
  // one of a run that has ended, and must not take it for one of the next.
  int size_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint32_t> generation_{0};
  std::atomic<uint64_t> ticket_{0};
  std::atomic<int64_t> count_{0};
  std::atomic<Fn> fn_{nullptr};
  std::atomic<void*> ctx_{nullptr};
  std::atomic<int64_t> done_{0};  // indices finished in this run
  std::atomic<int> asleep_{0};
  std::atomic<bool> stop_{false}, failed_{false};
  const std::atomic<bool>* cancel_ = nullptr;
  std::exception_ptr error_;
  std::mutex error_mutex_;
};

// Cores this process may use (its affinity mask), at least 1.
int available_cores();

}  // namespace panns
