#include "parallel/exchange_thread.h"

#include <algorithm>
#include <utility>

namespace panns::parallel {
namespace {

// A process that waits for a slower one looks at once for this long, then ever more seldom, at most
// a thousand times a second.
constexpr auto kEagerly = std::chrono::microseconds(200);
constexpr auto kSeldom = std::chrono::milliseconds(1);

// While nobody waits the cores are for the computing. A look takes some microseconds, and Open MPI
// moves up to a MiB at each between processes of one machine.
constexpr auto kAside = std::chrono::microseconds(100);

// How soon a cancelled wait ends; flags do not wake anybody.
constexpr auto kCancelled = std::chrono::milliseconds(10);

}  // namespace

ExchangeThread::ExchangeThread() : thread_([this] { serve(); }) {}

ExchangeThread::~ExchangeThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void ExchangeThread::call(const std::function<void()>& body) {
  std::packaged_task<void()> task(body);
  auto done = task.get_future();
  {
    const std::lock_guard lock(mutex_);
    calls_.push_back(std::move(task));
  }
  wake_.notify_one();
  done.get();
}

ExchangeThread::Ticket ExchangeThread::begin(Exchange exchange) {
  auto ticket = std::make_shared<Exchange>(std::move(exchange));
  {
    const std::lock_guard lock(mutex_);
    begun_.push_back(ticket);
  }
  wake_.notify_one();
  return ticket;
}

void ExchangeThread::wait(const Ticket& ticket, Wait how, const Limits& limits) {
  std::unique_lock lock(mutex_);
  const auto began = Clock::now();
  awaited_ = began;
  how_ = how;
  wake_.notify_one();
  while (!ticket->done && !failure_.has_value()) {
    news_.wait_for(lock, kCancelled);
    const std::chrono::duration<double> waited = Clock::now() - began;
    if (ticket->done) break;
    if (limits.cancel != nullptr && limits.cancel->load(std::memory_order_relaxed)) {
      fail(lock, Error("ABORT_ERR", "", "the operation was aborted"));
    } else if (limits.seconds > 0 && waited.count() > limits.seconds) {
      fail(lock, limits.late);
    }
  }
  awaited_.reset();
  if (!ticket->done) throw *failure_;
}

void ExchangeThread::abandon() {
  std::unique_lock lock(mutex_);
  fail(lock, Error("ERR_PANNS_PARALLEL", "", "this process has given up the others"));
}

bool ExchangeThread::whole() const {
  const std::lock_guard lock(mutex_);
  return !failure_.has_value();
}

void ExchangeThread::fail(std::unique_lock<std::mutex>& lock, const Error& error) {
  if (!failure_.has_value()) failure_ = error;
  idle_ = false;
  wake_.notify_one();
  news_.wait(lock, [&] { return idle_; });
}

void ExchangeThread::serve() {
  std::vector<Ticket> active;
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (failure_.has_value()) {
      active.clear();
      begun_.clear();
    }
    if (!calls_.empty()) {
      auto task = std::move(calls_.front());
      calls_.pop_front();
      lock.unlock();
      task();
      lock.lock();
      continue;
    }
    if (active.empty() && begun_.empty()) {
      idle_ = true;
      news_.notify_all();
      wake_.wait(lock);
      continue;
    }
    auto fresh = std::exchange(begun_, {});
    lock.unlock();
    bool news = false;
    std::optional<Error> failure;
    try {
      news = advance(fresh, active);
    } catch (const Error& e) {
      failure = e;
    }
    lock.lock();
    if (failure.has_value() && !failure_.has_value()) failure_ = failure;
    for (const Ticket& t : active) t->done = !t->test;
    std::erase_if(active, [](const Ticket& t) { return t->done; });
    if (news || failure.has_value()) {
      news_.notify_all();
    } else {
      rest(lock);
    }
  }
}

bool ExchangeThread::advance(std::vector<Ticket>& fresh, std::vector<Ticket>& active) {
  for (Ticket& t : fresh) {
    t->start();
    active.push_back(std::move(t));
  }
  bool news = false;
  for (const Ticket& t : active) {
    if (!t->test()) continue;
    if (t->finish) t->finish();
    t->test = nullptr;
    news = true;
  }
  return news;
}

void ExchangeThread::rest(std::unique_lock<std::mutex>& lock) {
  if (!awaited_.has_value()) {
    wake_.wait_for(lock, kAside);
    return;
  }
  const auto waited = Clock::now() - *awaited_;
  if (how_ == Wait::eagerly || waited < kEagerly) {
    lock.unlock();
    std::this_thread::yield();
    lock.lock();
  } else {
    wake_.wait_for(lock, std::min<Clock::duration>(waited / 4, kSeldom));
  }
}

}  // namespace panns::parallel
