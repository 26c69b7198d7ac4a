// The CUDA runtime without a GPU: its functions as far as native/backends/cuda uses them, over
// devices of the host's memory. What it does otherwise than a machine on which all goes well:
// - A stream's work waits until somebody waits for it (cudaStreamSynchronize, cudaEventSynchronize,
//   a later copy of the same stream does not): a wait that is missing shows as wrong numbers. The
//   default stream's work, such as clearing memory, comes after that, unless the device is waited
//   for.
// - Device memory can be touched only while device work runs, has unmapped pages on either side and
//   begins as NaNs. Who touches it from the host, or beyond its ends, ends the process with a word
//   on where.
// - Pointers are looked up, devices and captures are held to CUDA's rules, and what is refused is
//   told on stderr.
//
//   PANNS_EMULATOR_DEVICES=2          how many devices; 1 when unset
//   PANNS_EMULATOR_MEMORY=100000000   bytes of each; 8 GiB when unset
//   PANNS_EMULATOR_STREAMS=early      work that nobody waits for is done before work that somebody
//                                     waits for, as far as events let it, and a branch of a capture
//                                     at its fork; as late as may be when unset. Asked each time
//   PANNS_EMULATOR_LOOP=free          the process's first thread, of Node's event loop, may not wait:
//                                     the process ends where it does. Asked each time
//   PANNS_EMULATOR_ENGINES=failing    cuDNN proposes first an engine that builds and fails when it
//                                     runs; breaking: one whose kernel breaks the device; none: all
//                                     fail when they run; no such engine when unset. Asked each time
//   PANNS_EMULATOR_ORDER=shuffled     of blocks and threads; descending; ascending when unset
#pragma once

#include <cstddef>
#include <functional>

struct CUstream_st;

#define PANNS_EMULATOR_API __attribute__((visibility("default")))

namespace cuda_emulator {

// Runs the work when the stream's turn comes, each time a graph that records it is launched.
// Returns a cudaError_t.
PANNS_EMULATOR_API int submit(CUstream_st* stream, std::function<void()> work);

// Whether what the stream is given now is recorded.
PANNS_EMULATOR_API bool records(CUstream_st* stream);

// Whether these bytes lie in one piece of memory of the stream's device. Null holds no bytes.
PANNS_EMULATOR_API bool reachable(CUstream_st* stream, const void* begin, size_t bytes);

// As the function that takes what is wrong from the thread: told on stderr, and returned.
PANNS_EMULATOR_API int refuse(int error, const char* what);

// The device of a stream, and that of the calling thread.
PANNS_EMULATOR_API int device_of(CUstream_st* stream);
PANNS_EMULATOR_API int current_device();

}  // namespace cuda_emulator
