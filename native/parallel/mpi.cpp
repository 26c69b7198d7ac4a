#include "parallel/mpi.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/error.h"
#include "parallel/mpi_abi.h"

namespace panns::parallel {
namespace {

using Clock = std::chrono::steady_clock;

// MPI counts in int; pieces of a GiB keep clear of its end.
constexpr int64_t kMostFloats = int64_t{1} << 28;
constexpr int64_t kMostBytes = int64_t{1} << 30;

// A process that waits for a slower one looks at once for this long, then ever more seldom, at most
// a thousand times a second.
constexpr auto kEagerly = std::chrono::microseconds(200);
constexpr auto kSeldom = std::chrono::milliseconds(1);

// What MPI is to this process: it can be begun once, and by one thread.
enum class Life { unused, begun, ended };
std::atomic<Life> life{Life::unused};

// Handles are addresses in one interface and ints in the other; requests are handles.
template <typename Handle>
struct Mpi {
  Handle world, float32, float64, byte, plus, errors_return;
  void *in_place, *status_ignore;

  int (*init_thread)(int*, char***, int, int*);
  int (*finalize)();
  int (*comm_rank)(Handle, int*);
  int (*comm_size)(Handle, int*);
  int (*comm_set_errhandler)(Handle, Handle);
  int (*error_string)(int, char*, int*);
  int (*get_library_version)(char*, int*);
  int (*iallreduce)(const void*, void*, int, Handle, Handle, Handle, Handle*);
  int (*ibcast)(void*, int, Handle, int, Handle, Handle*);
  int (*test)(Handle*, int*, void*);

