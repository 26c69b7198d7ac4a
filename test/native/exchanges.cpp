// ExchangeThread: exchanges start in order, go on beside the caller, end in any order; a wait that
// is late, cancelled or failed ends all of them, and nothing touches their memory any more.
#include <algorithm>
#include <string>

#include "parallel/exchange_thread.h"
#include "tap.h"

using namespace panns;
using namespace panns::parallel;

namespace {

using Wait = ExchangeThread::Wait;
using Clock = ExchangeThread::Clock;

const Error kLate("ERR_PANNS_PARALLEL", "process 0", "too late");

std::string code_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.code();
  }
  return "";
}

ExchangeThread::Limits patient(const std::atomic<bool>* cancel = nullptr) {
  return {cancel, 60, kLate};
}

// An exchange that is done once `open` is.
Exchange gate(const std::atomic<bool>& open, std::function<void()> finish = nullptr) {
  return {[] {}, [&] { return open.load(); }, std::move(finish)};
}

void test_order() {
  ExchangeThread thread;
  std::vector<int> started, finished;  // written by the thread alone, read after waits
  std::atomic<bool> open[8] = {};
  std::vector<ExchangeThread::Ticket> tickets;
  for (int i = 0; i < 8; ++i) {
    Exchange e = gate(open[i], [&, i] { finished.push_back(i); });
    e.start = [&, i] { started.push_back(i); };
    tickets.push_back(thread.begin(std::move(e)));
  }
  for (const int i : {5, 2}) {
    open[i] = true;
    thread.wait(tickets[static_cast<size_t>(i)], Wait::eagerly, patient());
  }
  for (auto& o : open) o = true;
  for (const auto& t : tickets) thread.wait(t, Wait::seldom, patient());
  bool in_order = started.size() == 8;
  for (int i = 0; in_order && i < 8; ++i) in_order = started[static_cast<size_t>(i)] == i;
  tap::ok(in_order, "all start in the order in which they were begun");
  tap::ok(finished.size() == 8 && finished[0] == 5 && finished[1] == 2, "and end in any");
  bool once = true;
  for (int i = 0; i < 8; ++i) once = once && std::count(finished.begin(), finished.end(), i) == 1;
  tap::ok(once, "each is finished once");
}

void test_beside() {
  ExchangeThread thread;
  std::atomic<int> looks{0};
  const auto ticket = thread.begin({[] {}, [&] { return ++looks >= 20; }, nullptr});
  // Nobody waits: it comes to its end all the same.
  const auto began = Clock::now();
  while (looks < 20 && Clock::now() - began < std::chrono::seconds(30)) std::this_thread::yield();
  tap::ok(looks == 20, "an exchange goes on while nobody waits");
  thread.wait(ticket, Wait::seldom, patient());
  tap::ok(looks == 20, "and is not asked after once it is done");
}

void test_call() {
  ExchangeThread thread;
  std::thread::id first, second;
  thread.call([&] { first = std::this_thread::get_id(); });
  thread.call([&] { second = std::this_thread::get_id(); });
  tap::ok(first == second && first != std::this_thread::get_id(), "calls run on the one thread");
  tap::ok(code_of([&] { thread.call([] { throw Error("ERR_PANNS_DATA", "", "x"); }); }) ==
              "ERR_PANNS_DATA",
          "and what they throw comes back");
}

// How a wait ends that the others never answer, and what is left of the exchanges.
void test_failures() {
  struct Case {
    const char* name;
    const char* code;
    std::function<void(ExchangeThread&, ExchangeThread::Ticket)> wait;
  };
  std::atomic<bool> cancel{false}, broken{false};
  const Case cases[] = {
      {"late", "ERR_PANNS_PARALLEL",
       [](ExchangeThread& t, auto ticket) {
         t.wait(ticket, Wait::seldom, {nullptr, 0.05, kLate});
       }},
      {"cancelled", "ABORT_ERR",
       [&](ExchangeThread& t, auto ticket) {
         cancel = true;
         t.wait(ticket, Wait::seldom, patient(&cancel));
       }},
      {"failed", "ERR_PANNS_DEVICE",
       [&](ExchangeThread& t, auto ticket) {
         broken = true;
         t.wait(ticket, Wait::eagerly, patient());
       }},
      {"abandoned", "ERR_PANNS_PARALLEL",
       [](ExchangeThread& t, auto ticket) {
         t.abandon();
         t.wait(ticket, Wait::eagerly, patient());
       }},
  };
  for (const Case& c : cases) {
    ExchangeThread thread;
    broken = false;
    std::atomic<int> looks{0};
    const auto ticket = thread.begin({[] {},
                                      [&] {
                                        ++looks;
                                        PANNS_CHECK(!broken, "ERR_PANNS_DEVICE", "", "broken");
                                        return false;
                                      },
                                      nullptr});
    while (looks == 0) std::this_thread::yield();
    tap::ok(code_of([&] { c.wait(thread, ticket); }) == c.code, cat(c.name, ": the wait ends"));
    tap::ok(!thread.whole(), cat(c.name, ": the others are lost"));
    thread.abandon();
    const int then = looks;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    tap::ok(looks == then, cat(c.name, ": nothing is asked any more"));
    bool started = false;
    const auto later = thread.begin({[&] { started = true; }, [] { return true; }, nullptr});
    tap::ok(!code_of([&] { thread.wait(later, Wait::seldom, patient()); }).empty() && !started,
            cat(c.name, ": a later exchange never starts"));
  }
}

}  // namespace

int main() {
  test_order();
  test_beside();
  test_call();
  test_failures();
  return tap::done();
}
