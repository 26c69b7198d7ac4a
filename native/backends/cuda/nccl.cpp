#include "backends/cuda/nccl.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

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
    stage_ = allocate_device_memory(ordinal_, kStageBytes);
    check(nccl_.comm_init_rank(&comm_, size_, id, rank_), "ncclCommInitRank");
  }
  ~NcclCollective() override {
    // In agreement it has been left; else the others may hang, and this does not wait for them.
    if (comm_ != nullptr) nccl_.comm_abort(comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string device() const override { return "cuda"; }
  std::string engine() const override {
    const int v = nccl_.version;
    return cat("NCCL ", v / 10000, ".", v / 100 % 100, ".", v % 100, " (", nccl_.library.path, ")");
  }

  void sum(double* values, int64_t count, Cancel cancel) override {
    constexpr auto kMost = static_cast<int64_t>(kStageBytes / sizeof(double));
    for (; count > 0; values += kMost, count -= kMost) {
      const auto piece = static_cast<size_t>(std::min(count, kMost));
      staged(values, piece * sizeof(double), cancel, [&](void* at) {
        check(nccl_.all_reduce(at, at, piece, nccl::kFloat64, nccl::kSum, comm_, control_->raw()),
              "ncclAllReduce");
      });
    }
  }

  void broadcast(void* bytes, int64_t count, int root, Cancel cancel) override {
    auto* at = static_cast<std::byte*>(bytes);
    constexpr auto kMost = static_cast<int64_t>(kStageBytes);
    for (; count > 0; at += kMost, count -= kMost) {
      const auto piece = static_cast<size_t>(std::min(count, kMost));
      staged(at, piece, cancel, [&](void* stage) {
        check(nccl_.broadcast(stage, stage, piece, nccl::kUint8, root, comm_, control_->raw()),
              "ncclBroadcast");
      });
    }
  }

  void average(backends::Stream& stream, float* values, int64_t count, Cancel cancel) override {
    check_whole();
    const cudaStream_t raw = cuda_stream(stream).raw();
    check(nccl_.all_reduce(values, values, static_cast<size_t>(count), nccl::kFloat32, nccl::kAvg,
                           comm_, raw),
          "ncclAllReduce");
    wait(raw, cancel);
  }

  void share(backends::Stream& stream, void* bytes, int64_t count, Cancel cancel) override {
    check_whole();
    const cudaStream_t raw = cuda_stream(stream).raw();
    check(nccl_.broadcast(bytes, bytes, static_cast<size_t>(count), nccl::kUint8, 0, comm_, raw),
          "ncclBroadcast");
    wait(raw, cancel);
  }

  void leave() override {
    if (comm_ == nullptr) return;
    check(nccl_.comm_finalize(comm_), "ncclCommFinalize");
    check(nccl_.comm_destroy(std::exchange(comm_, nullptr)), "ncclCommDestroy");
  }

 private:
  // The host's bytes to the device, the work there, and back.
  template <typename Work>
  void staged(void* bytes, size_t count, Cancel cancel, Work&& work) {
    check_whole();
    control_->upload(stage_->data(), bytes, count);
    work(stage_->data());
    wait(control_->raw(), cancel);
    control_->download(bytes, stage_->data(), count);
    control_->synchronize();
  }

  // Until the stream's work is done: a process that has ended shows as an error or as no end.
  void wait(cudaStream_t stream, Cancel cancel) {
    const auto began = Clock::now();
    for (;;) {
      const cudaError_t status = cudaStreamQuery(stream);
      if (status == cudaSuccess) return;
      if (status != cudaErrorNotReady) PANNS_CUDA(status);
      int failure = nccl::kSuccess;
      check(nccl_.comm_get_async_error(comm_, &failure), "ncclCommGetAsyncError");
      if (failure != nccl::kInProgress) check(failure, "a collective");
      const auto waited = Clock::now() - began;
      if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
        drop();
        throw Error("ABORT_ERR", "", "the operation was aborted");
      }
      if (timeout_ > 0 && std::chrono::duration<double>(waited).count() > timeout_) {
        drop();
        throw Error("ERR_PANNS_PARALLEL", cat("process ", rank_),
                    cat("waited ", timeout_, " s for the others of ", size_,
                        " processes: one has ended, hangs, or takes longer than that"));
      }
      if (waited < kEagerly) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::min<Clock::duration>(waited / 4, kSeldom));
      }
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
    if (comm_ != nullptr) nccl_.comm_abort(std::exchange(comm_, nullptr));
  }

  const Nccl& nccl_;
  int rank_, size_, ordinal_;
  double timeout_;
  std::unique_ptr<CudaStream> control_;
  std::unique_ptr<backends::Memory> stage_;
  nccl::Comm comm_ = nullptr;
};

}  // namespace

std::string nccl_id() {
  const Nccl& n = nccl_library();
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
