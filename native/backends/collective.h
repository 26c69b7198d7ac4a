// Processes that compute one thing together: what one calls, all call, in the same order.
//
// The engine underneath (MPI on the host's memory, NCCL on a GPU's) is opened at run time. All
// calls come from one thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "backends/backend.h"

namespace panns::backends {

class Collective {
 public:
  virtual ~Collective() = default;
  virtual int rank() const = 0;  // 0..size() - 1
  virtual int size() const = 0;
  // Whose memory the calls that take a stream work on: DeviceInfo's kind.
  virtual std::string device() const = 0;
  // Which engine, in its own words, and the file it came from.
  virtual std::string engine() const = 0;

  // While *flag is true a wait ends early, with ABORT_ERR; null: never.
  virtual void set_cancel(const std::atomic<bool>* flag) = 0;

  // Each throws ERR_PANNS_PARALLEL when the engine fails, or when the others have not come within
  // the time that was set. The processes then no longer agree, and every later call throws.

  // ---- in the host's memory

  // The sum over all processes. Few numbers: this is where processes wait for each other, for as
  // long as an evaluation takes, and must not take a core for it.
  virtual void sum(double* values, int64_t count) = 0;
  // The root's bytes.
  virtual void broadcast(void* bytes, int64_t count, int root) = 0;

  // ---- in the device's memory, after the work that the stream was given so far; part of a
  // ---- capture where one is open

  // The bytes of the first process, once this returns.
  virtual void share(Stream& stream, void* bytes, int64_t count) = 0;
  // The stream's next work: the sum over all processes, the same bits in each. Few numbers.
  virtual void sum(Stream& stream, double* values, int64_t count) = 0;
  // The mean over all processes, the same bits in each, beside the stream's later work, which must
  // leave the values alone until end_averages.
  virtual void begin_average(Stream& stream, float* values, int64_t count) = 0;
  // Later work of the stream finds the averages done.
  virtual void end_averages(Stream& stream) = 0;
  // Until the stream's work is done, which may be waiting for the other processes.
  virtual void wait(Stream& stream) = 0;

  // What was captured with it must go before it ends, as an engine may wait for that: until the
  // returned object goes, `drop` is called before that.
  virtual std::shared_ptr<void> before_end(std::function<void()> drop) { return nullptr; }

  // Takes no further part, after an error between calls: nothing that was begun touches memory any
  // more, and the others find out by their own time limit. Every later call throws.
  virtual void abandon() = 0;
  // Leaves in agreement: waits for the others. Does nothing when a call has failed.
  virtual void leave() = 0;
};

}  // namespace panns::backends
