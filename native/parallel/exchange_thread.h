// A thread that makes every call of MPI in this process. MPI moves data only inside its own calls:
// on a thread of its own exchanges go on beside the computing, and MPI needs no locks, as one
// thread alone knows it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "core/error.h"

namespace panns::parallel {

// A non-blocking call and what follows it, all on the thread.
struct Exchange {
  std::function<void()> start;
  std::function<bool()> test;    // whether it is done
  std::function<void()> finish;  // then; may be empty
  bool done = false;
};

class ExchangeThread {
 public:
  using Clock = std::chrono::steady_clock;
  using Ticket = std::shared_ptr<Exchange>;

  // How a process waits: for a slower one, as long as it takes, or for a transfer alone.
  enum class Wait { seldom, eagerly };

  struct Limits {
    const std::atomic<bool>* cancel;  // ends the wait while true; null: never
    double seconds;                   // after these it is late; 0: never
    Error late;                       // what is thrown then
  };

  ExchangeThread();
  // Exchanges under way are left as they are.
  ~ExchangeThread();
  ExchangeThread(const ExchangeThread&) = delete;
  ExchangeThread& operator=(const ExchangeThread&) = delete;

  // Runs body on the thread, and throws what it throws.
  void call(const std::function<void()>& body);
  // Exchanges start in the order in which they are begun.
  Ticket begin(Exchange exchange);
  // Until it is done. What an exchange throws, a cancelled wait and a late one end all exchanges:
  // nothing touches their memory any more.
  void wait(const Ticket& ticket, Wait how, const Limits& limits);
  // Ends all exchanges.
  void abandon();
  // Whether nothing has ended them; else what is begun never starts, and waiting for it throws.
  bool whole() const;

 private:
  void serve();
  // Starts what is new, asks after all; returns whether anything has come of it.
  bool advance(std::vector<Ticket>& fresh, std::vector<Ticket>& active);
  void rest(std::unique_lock<std::mutex>& lock);
  void fail(std::unique_lock<std::mutex>& lock, const Error& error);

  mutable std::mutex mutex_;
  std::condition_variable wake_, news_;
  std::deque<std::packaged_task<void()>> calls_;
  std::vector<Ticket> begun_;
  std::optional<Error> failure_;
  std::optional<Clock::time_point> awaited_;  // since when somebody waits
  Wait how_ = Wait::seldom;
  bool idle_ = false, stop_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace panns::parallel
