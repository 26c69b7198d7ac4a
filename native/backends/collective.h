// Processes that compute one thing together: what one calls, all call, in the same order.
//
// The engine underneath (MPI on the host's memory, NCCL on a GPU's) is opened at run time. All
// calls come from one thread.
#pragma once

#include <atomic>
#include <string>

#include "backends/backend.h"

namespace panns::backends {

class Collective {
 public:
  // While it is true a wait ends early, with ABORT_ERR; null: never.
  using Cancel = const std::atomic<bool>*;

  virtual ~Collective() = default;
  virtual int rank() const = 0;  // 0..size() - 1
  virtual int size() const = 0;
  // Whose memory average and share work on: DeviceInfo's kind.
  virtual std::string device() const = 0;
  // Which engine, in its own words, and the file it came from.
  virtual std::string engine() const = 0;

  // Each throws ERR_PANNS_PARALLEL when the engine fails, or when the others have not come within
  // the time that was set. The processes then no longer agree, and every later call throws.

  // The sum over all processes, in the host's memory. Few numbers: this is where processes wait for
  // each other, for as long as an evaluation takes, and must not take a core for it.
  virtual void sum(double* values, int64_t count, Cancel cancel) = 0;
  // The root's bytes, in the host's memory.
  virtual void broadcast(void* bytes, int64_t count, int root, Cancel cancel) = 0;
  // In the device's memory, as the stream's next work: the mean over all processes, the same bits
  // in each, and the bytes of the first process. The processes arrive together (after a sum).
  virtual void average(Stream& stream, float* values, int64_t count, Cancel cancel) = 0;
  virtual void share(Stream& stream, void* bytes, int64_t count, Cancel cancel) = 0;

  // Leaves in agreement: waits for the others. Does nothing when a call has failed.
  virtual void leave() = 0;
};

}  // namespace panns::backends
