// Streams, events, captures and graphs: work in queues.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <set>
#include <string_view>
#include <utility>

#include "runtime.h"

namespace cuda_emulator {
namespace {

// The captures that this thread has begun.
thread_local std::set<CUstream_st*> captures;

// Runs one item of a stream that has some.
void step(CUstream_st& stream) {
  Item item = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (item.awaits != nullptr && !item.awaits->reached) {
    advance(*item.awaits->stream, item.awaits.get());
  }
  Device& d = device_at(stream.device);
  if (item.work && d.broken == cudaSuccess) {
    d.memory.open();
    try {
      item.work();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "emulated CUDA: %s\n", e.what());
      d.broken = cudaErrorLaunchFailure;
    }
    if (!d.memory.close()) d.broken = cudaErrorIllegalAddress;
  }
  if (item.sets != nullptr) {
    item.sets->reached = true;
    item.sets->when = std::chrono::steady_clock::now();
  }
}

// Asked each time: a test may change its mind.
bool early() {
  const char* text = std::getenv("PANNS_EMULATOR_STREAMS");
  return text != nullptr && std::string_view(text) == "early";
}

// Asked each time: a test may change its mind.
void expect_no_loop() {
  if (std::getenv("PANNS_EMULATOR_LOOP") == nullptr || gettid() != getpid()) return;
  std::fprintf(stderr, "emulated CUDA: the process's first thread waits for a device\n");
  std::abort();
}

// All streams but that one go as far as they get without it.
void run_ahead(Device& device, const CUstream_st& but) {
  const auto ready = [&](const CUstream_st& s) {
    if (&s == &but || s.queue.empty()) return false;
    const auto& awaits = s.queue.front().awaits;
    return awaits == nullptr || awaits->reached;
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (const auto& stream : device.streams) {
      for (; ready(*stream); moved = true) step(*stream);
    }
  }
}

// Why work may not be given to the stream by this thread now.
cudaError_t obstacle(CUstream_st& stream) {
  if (stream.device != current_device()) {
    return say(cudaErrorInvalidResourceHandle, "the stream is of another device than the current");
  }
  if (stream.capture != nullptr && captures.count(&stream) == 0) {
    return say(cudaErrorStreamCaptureWrongThread, "another thread captures this stream");
  }
  if (stream.capture_broken) {
    return say(cudaErrorStreamCaptureInvalidated, "the stream's capture was broken before");
  }
  return cudaSuccess;
}

cudaError_t break_capture(CUstream_st& stream, const char* what) {
  stream.capture_broken = true;
  return say(cudaErrorStreamCaptureUnsupported, what);
}

}  // namespace

bool captures_on(const Device& device) {
  const auto captures = [](const auto& stream) { return stream->capture != nullptr; };
  return std::any_of(device.streams.begin(), device.streams.end(), captures);
}

bool forbidden_by_capture() {
  for (CUstream_st* stream : captures) stream->capture_broken = true;
  return !captures.empty();
}

cudaError_t advance(CUstream_st& stream, const Mark* until) {
  expect_no_loop();
  Device& d = device_at(stream.device);
  // Opened once for all of it: opening takes a call of the system for each piece of memory.
  d.memory.open();
  while (!stream.queue.empty() && (until == nullptr || !until->reached)) {
    if (early()) run_ahead(d, stream);
    step(stream);
  }
  if (!d.memory.close()) d.broken = cudaErrorIllegalAddress;
  return d.broken == cudaSuccess ? cudaSuccess : say(d.broken);
}

cudaError_t advance_all(Device& device) {
  advance(device.first);
  for (const auto& stream : device.streams) advance(*stream);
  std::erase_if(device.streams, [](const auto& stream) { return stream->destroyed; });
  return device.broken == cudaSuccess ? cudaSuccess : say(device.broken);
}

// The default stream, whose work comes when a thread waits for its own one, is all threads' one.
CUstream_st* real(cudaStream_t stream) {
  const bool own = stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
  return own ? &current().first : stream;
}

cudaError_t append(CUstream_st& stream, Work work) {
  if (const cudaError_t e = obstacle(stream); e != cudaSuccess) return e;
  if (stream.capture != nullptr) {
    stream.capture->works.push_back(std::move(work));
  } else if (stream.branch_of != nullptr) {
    auto& works = early() ? stream.branch_of->capture->works : stream.branch;
    works.push_back(std::move(work));
  } else {
    stream.queue.push_back({std::move(work), nullptr, nullptr});
  }
  return cudaSuccess;
}

int submit(CUstream_st* stream, std::function<void()> work) {
  const Lock lock(mutex());
  return append(*real(stream), std::move(work));
}

bool records(CUstream_st* stream) {
  const Lock lock(mutex());
  const CUstream_st& s = *real(stream);
  return s.capture != nullptr || s.branch_of != nullptr;
}