  // Throws naming the function that the library lacks.
  void bind(void* library, const std::string& path) {
    const auto find = [&](const char* name, auto& function) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      PANNS_CHECK(function != nullptr, "ERR_PANNS_PARALLEL", path,
                  "expected MPI 3.0 or newer; it has no function ", name);
    };
    find("MPI_Init_thread", init_thread);
    find("MPI_Finalize", finalize);
    find("MPI_Comm_rank", comm_rank);
    find("MPI_Comm_size", comm_size);
    find("MPI_Comm_set_errhandler", comm_set_errhandler);
    find("MPI_Error_string", error_string);
    find("MPI_Get_library_version", get_library_version);
    find("MPI_Iallreduce", iallreduce);
    find("MPI_Ibcast", ibcast);
    find("MPI_Test", test);
  }
};

Mpi<void*> open_mpi_interface(void* library) {
  const auto object = [&](const char* name) { return dlsym(library, name); };
  Mpi<void*> mpi{};
  mpi.world = object(PANNS_OMPI_COMM_WORLD);
  mpi.float32 = object(PANNS_OMPI_FLOAT);
  mpi.float64 = object(PANNS_OMPI_DOUBLE);
  mpi.byte = object(PANNS_OMPI_BYTE);
  mpi.plus = object(PANNS_OMPI_SUM);
  mpi.errors_return = object(PANNS_OMPI_ERRORS_RETURN);
  mpi.in_place = PANNS_OMPI_IN_PLACE;
  mpi.status_ignore = PANNS_OMPI_STATUS_IGNORE;
  return mpi;
}

Mpi<int> mpich_interface() {
  Mpi<int> mpi{};
  mpi.world = PANNS_MPICH_COMM_WORLD;
  mpi.float32 = PANNS_MPICH_FLOAT;
  mpi.float64 = PANNS_MPICH_DOUBLE;
  mpi.byte = PANNS_MPICH_BYTE;
  mpi.plus = PANNS_MPICH_SUM;
  mpi.errors_return = PANNS_MPICH_ERRORS_RETURN;
  mpi.in_place = PANNS_MPICH_IN_PLACE;
  mpi.status_ignore = PANNS_MPICH_STATUS_IGNORE;
  return mpi;
}

template <typename Handle>
class MpiCollective final : public backends::Collective {
 public:
  MpiCollective(Mpi<Handle> mpi, void* library, const std::string& path, const MpiOptions& options)
      : mpi_(mpi), timeout_(options.timeout_seconds) {
    mpi_.bind(library, path);
    int level = 0, length = 0;
    // Only this thread calls MPI, though the process has others.
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
    PANNS_CHECK(options.expected_size == 0 || size_ == options.expected_size, "ERR_PANNS_PARALLEL",
                path, "expected ", options.expected_size, " processes, as the launcher says, got ",
                size_, ": this MPI is not the launcher's; PANNS_MPI_LIBRARY names its libmpi.so");
    verify(path);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string device() const override { return "cpu"; }
  std::string engine() const override { return engine_; }

  void sum(double* values, int64_t count, Cancel cancel) override {
    reduce(values, static_cast<int>(count), mpi_.float64, Patience::seldom, cancel);
  }

  void broadcast(void* bytes, int64_t count, int root, Cancel cancel) override {
    check_whole();
    auto* at = static_cast<std::byte*>(bytes);
    for (; count > 0; at += kMostBytes, count -= kMostBytes) {
      Handle request;
      check(mpi_.ibcast(at, static_cast<int>(std::min(count, kMostBytes)), mpi_.byte, root,
                        mpi_.world, &request),
            "MPI_Ibcast");
      wait(request, Patience::none, cancel);
    }
  }

  void average(backends::Stream& stream, float* values, int64_t count, Cancel cancel) override {
    stream.synchronize();
    const float share = 1.0f / static_cast<float>(size_);
    for (; count > 0; values += kMostFloats, count -= kMostFloats) {
      const int64_t piece = std::min(count, kMostFloats);
      reduce(values, static_cast<int>(piece), mpi_.float32, Patience::none, cancel);
      for (int64_t i = 0; i < piece; ++i) values[i] *= share;
    }
  }

  void share(backends::Stream& stream, void* bytes, int64_t count, Cancel cancel) override {
    stream.synchronize();
    broadcast(bytes, count, 0, cancel);
  }

  void leave() override {
    if (life.exchange(Life::ended) != Life::begun || broken_) return;
    check(mpi_.finalize(), "MPI_Finalize");
  }

 private:
  // Whether a wait is for a slower process or for the transfer alone, which advances only where it
  // is asked after.
  enum class Patience { none, seldom };

  void check_whole() const {
    PANNS_CHECK(!broken_, "ERR_PANNS_PARALLEL", cat("process ", rank_),
                "an earlier exchange with the other processes has failed");
  }

  void reduce(void* values, int count, Handle type, Patience patience, Cancel cancel) {
    check_whole();
    Handle request;
    check(mpi_.iallreduce(mpi_.in_place, values, count, type, mpi_.plus, mpi_.world, &request),
          "MPI_Iallreduce");
    wait(request, patience, cancel);
  }

  void wait(Handle& request, Patience patience, Cancel cancel) {
    const auto began = Clock::now();
    for (;;) {
      int done = 0;
      check(mpi_.test(&request, &done, mpi_.status_ignore), "MPI_Test");
      if (done != 0) return;
      const auto waited = Clock::now() - began;
      if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
        broken_ = true;
        throw Error("ABORT_ERR", "", "the operation was aborted");
      }
      if (timeout_ > 0 && std::chrono::duration<double>(waited).count() > timeout_) {
        broken_ = true;
        throw Error("ERR_PANNS_PARALLEL", cat("process ", rank_),
                    cat("waited ", timeout_, " s for the others of ", size_,
                        " processes: one has ended, hangs, or takes longer than that"));
      }
      if (patience == Patience::none || waited < kEagerly) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::min<Clock::duration>(waited / 4, kSeldom));
      }
    }
  }

  void check(int status, const char* call) {
    if (status == PANNS_MPI_SUCCESS) return;
    broken_ = true;
    std::string text(PANNS_MPI_MOST_TEXT, '\0');
    int length = 0;
    mpi_.error_string(status, text.data(), &length);
    text.resize(static_cast<size_t>(length));
    throw Error("ERR_PANNS_PARALLEL", cat("process ", rank_),
                cat(call, " failed: ", text, "; ", engine_));
  }

  // The constants are right when sums of both types are.
  void verify(const std::string& path) {
    double counts[2] = {1, static_cast<double>(rank_)};
    float third = 1.0f / 3;
    reduce(counts, 2, mpi_.float64, Patience::seldom, nullptr);
    reduce(&third, 1, mpi_.float32, Patience::none, nullptr);
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
  bool broken_ = false;
};

}  // namespace

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
