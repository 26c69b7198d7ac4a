// libnccl.so.2 without GPUs: the few functions of native/backends/cuda/nccl_abi.h between processes
// of one machine, over memory that they share. A collective is work of its stream, runs when the
// emulated device does, and then waits for the others.
//
//   PANNS_EMULATOR_STRAGGLER=1        the process of that rank never joins
//   PANNS_EMULATOR_RECORDED=1         so many collectives are recorded by captures; others fail
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "backends/cuda/nccl_abi.h"
#include "emulator.h"

namespace nccl = panns::cuda::nccl;

namespace {

constexpr size_t kSlot = 1 << 20;  // bytes of each process that are exchanged at once
constexpr int kMost = 16;          // processes
constexpr int kFailed = 3;         // ncclInternalError
constexpr int kUnusable = 4;       // ncclInvalidArgument
// A process that waits in its stream's work cannot be stopped from outside, as a GPU could.
constexpr auto kPatience = std::chrono::seconds(60);

// In shared memory, and zero at first.
struct Room {
  std::atomic<int> joined, arrived, aborted;
  std::atomic<uint32_t> turn;
  alignas(4096) std::byte slots[kMost][kSlot];
};

}  // namespace

struct panns::cuda::nccl::OpaqueComm {
  Room* room;
  int size, rank;
  // Held by all work that a capture has recorded.
  std::shared_ptr<int> captured = std::make_shared<int>();