int device_of(CUstream_st* stream) {
  const Lock lock(mutex());
  return real(stream)->device;
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

extern "C" {

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  const Lock lock(mutex());
  if (priority > 0 || priority < -5) return say(cudaErrorInvalidValue, "no such priority");
  if (flags != cudaStreamNonBlocking) {
    return say(cudaErrorNotSupported, "only streams that do not wait for the default one");
  }
  Device& d = current();
  d.streams.push_back(std::make_unique<CUstream_st>());
  *stream = d.streams.back().get();
  (*stream)->device = current_device();
  return cudaSuccess;
}

// What is left to do is done when somebody waits for the device.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(mutex());
  if (stream->capture != nullptr) return say(cudaErrorStreamCaptureUnsupported, "it captures");
  stream->destroyed = true;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(mutex());
  CUstream_st& s = *real(stream);
  if (s.capture != nullptr) return break_capture(s, "a stream that captures cannot be waited for");
  const cudaError_t status = advance(s);
  // What the default stream was given before has happened by now; that it was first is not said.
  const cudaError_t beside = advance(device_at(s.device).first);
  return status == cudaSuccess ? beside : status;
}

// Asking goes on with the work, as time does: whoever asks again and again comes to its end.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock(mutex());
  CUstream_st& s = *real(stream);
  if (s.capture != nullptr) return break_capture(s, "a stream that captures cannot be asked");
  if (!s.queue.empty()) step(s);
  if (device_at(s.device).broken != cudaSuccess) return say(device_at(s.device).broken);
  return s.queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  const Lock lock(mutex());
  *event = new CUevent_st{current_device(), (flags & cudaEventDisableTiming) == 0, nullptr};
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock(mutex());
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(mutex());
  CUstream_st& s = *real(stream);
  if (const cudaError_t e = obstacle(s); e != cudaSuccess) return e;
  if (event->device != s.device) {
    return say(cudaErrorInvalidResourceHandle, "the event is of another device than the stream");
  }
  event->mark = std::make_shared<Mark>();
  event->mark->stream = &s;
  // In a capture it only says where to fork and to join.
  if (s.capture != nullptr || s.branch_of != nullptr) return cudaSuccess;
  s.queue.push_back({nullptr, event->mark, nullptr});
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(mutex());
  CUstream_st& s = *real(stream);
  if (const cudaError_t e = obstacle(s); e != cudaSuccess) return e;
  CUstream_st* from = event->mark != nullptr ? event->mark->stream : nullptr;
  if (s.capture != nullptr) {
    if (from == nullptr || from->branch_of != &s) {
      s.capture_broken = true;
      return say(cudaErrorStreamCaptureIsolation, "a capture cannot wait for work outside of it");
    }
    // A branch's work runs as late as it may, unless it was to be early.
    for (Work& work : std::exchange(from->branch, {})) s.capture->works.push_back(std::move(work));
    return cudaSuccess;
  }
  if (from != nullptr && from->capture != nullptr) {
    s.branch_of = from;
    return cudaSuccess;
  }
  if (event->mark != nullptr) s.queue.push_back({nullptr, nullptr, event->mark});
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(mutex());
  if (event->mark == nullptr || event->mark->reached) return cudaSuccess;
  return advance(*event->mark->stream, event->mark.get());
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  const Lock lock(mutex());
  for (const cudaEvent_t e : {begin, end}) {
    if (!e->timed || e->mark == nullptr) {
      return say(cudaErrorInvalidResourceHandle,
                 "the event was made without time, or not recorded");
    }
    if (!e->mark->reached) return say(cudaErrorNotReady);
  }
  const std::chrono::duration<float, std::milli> between = end->mark->when - begin->mark->when;
  *milliseconds = between.count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const Lock lock(mutex());
  // What this mode would let pass is refused all the same: a run allocates nothing and waits for
  // nothing.
  if (mode != cudaStreamCaptureModeRelaxed) {
    return say(cudaErrorNotSupported, "only captures that may load code are emulated");
  }
  CUstream_st& s = *real(stream);
  if (stream == nullptr || s.capture != nullptr) {
    return say(cudaErrorIllegalState, "the default stream, or one that captures already");
  }
  s.capture = std::make_unique<CUgraph_st>();
  s.capture_broken = false;
  captures.insert(&s);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(mutex());
  CUstream_st& s = *real(stream);
  *graph = nullptr;
  if (s.capture == nullptr) return say(cudaErrorIllegalState, "no capture was begun");
  if (captures.count(&s) == 0) {
    return say(cudaErrorStreamCaptureWrongThread, "another thread began the capture");
  }
  captures.erase(&s);
  for (const auto& other : device_at(s.device).streams) {
    if (other->branch_of != &s) continue;
    other->branch_of = nullptr;
    if (!std::exchange(other->branch, {}).empty()) s.capture_broken = true;
  }
  const auto captured = std::move(s.capture);
  if (std::exchange(s.capture_broken, false)) return say(cudaErrorStreamCaptureInvalidated);
  *graph = new CUgraph_st(*captured);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  const Lock lock(mutex());
  *executable = new CUgraphExec_st{graph->works};
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const Lock lock(mutex());
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const Lock lock(mutex());
  CUstream_st& s = *real(stream);
  if (const cudaError_t e = obstacle(s); e != cudaSuccess) return e;
  if (s.capture != nullptr) return break_capture(s, "graphs in captures are not emulated");
  for (const Work& work : executable->works) s.queue.push_back({work, nullptr, nullptr});
  return cudaSuccess;
}

}  // extern "C"
