#include "backends/cuda/nccl.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "backends/cuda/check.h"
#include "backends/cuda/dyload.h"
#include "backends/cuda/memory.h"
#include "backends/cuda/nccl_abi.h"
#include "backends/cuda/stream.h"

namespace panns::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// Of device memory through which the host's numbers and messages go.
constexpr size_t kStageBytes = 1 << 20;

// How often a wait looks after the device: at once for so long, then at most a thousand times a
// second.
constexpr auto kEagerly = std::chrono::microseconds(200);
constexpr auto kSeldom = std::chrono::milliseconds(1);

// How soon a cancelled wait for the others to join ends.
constexpr auto kCancelled = std::chrono::milliseconds(10);

struct Nccl {
  Library library;
  int version = 0;  // 22803 for 2.28.3
  nccl::GetUniqueId get_unique_id = nullptr;
  nccl::CommInitRank comm_init_rank = nullptr;
  nccl::CommFinalize comm_finalize = nullptr;
  nccl::CommDestroy comm_destroy = nullptr;
  nccl::CommAbort comm_abort = nullptr;
  nccl::CommGetAsyncError comm_get_async_error = nullptr;
  nccl::GetErrorString get_error_string = nullptr;
  nccl::GetLastError get_last_error = nullptr;
  nccl::AllReduce all_reduce = nullptr;
  nccl::Broadcast broadcast = nullptr;
};

template <typename Function>
void bind(const Library& library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(library.function(name));
  PANNS_CHECK(function != nullptr, "ERR_PANNS_PARALLEL", library.path,
              "expected NCCL 2.14 or newer; it has no function ", name);
}

// Opened at the first call and kept; the engine's thread alone comes here.
const Nccl& nccl_library() {
  static Nccl* kept = nullptr;
  if (kept != nullptr) return *kept;
  auto n = std::make_unique<Nccl>();
  n->library = open_library("libnccl.so.2");
  PANNS_CHECK(n->library.loaded(), "ERR_PANNS_PARALLEL", "NCCL",
              "libnccl.so.2 was not found (pip install --no-deps nvidia-nccl-cu13, or name its "
              "folder in PANNS_CUDA_LIB_DIRS). Tried:",
              attempts_text(n->library.attempts));
  nccl::GetVersion get_version = nullptr;
  bind(n->library, "ncclGetVersion", get_version);
  bind(n->library, "ncclGetUniqueId", n->get_unique_id);
  bind(n->library, "ncclCommInitRank", n->comm_init_rank);
  bind(n->library, "ncclCommFinalize", n->comm_finalize);
  bind(n->library, "ncclCommDestroy", n->comm_destroy);
  bind(n->library, "ncclCommAbort", n->comm_abort);
  bind(n->library, "ncclCommGetAsyncError", n->comm_get_async_error);
  bind(n->library, "ncclGetErrorString", n->get_error_string);
  bind(n->library, "ncclGetLastError", n->get_last_error);
  bind(n->library, "ncclAllReduce", n->all_reduce);
  bind(n->library, "ncclBroadcast", n->broadcast);
  get_version(&n->version);
  kept = n.release();
  return *kept;
}

