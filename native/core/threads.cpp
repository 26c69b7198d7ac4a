#include "core/threads.h"

#include <system_error>

#include "core/error.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace panns {
namespace {

// About 20 µs of spinning: longer than the gap between two kernels of one step, shorter than a
// scheduler slice, so an idle pool costs nothing.
constexpr int kSpins = 2000;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

int available_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    const int n = CPU_COUNT(&set);
    if (n > 0) return n;
  }
#endif
  const int n = static_cast<int>(std::thread::hardware_concurrency());
  return n > 0 ? n : 1;
}

ThreadPool::ThreadPool(int threads) : size_(threads > 0 ? threads : available_cores()) {
  try {
    for (int slot = 1; slot < size_; ++slot) threads_.emplace_back([this, slot] { worker(slot); });
  } catch (const std::system_error& e) {
    stop();
    throw Error("ERR_PANNS_OUT_OF_MEMORY", "threads",
                cat("the system refused to start thread ", threads_.size() + 2, " of ", size_, " (",
                    e.what(), "); ask for fewer threads"));
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& t : threads_) t.join();
}

void ThreadPool::work(int slot) {
  for (;;) {
    const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= count_ || cancelled()) break;
    try {
      fn_(ctx_, i, slot);
    } catch (...) {
      std::lock_guard<std::mutex> lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
      next_.store(count_, std::memory_order_relaxed);
    }
  }
}

void ThreadPool::worker(int slot) {
  uint32_t seen = 0;
  for (;;) {
    int spins = 0;
    while (generation_.load(std::memory_order_acquire) == seen && !stop_) {
      if (++spins < kSpins) {
        pause();
        continue;
      }
      std::unique_lock<std::mutex> lock(mutex_);
      ++asleep_;
      wake_.wait(lock, [&] { return generation_.load() != seen || stop_; });
      --asleep_;
    }
    if (stop_) return;
    seen = generation_.load(std::memory_order_acquire);
    work(slot);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::run_erased(int64_t count, Fn fn, void* ctx) {
  if (count <= 0) return;
  if (size_ == 1 || count == 1) {
    for (int64_t i = 0; i < count && !cancelled(); ++i) fn(ctx, i, 0);
    return;
  }
  fn_ = fn;
  ctx_ = ctx;
  count_ = count;
  error_ = nullptr;
  next_.store(0, std::memory_order_relaxed);
  running_.store(size_ - 1, std::memory_order_relaxed);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    generation_.fetch_add(1, std::memory_order_release);
  }
  if (asleep_.load() > 0) wake_.notify_all();
  work(0);
  int spins = 0;
  while (running_.load(std::memory_order_acquire) > 0) {
    if (++spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
  if (error_) std::rethrow_exception(error_);
}

}  // namespace panns
