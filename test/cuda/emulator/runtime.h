// What the two halves of the emulated runtime share.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "emulator.h"
#include "memory.h"

using Work = std::function<void()>;

// A place in a stream's work that a record of an event marked.
struct Mark {
  CUstream_st* stream = nullptr;
  bool reached = false;
  std::chrono::steady_clock::time_point when;
};

// One thing a stream does: some work, then a mark that it sets or waits for.
struct Item {
  Work work;
  std::shared_ptr<Mark> sets, awaits;
};

struct CUgraph_st {
  std::vector<Work> works;
};
struct CUgraphExec_st {
  std::vector<Work> works;
};

struct CUevent_st {
  int device = 0;
  bool timed = false;
  std::shared_ptr<Mark> mark;  // of the last record
};

struct CUstream_st {
  int device = 0;
  std::deque<Item> queue;
  std::unique_ptr<CUgraph_st> capture;  // while it captures
  // While it is a branch of another stream's capture: of which, and its work since the last join.
  CUstream_st* branch_of = nullptr;
  std::vector<Work> branch;
  bool capture_broken = false;
  bool destroyed = false;
};

struct CUmemPoolHandle_st {
  int device = 0;
  size_t keeps = 0;
};

namespace cuda_emulator {

struct Device {
  explicit Device(size_t bytes) : memory(bytes) {}
  Memory memory;
  CUmemPoolHandle_st pool;
  CUstream_st first;  // the default stream, which waits for none of the others
  std::vector<std::unique_ptr<CUstream_st>> streams;
  cudaError_t broken = cudaSuccess;  // what every later call says
};

// Holds the one lock; work runs under it, and no device works but when somebody waits.
using Lock = std::lock_guard<std::recursive_mutex>;
std::recursive_mutex& mutex();
std::vector<std::unique_ptr<Device>>& devices();
Device& device_at(int ordinal);
Device& current();

// Keeps an error for cudaGetLastError and returns it.
cudaError_t say(cudaError_t error);
// The same, with a word on stderr: it is the program's mistake.
cudaError_t say(cudaError_t error, const char* what);

// Whether a stream of the device captures, in whatever thread: the device as a whole may not be
// waited for then.
bool captures_on(const Device& device);
// Calls that may wait for the device, which a thread that captures may not make: breaks its
// captures.
bool forbidden_by_capture();

// Runs a stream's work up to the mark; without one, all of it.
cudaError_t advance(CUstream_st& stream, const Mark* until = nullptr);
cudaError_t advance_all(Device& device);
CUstream_st* real(cudaStream_t stream);
// Appends to the stream's work or to its capture.
cudaError_t append(CUstream_st& stream, Work work);

}  // namespace cuda_emulator
