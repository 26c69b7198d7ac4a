// The thread pool: every index once, whatever wakes late; errors, cancelling, many short runs.
#include "core/threads.h"

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "tap.h"

using panns::ThreadPool;

namespace {

// Runs of changing lengths, back to back, so that late workers meet the next run's tickets.
bool every_index_once(ThreadPool& pool, int runs) {
  std::vector<std::atomic<int>> hits(257);
  for (int r = 0; r < runs; ++r) {
    const int64_t count = 1 + r * 31 % 257;
    for (auto& h : hits) h = 0;
    pool.run(count, [&](int64_t i, int) { hits[static_cast<size_t>(i)].fetch_add(1); });
    for (int64_t i = 0; i < 257; ++i) {
      if (hits[static_cast<size_t>(i)] != (i < count ? 1 : 0)) return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  for (int threads : {1, 2, 3, 16}) {
    ThreadPool pool(threads);
    tap::ok(pool.size() == threads, "size of " + std::to_string(threads));
    tap::ok(every_index_once(pool, 20000),
            "every index once, " + std::to_string(threads) + " threads");
    bool threw = false;
    try {
      pool.run(100, [](int64_t i, int) {
        if (i == 37) throw std::runtime_error("37");
      });
    } catch (const std::runtime_error&) {
      threw = true;
    }
    tap::ok(threw, "an exception reaches the caller");
    tap::ok(every_index_once(pool, 100), "and the pool goes on");
    std::atomic<bool> cancel{false};
    std::atomic<int> ran{0};
    pool.set_cancel(&cancel);
    pool.run(100000, [&](int64_t, int) {
      if (ran.fetch_add(1) == 10) cancel = true;
    });
    // Each thread may have one index under way when the flag is set.
    tap::ok(ran <= 11 + threads, "cancel stops handing out work");
    pool.set_cancel(nullptr);
    tap::ok(every_index_once(pool, 100), "and the pool goes on");
  }
  return tap::done();
}
