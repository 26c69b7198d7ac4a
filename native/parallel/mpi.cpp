#include "parallel/mpi.h"

#include <algorithm>
#include <cstdlib>

#include "core/error.h"
#include "parallel/exchange_thread.h"
#include "parallel/mpi_interface.h"

namespace panns::parallel {
namespace {

// MPI counts in int; pieces of a GiB keep clear of its end.
constexpr int64_t kMostFloats = int64_t{1} << 28;
constexpr int64_t kMostBytes = int64_t{1} << 30;

// What MPI is to this process: it can be begun once, and by one thread.
enum class Life { unused, begun, ended };
std::atomic<Life> life{Life::unused};

template <typename Handle>
class MpiCollective final : public backends::Collective {
 public:
  MpiCollective(Mpi<Handle> mpi, void* library, const std::string& path, const MpiOptions& options)
      : mpi_(mpi), timeout_(options.timeout_seconds) {
    mpi_.bind(library, path);
    thread_.call([&] { begin(path); });
    PANNS_CHECK(options.expected_size == 0 || size_ == options.expected_size, "ERR_PANNS_PARALLEL",
                path, "expected ", options.expected_size, " processes, as the launcher says, got ",
                size_, ": this MPI is not the launcher's; PANNS_MPI_LIBRARY names its libmpi.so");
    verify(path);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string device() const override { return "cpu"; }
  std::string engine() const override { return engine_; }
  void set_cancel(const std::atomic<bool>* flag) override { cancel_ = flag; }

  void sum(double* values, int64_t count) override {
    wait(reduce(values, count, mpi_.float64, nullptr), Wait::seldom);
  }

  void broadcast(void* bytes, int64_t count, int root) override {
    auto* at = static_cast<std::byte*>(bytes);
    for (; count > 0; at += kMostBytes, count -= kMostBytes) {
      const auto piece = static_cast<int>(std::min(count, kMostBytes));
      wait(exchange(
               "MPI_Ibcast",
               [=, this](Handle* request) {
                 return mpi_.ibcast(at, piece, mpi_.byte, root, mpi_.world, request);
               },
               nullptr),
           Wait::eagerly);
    }
  }

  void share(backends::Stream& stream, void* bytes, int64_t count) override {
    stream.synchronize();
    broadcast(bytes, count, 0);
  }

  void sum(backends::Stream& stream, double* values, int64_t count) override {
    stream.synchronize();
    sum(values, count);
  }

  void begin_average(backends::Stream& stream, float* values, int64_t count) override {
    stream.synchronize();
    const float share = 1.0f / static_cast<float>(size_);
    for (; count > 0; values += kMostFloats, count -= kMostFloats) {
      const int64_t piece = std::min(count, kMostFloats);
      averages_.push_back(reduce(values, piece, mpi_.float32, [=] {
        for (int64_t i = 0; i < piece; ++i) values[i] *= share;
      }));
    }
  }

  void end_averages(backends::Stream&) override {
    for (const auto& average : std::exchange(averages_, {})) wait(average, Wait::eagerly);
  }

  void wait(backends::Stream& stream) override { stream.synchronize(); }

  void abandon() override {
    averages_.clear();
    thread_.abandon();
  }

  void leave() override {
    if (life.exchange(Life::ended) != Life::begun || !thread_.whole()) return;
    thread_.call([this] { check(mpi_.finalize(), "MPI_Finalize"); });
  }

 private:
  using Wait = ExchangeThread::Wait;
  using Ticket = ExchangeThread::Ticket;

  // On the thread, as all calls of MPI. It alone makes them, though the process has other threads.
  void begin(const std::string& path) {
    int level = 0, length = 0;
    PANNS_CHECK(
        mpi_.init_thread(nullptr, nullptr, PANNS_MPI_THREAD_FUNNELED, &level) == PANNS_MPI_SUCCESS,
        "ERR_PANNS_PARALLEL", path, "MPI_Init_thread failed");
    // Errors come back as codes instead of ending the process.
    mpi_.comm_set_errhandler(mpi_.world, mpi_.errors_return);
    std::string version(PANNS_MPI_MOST_TEXT, '\0');
    mpi_.get_library_version(version.data(), &length);
    version.resize(std::min(version.find('\n'), static_cast<size_t>(length)));
    engine_ = cat(version.substr(0, version.find(',')), " (", path, ")");
    check(mpi_.comm_rank(mpi_.world, &rank_), "MPI_Comm_rank");
    check(mpi_.comm_size(mpi_.world, &size_), "MPI_Comm_size");
  }

  // Sums over all processes in place; finish follows.
  Ticket reduce(void* values, int64_t count, Handle type, std::function<void()> finish) {
    const auto call = [=, this](Handle* request) {
      return mpi_.iallreduce(mpi_.in_place, values, static_cast<int>(count), type, mpi_.plus,
                             mpi_.world, request);
    };
    return exchange("MPI_Iallreduce", call, std::move(finish));
  }

  template <typename Call>
  Ticket exchange(const char* name, Call call, std::function<void()> finish) {
    PANNS_CHECK(thread_.whole(), "ERR_PANNS_PARALLEL", cat("process ", rank_),
                "an earlier exchange with the other processes has failed");
    const auto request = std::make_shared<Handle>();
    Exchange exchange;
    exchange.start = [=, this] { check(call(request.get()), name); };
    exchange.test = [=, this] {
      int done = 0;
      check(mpi_.test(request.get(), &done, mpi_.status_ignore), "MPI_Test");
      return done != 0;
    };
    exchange.finish = std::move(finish);
    return thread_.begin(std::move(exchange));
  }

  void wait(const Ticket& ticket, Wait how) {
    const Error late("ERR_PANNS_PARALLEL", cat("process ", rank_),
                     cat("waited ", timeout_, " s for the others of ", size_,
                         " processes: one has ended, hangs, or takes longer than that"));
    thread_.wait(ticket, how, {cancel_, timeout_, late});
  }

  void check(int status, const char* call) const {
    PANNS_CHECK(status == PANNS_MPI_SUCCESS, "ERR_PANNS_PARALLEL", cat("process ", rank_), call,
                " failed: ", mpi_.text_of(status), "; ", engine_);
  }

  // The constants are right when sums of both types are.
  void verify(const std::string& path) {
    double counts[2] = {1, static_cast<double>(rank_)};
    float third = 1.0f / 3;
    wait(reduce(counts, 2, mpi_.float64, nullptr), Wait::seldom);
    wait(reduce(&third, 1, mpi_.float32, nullptr), Wait::eagerly);
    const bool right = counts[0] == size_ && counts[1] == size_ * (size_ - 1) / 2 &&
                       third > 0.33f * static_cast<float>(size_) &&
                       third < 0.34f * static_cast<float>(size_);
    PANNS_CHECK(
        right, "ERR_PANNS_PARALLEL", path,
        "sums over the processes come out wrong: this MPI has another binary interface than "
        "Open MPI's or MPICH's");
  }

  Mpi<Handle> mpi_;
  double timeout_;
  std::string engine_;
  int rank_ = 0, size_ = 1;
  const std::atomic<bool>* cancel_ = nullptr;
  std::vector<Ticket> averages_;
  ExchangeThread thread_;  // last: it uses the others
};

}  // namespace

void prepare_environment() {
  constexpr int kKeepTheUsers = 0;
  setenv("UCX_MEM_MMAP_HOOK_MODE", "none", kKeepTheUsers);
}

std::unique_ptr<backends::Collective> open_mpi(const MpiOptions& options) {
  std::string tried;
  for (const std::string& path : options.libraries) {
    // Its own plug-ins look for symbols among the global ones.
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) {
      const char* reason = dlerror();
      tried += cat("\n  ", path, ": ", reason != nullptr ? reason : "it does not load");
      continue;
    }
    const Mpi<void*> objects = open_mpi_interface(library);
    const bool ompi = objects.world != nullptr && objects.float32 != nullptr &&
                      objects.float64 != nullptr && objects.byte != nullptr &&
                      objects.plus != nullptr && objects.errors_return != nullptr;
    if (!ompi && dlsym(library, PANNS_MPICH_MARK) == nullptr) {
      tried += cat("\n  ", path, ": neither Open MPI nor MPICH");
      dlclose(library);
      continue;
    }
    Life expected = Life::unused;
    PANNS_CHECK(life.compare_exchange_strong(expected, Life::begun), "ERR_PANNS_BUSY", "MPI",
                expected == Life::begun ? "this process has joined the others already"
                                        : "this process has left the others, and MPI begins once");
    if (ompi) return std::make_unique<MpiCollective<void*>>(objects, library, path, options);
    return std::make_unique<MpiCollective<int>>(mpich_interface(), library, path, options);
  }
  throw Error("ERR_PANNS_PARALLEL", "MPI",
              cat("no MPI library was found; install Open MPI or MPICH, or name its libmpi.so in "
                  "PANNS_MPI_LIBRARY. Tried:",
                  tried));
}

}  // namespace panns::parallel