  // Until all have come here.
  void meet() const {
    const uint32_t turn = room->turn;
    if (++room->arrived == size) {
      room->arrived = 0;
      ++room->turn;
      return;
    }
    const auto began = std::chrono::steady_clock::now();
    while (room->turn == turn) {
      if (room->aborted > 0) throw std::runtime_error("NCCL: another process has aborted");
      if (std::chrono::steady_clock::now() - began > kPatience) {
        throw std::runtime_error("NCCL: the others do not come");
      }
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
};

namespace {

template <typename T>
void reduce(const nccl::OpaqueComm& c, T* values, size_t count, double share) {
  constexpr size_t kPiece = kSlot / sizeof(T);
  for (; count > 0; values += std::min(count, kPiece), count -= std::min(count, kPiece)) {
    const size_t piece = std::min(count, kPiece);
    std::memcpy(c.room->slots[c.rank], values, piece * sizeof(T));
    c.meet();
    for (size_t i = 0; i < piece; ++i) {
      double sum = 0;
      for (int r = 0; r < c.size; ++r) sum += reinterpret_cast<const T*>(c.room->slots[r])[i];
      values[i] = static_cast<T>(sum * share);
    }
    c.meet();
  }
}

int submit(const void* in, void* out, size_t bytes, nccl::Comm comm, cudaStream_t stream,
           std::function<void()> work) {
  if (comm == nullptr || in != out) return kUnusable;
  if (!cuda_emulator::reachable(stream, out, bytes)) {
    std::fprintf(stderr, "emulated NCCL: %zu bytes that are not the stream's device's\n", bytes);
    return kUnusable;
  }
  if (cuda_emulator::records(stream)) {
    static int recorded = 0;
    const char* most = std::getenv("PANNS_EMULATOR_RECORDED");
    if (most != nullptr && recorded++ >= std::atoi(most)) return kFailed;
    work = [work = std::move(work), held = comm->captured] { work(); };
  }
  return cuda_emulator::submit(stream, std::move(work)) == 0 ? nccl::kSuccess : kFailed;
}

// NCCL waits, without end, until no graph holds work of the communicator any more.
void await_graphs(const nccl::OpaqueComm& c) {
  if (c.captured.use_count() == 1) return;
  std::fprintf(stderr, "emulated NCCL: hangs, as a graph still holds work of it\n");
  std::abort();
}

Room* open_room(const char* name, int flags) {
  const int file = shm_open(name, O_RDWR | flags, 0600);
  if (file < 0 || ftruncate(file, sizeof(Room)) != 0) return nullptr;
  void* at = mmap(nullptr, sizeof(Room), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return at == MAP_FAILED ? nullptr : static_cast<Room*>(at);
}

}  // namespace

extern "C" {

PANNS_EMULATOR_API int ncclGetVersion(int* version) {
  *version = 21400;
  return nccl::kSuccess;
}

PANNS_EMULATOR_API int ncclGetUniqueId(nccl::UniqueId* id) {
  std::random_device random;
  std::memset(id, 0, sizeof(*id));
  std::snprintf(id->internal, sizeof(id->internal), "/panns-nccl-%08x%08x", random(), random());
  Room* room = open_room(id->internal, O_CREAT | O_EXCL);
  if (room == nullptr) return kFailed;
  munmap(room, sizeof(Room));
  return nccl::kSuccess;
}

// As NCCL's, it ends when all have come, and not before.
PANNS_EMULATOR_API int ncclCommInitRank(nccl::Comm* comm, int size, nccl::UniqueId id, int rank) {
  if (size > kMost || rank < 0 || rank >= size) return kUnusable;
  Room* room = open_room(id.internal, 0);
  if (room == nullptr) return kFailed;
  const char* straggler = std::getenv("PANNS_EMULATOR_STRAGGLER");
  while (straggler != nullptr && std::to_string(rank) == straggler) pause();
  if (++room->joined == size) shm_unlink(id.internal);
  while (room->joined < size) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  *comm = new nccl::OpaqueComm{room, size, rank};
  return nccl::kSuccess;
}

PANNS_EMULATOR_API int ncclCommFinalize(nccl::Comm comm) {
  if (comm == nullptr) return kUnusable;
  await_graphs(*comm);
  return nccl::kSuccess;
}

PANNS_EMULATOR_API int ncclCommDestroy(nccl::Comm comm) {
  munmap(comm->room, sizeof(Room));
  delete comm;
  return nccl::kSuccess;
}

PANNS_EMULATOR_API int ncclCommAbort(nccl::Comm comm) {
  await_graphs(*comm);
  ++comm->room->aborted;
  return nccl::kSuccess;  // work of streams may still hold it
}

PANNS_EMULATOR_API int ncclCommGetAsyncError(nccl::Comm comm, int* error) {
  *error = comm->room->aborted > 0 ? kFailed : nccl::kSuccess;
  return nccl::kSuccess;
}

PANNS_EMULATOR_API const char* ncclGetErrorString(int error) {
  return error == kUnusable ? "invalid argument" : error == 0 ? "no error" : "internal error";
}

PANNS_EMULATOR_API const char* ncclGetLastError(nccl::Comm) { return ""; }

PANNS_EMULATOR_API int ncclAllReduce(const void* in, void* out, size_t count, int type,
                                     int operation, nccl::Comm comm, cudaStream_t stream) {
  const bool sum = operation == nccl::kSum, wide = type == nccl::kFloat64;
  if (!sum && operation != nccl::kAvg) return kUnusable;
  if (!wide && type != nccl::kFloat32) return kUnusable;
  return submit(in, out, count * (wide ? 8 : 4), comm, stream, [=] {
    const double share = sum ? 1 : 1.0 / comm->size;
    if (wide) {
      reduce(*comm, static_cast<double*>(out), count, share);
    } else {
      reduce(*comm, static_cast<float*>(out), count, share);
    }
  });
}

PANNS_EMULATOR_API int ncclBroadcast(const void* in, void* out, size_t count, int type, int root,
                                     nccl::Comm comm, cudaStream_t stream) {
  if (type != nccl::kUint8 || root < 0 || root >= comm->size) return kUnusable;
  return submit(in, out, count, comm, stream, [=] {
    auto* at = static_cast<std::byte*>(out);
    for (size_t left = count; left > 0; left -= std::min(left, kSlot), at += kSlot) {
      const size_t piece = std::min(left, kSlot);
      if (comm->rank == root) std::memcpy(comm->room->slots[root], at, piece);
      comm->meet();
      if (comm->rank != root) std::memcpy(at, comm->room->slots[root], piece);
      comm->meet();
    }
  });
}

}  // extern "C"
