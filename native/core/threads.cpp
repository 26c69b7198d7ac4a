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
#elif defined(__aarch64__)
  // Some tens of cycles; `yield` is none on most chips.
  asm volatile("isb" ::: "memory");
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
    const uint64_t ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
    const int64_t count = count_.load(std::memory_order_acquire);
    const Fn fn = fn_.load(std::memory_order_acquire);
    void* ctx = ctx_.load(std::memory_order_acquire);
    // The generation moves before count, fn and ctx do: unless it is still the ticket's, these may
    // belong to a later run, and the ticket to one that has no indices left.
    if (generation_.load(std::memory_order_acquire) != static_cast<uint32_t>(ticket >> 32)) return;
    const auto index = static_cast<int64_t>(ticket & 0xffffffffu);
    if (index >= count) return;
    // After an error or a cancel the indices left are drawn and dropped.
    if (!failed_.load(std::memory_order_relaxed) && !cancelled()) {
      try {
        fn(ctx, index, slot);
      } catch (...) {
        std::lock_guard<std::mutex> lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
        failed_ = true;
      }
    }
    done_.fetch_add(1, std::memory_order_release);
  }
}

void ThreadPool::worker(int slot) {
  uint32_t seen = 0;
  for (;;) {
    int spins = 0;
    while (drawn() == seen && !stop_) {
      if (++spins < kSpins) {
        pause();
        continue;
      }
      std::unique_lock<std::mutex> lock(mutex_);
      ++asleep_;
      wake_.wait(lock, [&] { return drawn() != seen || stop_; });
      --asleep_;
    }
    if (stop_) return;
    seen = drawn();
    work(slot);
  }
}

// The caller waits for indices, not for threads: on a busy machine a worker may wake after all is
// done, and nobody should wait for that.
void ThreadPool::run_erased(int64_t count, Fn fn, void* ctx) {
  if (count <= 0) return;
  if (size_ == 1 || count == 1) {
    for (int64_t i = 0; i < count && !cancelled(); ++i) fn(ctx, i, 0);
    return;
  }
  PANNS_CHECK(count < (int64_t{1} << 31), "ERR_PANNS_INTERNAL", "threads",
              "expected fewer than 2^31 pieces of work, got ", count);
  error_ = nullptr;
  failed_ = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const uint32_t generation = generation_.load() + 1;
    generation_.store(generation);
    done_.store(0);
    count_.store(count);
    fn_.store(fn);
    ctx_.store(ctx);
    ticket_.store(static_cast<uint64_t>(generation) << 32);
  }
  if (asleep_.load() > 0) wake_.notify_all();
  work(0);
  int spins = 0;
  while (done_.load(std::memory_order_acquire) < count) {
    if (++spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
  if (error_) std::rethrow_exception(error_);
}

}  // namespace panns