class NcclCollective final : public backends::Collective {
 public:
  explicit NcclCollective(const backends::NcclOptions& options)
      : nccl_(nccl_library()),
        rank_(options.rank),
        size_(options.size),
        ordinal_(options.index),
        timeout_(options.timeout_seconds) {
    nccl::UniqueId id;
    PANNS_CHECK(options.id.size() == sizeof(id), "ERR_PANNS_PARALLEL", "NCCL",
                "expected the first process's identifier of ", sizeof(id), " bytes, got ",
                options.id.size());
    std::memcpy(&id, options.id.data(), sizeof(id));
    PANNS_CUDA(cudaSetDevice(ordinal_));
    control_ = std::make_unique<CudaStream>(ordinal_);
    beside_ = std::make_unique<CudaStream>(ordinal_);
    stage_ = allocate_device_memory(ordinal_, kStageBytes);
    join(id);
  }
  // In agreement it has been left; else the others may hang, and this does not wait for them.
  ~NcclCollective() override { drop(); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string device() const override { return "cuda"; }
  std::string engine() const override {
    const int v = nccl_.version;
    return cat("NCCL ", v / 10000, ".", v / 100 % 100, ".", v % 100, " (", nccl_.library.path, ")");
  }

  void set_cancel(const std::atomic<bool>* flag) override { cancel_ = flag; }

  void sum(double* values, int64_t count) override {
    constexpr auto kMost = static_cast<int64_t>(kStageBytes / sizeof(double));
    for (; count > 0; values += kMost, count -= kMost) {
      const auto piece = static_cast<size_t>(std::min(count, kMost));
      staged(values, piece * sizeof(double), [&](void* at) {
        check(nccl_.all_reduce(at, at, piece, nccl::kFloat64, nccl::kSum, comm_, control_->raw()),
              "ncclAllReduce");
      });
    }
  }

  void broadcast(void* bytes, int64_t count, int root) override {
    auto* at = static_cast<std::byte*>(bytes);
    constexpr auto kMost = static_cast<int64_t>(kStageBytes);
    for (; count > 0; at += kMost, count -= kMost) {
      const auto piece = static_cast<size_t>(std::min(count, kMost));
      staged(at, piece, [&](void* stage) {
        check(nccl_.broadcast(stage, stage, piece, nccl::kUint8, root, comm_, control_->raw()),
              "ncclBroadcast");
      });
    }
  }

  void share(backends::Stream& stream, void* bytes, int64_t count) override {
    check_whole();
    const cudaStream_t raw = cuda_stream(stream).raw();
    check(nccl_.broadcast(bytes, bytes, static_cast<size_t>(count), nccl::kUint8, 0, comm_, raw),
          "ncclBroadcast");
    wait(raw);
  }

  void sum(backends::Stream& stream, double* values, int64_t count) override {
    reduce(stream, values, count, nccl::kFloat64, nccl::kSum);
    end_averages(stream);
  }

  void begin_average(backends::Stream& stream, float* values, int64_t count) override {
    reduce(stream, values, count, nccl::kFloat32, nccl::kAvg);
  }

  void end_averages(backends::Stream& stream) override {
    cuda_stream(stream).wait(*beside_->record());
  }

  void wait(backends::Stream& stream) override { wait(cuda_stream(stream).raw()); }

  std::shared_ptr<void> before_end(std::function<void()> drop) override {
    auto kept = std::make_shared<std::function<void()>>(std::move(drop));
    before_end_.push_back(kept);
    return kept;
  }

  void abandon() override { drop(); }

  void leave() override {
    if (comm_ == nullptr) return;
    drop_captured();
    check(nccl_.comm_finalize(comm_), "ncclCommFinalize");
    check(nccl_.comm_destroy(std::exchange(comm_, nullptr)), "ncclCommDestroy");
  }

 private:
  // On the stream beside, after the given one's work so far: where that is being captured this is
  // a branch of it, which end_averages joins.
  void reduce(backends::Stream& stream, void* values, int64_t count, int type, int operation) {
    check_whole();
    beside_->wait(*cuda_stream(stream).record());
    const int status = nccl_.all_reduce(values, values, static_cast<size_t>(count), type, operation,
                                        comm_, beside_->raw());
    // The open capture, too, holds work that the end of NCCL would wait for.
    if (status != nccl::kSuccess) cuda_stream(stream).drop_capture();
    check(status, "ncclAllReduce");
  }

  // The host's bytes to the device, the work there, and back.
  template <typename Work>
  void staged(void* bytes, size_t count, Work&& work) {
    check_whole();
    control_->upload(stage_->data(), bytes, count);
    work(stage_->data());
    wait(control_->raw());
    control_->download(bytes, stage_->data(), count);
    control_->synchronize();
  }

  // Until the stream's work is done: a process that has ended shows as an error or as no end.
  void wait(cudaStream_t stream) {
    const auto began = Clock::now();
    for (;;) {
      const cudaError_t status = cudaStreamQuery(stream);
      if (status == cudaSuccess) return;
      if (status != cudaErrorNotReady) PANNS_CUDA(status);
      int failure = nccl::kSuccess;
      check(nccl_.comm_get_async_error(comm_, &failure), "ncclCommGetAsyncError");
      if (failure != nccl::kInProgress) check(failure, "a collective");
      const auto waited = Clock::now() - began;
      check_time(waited);
      if (waited < kEagerly) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::min<Clock::duration>(waited / 4, kSeldom));
      }
    }
  }

  // Joins on a thread of its own: NCCL's call ends when all have come, and not before. One that is
  // not waited for any longer is left behind, and ends with the process.
  void join(const nccl::UniqueId& id) {
    struct Joining {
      std::mutex mutex;
      std::condition_variable news;
      bool done = false, unwanted = false;
      cudaError_t device = cudaSuccess;
      int status = nccl::kSuccess;
      std::string detail;
      nccl::Comm comm = nullptr;
    };
    const auto joining = std::make_shared<Joining>();
    std::thread([=, &library = nccl_, size = size_, rank = rank_, ordinal = ordinal_] {
      nccl::Comm comm = nullptr;
      int status = nccl::kSuccess;
      const cudaError_t device = cudaSetDevice(ordinal);
      if (device == cudaSuccess) status = library.comm_init_rank(&comm, size, id, rank);
      // The words are those of the thread's last failure.
      const char* words = library.get_last_error(nullptr);
      const std::lock_guard lock(joining->mutex);
      joining->device = device;
      joining->status = status;
      joining->detail = words != nullptr ? words : "";
      joining->comm = comm;
      joining->done = true;
      if (joining->unwanted && comm != nullptr) library.comm_abort(comm);
      joining->news.notify_one();
    }).detach();
    const auto began = Clock::now();
    std::unique_lock lock(joining->mutex);
    while (!joining->done) {
      joining->news.wait_for(lock, kCancelled);
      if (joining->done) break;
      joining->unwanted = true;
      check_time(Clock::now() - began);
      joining->unwanted = false;
    }
    PANNS_CUDA(joining->device);
    PANNS_CHECK(joining->status == nccl::kSuccess, "ERR_PANNS_PARALLEL", cat("process ", rank_),
                "ncclCommInitRank failed: ", nccl_.get_error_string(joining->status),
                joining->detail.empty() ? "" : ", ", joining->detail, "; ", engine());
    comm_ = joining->comm;
  }

  // Throws once a wait has been cancelled, or has taken too long.
  void check_time(Clock::duration waited) {
    if (cancel_ != nullptr && cancel_->load(std::memory_order_relaxed)) {
      drop();
      throw Error("ABORT_ERR", "", "the operation was aborted");
    }
    if (timeout_ > 0 && std::chrono::duration<double>(waited).count() > timeout_) {
      drop();
      throw Error("ERR_PANNS_PARALLEL", cat("process ", rank_),
                  cat("waited ", timeout_, " s for the others of ", size_,
                      " processes: one has ended, hangs, or takes longer than that"));
    }
  }

  void check_whole() const {
    PANNS_CHECK(comm_ != nullptr, "ERR_PANNS_PARALLEL", cat("process ", rank_),
                "an earlier exchange with the other processes has failed");
  }

  void check(int status, const char* call) {
    if (status == nccl::kSuccess) return;
    const char* detail = nccl_.get_last_error(comm_);
    const std::string text = cat(call, " failed: ", nccl_.get_error_string(status),
                                 detail != nullptr ? ", " : "", detail != nullptr ? detail : "");
    drop();
    throw Error("ERR_PANNS_PARALLEL", cat("process ", rank_), cat(text, "; ", engine()));
  }

  // Ends what waits on the device for the others, too.
  void drop() {
    if (comm_ == nullptr) return;
    drop_captured();
    nccl_.comm_abort(std::exchange(comm_, nullptr));
  }

  // NCCL ends, and is aborted, only when no graph holds work of its own any more: it waits for that
  // without end.
  void drop_captured() {
    for (const auto& kept : std::exchange(before_end_, {})) {
      if (const auto drop = kept.lock()) (*drop)();
    }
  }

  const Nccl& nccl_;
  int rank_, size_, ordinal_;
  double timeout_;
  const std::atomic<bool>* cancel_ = nullptr;
  std::unique_ptr<CudaStream> control_, beside_;
  std::unique_ptr<backends::Memory> stage_;
  nccl::Comm comm_ = nullptr;
  std::vector<std::weak_ptr<std::function<void()>>> before_end_;
};

}  // namespace

std::string nccl_id(bool make) {
  const Nccl& n = nccl_library();
  if (!make) return "";
  nccl::UniqueId id;
  const int status = n.get_unique_id(&id);
  PANNS_CHECK(status == nccl::kSuccess, "ERR_PANNS_PARALLEL", "NCCL",
              "ncclGetUniqueId failed: ", n.get_error_string(status));
  return std::string(id.internal, sizeof(id.internal));
}

std::unique_ptr<backends::Collective> join_processes(const backends::NcclOptions& options) {
  return std::make_unique<NcclCollective>(options);
}

}  // namespace panns::cuda
