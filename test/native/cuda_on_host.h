// CUDA as far as our kernels need it, on the host: a test includes this header and then the .cu
// sources, and every kernel runs as plain C++. The threads of a block are fibers that yield at
// barriers; blocks run one after another. What it finds beside wrong numbers:
// - a missing barrier: blocks and threads run in ascending, descending or shuffled order
//   (`order`), the first two with one warp as far ahead as it may go, and the results of all orders
//   must have equal bits;
// - a barrier that not every thread reaches: ERR_TEST_BARRIER;
// - shared memory read before it is written: it holds NaNs when a block begins;
// - accesses out of bounds, of shared memory too: under AddressSanitizer.
#pragma once

// The checked longjmp takes a jump to another stack for an error.
#undef _FORTIFY_SOURCE

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "core/error.h"
#include "narrow_floats.h"

#define PANNS_CUDA_ON_HOST
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

// ---- built-in types ----

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

// ---- 16-bit types ----

struct __nv_bfloat16 {
  uint16_t bits;
};
struct __half {
  uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
struct alignas(4) __half2 {
  __half x, y;
};
inline float __bfloat162float(__nv_bfloat16 x) { return narrow_floats::from_bf16(x.bits); }
inline float __half2float(__half x) { return narrow_floats::from_fp16(x.bits); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {narrow_floats::to_bf16(x)}; }
inline __half __float2half_rn(float x) { return {narrow_floats::to_fp16(x)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 p) {
  return {__bfloat162float(p.x), __bfloat162float(p.y)};
}
inline float2 __half22float2(__half2 p) { return {__half2float(p.x), __half2float(p.y)}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 p) {
  return {__float2bfloat16_rn(p.x), __float2bfloat16_rn(p.y)};
}
inline __half2 __float22half2_rn(float2 p) { return {__float2half_rn(p.x), __float2half_rn(p.y)}; }

inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}

inline float __fdividef(float a, float b) { return a / b; }
template <typename T>
void __stwb(T* p, T x) {
  *p = x;
}

// ---- blocks and threads ----

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace cuda_on_host {

enum class Order { ascending, descending, shuffled };
inline Order order = Order::ascending;
inline std::mt19937 shuffle_rng{12345};

inline std::vector<unsigned> ordered(unsigned count) {
  std::vector<unsigned> all(count);
  std::iota(all.begin(), all.end(), 0u);
  if (order == Order::descending) std::reverse(all.begin(), all.end());
  if (order == Order::shuffled) std::shuffle(all.begin(), all.end(), shuffle_rng);
  return all;
}

struct Barrier {
  unsigned arrived = 0, generation = 0;
};

constexpr size_t kStack = 64 * 1024;
constexpr unsigned kWarp = 32;

// A point of execution to come back to, begun by makecontext.
struct Place {
  ucontext_t context{};
  jmp_buf jump{};
  bool begun = false;
};

// Leaves off at `from` and goes on at `to`: by a jump, as swapcontext calls the system, and a
// hundred times as long. (AddressSanitizer says once that it does not know the stacks; it finds all
// the same what goes out of bounds.)
[[gnu::noinline]] inline void go(Place& from, Place& to) {
  if (_setjmp(from.jump) != 0) return;
  if (to.begun) _longjmp(to.jump, 1);
  to.begun = true;
  setcontext(&to.context);
}

// One stack. It runs threads of the block one after another, and keeps one that waits.
struct Fiber {
  Place place;
  std::unique_ptr<std::byte[]> stack{new std::byte[kStack]};
  bool running = false;
  unsigned thread = 0;
  const Barrier* wait = nullptr;
  unsigned generation = 0;
};

struct Block {
  std::function<void()> body;
  std::vector<unsigned> threads;
  size_t next = 0;
  unsigned left = 0;
  Barrier block;
  Barrier warps[kWarp];
  uint64_t exchange[1024];
  std::unique_ptr<std::byte[]> shared;
};
inline Block* current_block;
inline Fiber* current_fiber;
inline Place scheduler{.begun = true};
inline bool barrier_opened;

inline std::byte* shared_bytes() { return current_block->shared.get(); }

// Runs the threads that have not begun; a fiber that waits is left behind with its thread.
inline void run_threads() {
  for (;;) {
    Block& b = *current_block;
    while (b.next < b.threads.size()) {
      current_fiber->thread = b.threads[b.next++];
      threadIdx = {current_fiber->thread, 0, 0};
      b.body();
      ++b.left;
    }
    current_fiber->running = false;
    go(current_fiber->place, scheduler);
  }
}

inline void resume(Fiber& fiber) {
  current_fiber = &fiber;
  fiber.running = true;
  fiber.wait = nullptr;
  threadIdx = {fiber.thread, 0, 0};
  go(scheduler, fiber.place);
}

inline void wait_at(Barrier& barrier, unsigned members) {
  Fiber& fiber = *current_fiber;
  fiber.wait = &barrier;
  fiber.generation = barrier.generation;
  if (++barrier.arrived == members) {
    barrier.arrived = 0;
    ++barrier.generation;
    barrier_opened = true;
  }
  go(fiber.place, scheduler);
}

inline std::vector<std::unique_ptr<Fiber>> all_fibers;
inline std::vector<Fiber*> idle_fibers;

inline Fiber& new_fiber() {
  all_fibers.push_back(std::make_unique<Fiber>());
  Fiber& f = *all_fibers.back();
  ucontext_t& context = f.place.context;
  getcontext(&context);
  context.uc_stack.ss_sp = f.stack.get();
  context.uc_stack.ss_size = kStack;
  makecontext(&context, run_threads, 0);
  return f;
}

inline void run_block(Block& block) {
  current_block = &block;
  std::vector<Fiber*> waiting;
  while (block.next < block.threads.size()) {
    const bool fresh = idle_fibers.empty();
    Fiber& fiber = fresh ? new_fiber() : *idle_fibers.back();
    if (!fresh) idle_fibers.pop_back();
    resume(fiber);
    (fiber.running ? waiting : idle_fibers).push_back(&fiber);
  }
  // Ascending and descending: the first that may go on always does, so that one warp runs as far
  // ahead of the others as barriers allow. Shuffled: all in turn.
  const bool greedy = order != Order::shuffled;
  while (!waiting.empty()) {
    bool moved = false;
    for (size_t i = 0; i < waiting.size(); ++i) {
      Fiber* fiber = waiting[i];
      if (fiber->wait->generation == fiber->generation) continue;
      moved = true;
      barrier_opened = false;
      resume(*fiber);
      if (!fiber->running) {
        idle_fibers.push_back(fiber);
        waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(i--));
      }
      if (greedy && barrier_opened) break;
    }
    PANNS_CHECK(moved, "ERR_TEST_BARRIER", "cuda_on_host", waiting.size(), " of ",
                block.threads.size(), " threads wait at a barrier, ", block.left, " have left");
  }
}

template <typename T>
T exchanged(T value, unsigned lane_of_partner) {
  static_assert(sizeof(T) <= 8);
  Block& b = *current_block;
  const unsigned thread = current_fiber->thread, warp = thread / kWarp;
  const auto members = std::min(kWarp, static_cast<unsigned>(b.threads.size()) - warp * kWarp);
  std::memcpy(&b.exchange[thread], &value, sizeof value);
  wait_at(b.warps[warp], members);
  T got;
  std::memcpy(&got, &b.exchange[warp * kWarp + lane_of_partner], sizeof got);
  wait_at(b.warps[warp], members);
  return got;
}

}  // namespace cuda_on_host

inline void __syncthreads() {
  auto& b = *cuda_on_host::current_block;
  cuda_on_host::wait_at(b.block, static_cast<unsigned>(b.threads.size()));
}
inline void __syncwarp() { cuda_on_host::exchanged(0, 0); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  const unsigned lane = cuda_on_host::current_fiber->thread % cuda_on_host::kWarp;
  return cuda_on_host::exchanged(value, lane ^ static_cast<unsigned>(mask));
}

// ---- launching ----

using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
struct CUstream_st;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  CUstream_st* stream = nullptr;
};

namespace cuda_on_host {

template <typename... Params, typename... Args>
void run_grid(const cudaLaunchConfig_t& config, void (*kernel)(Params...), Args... args) {
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  PANNS_CHECK(blockDim.x <= 1024 && blockDim.y == 1 && blockDim.z == 1, "ERR_TEST_LAUNCH",
              "cuda_on_host", "expected up to 1024 threads in one dimension");
  for (unsigned index : ordered(gridDim.x * gridDim.y * gridDim.z)) {
    blockIdx = {index % gridDim.x, index / gridDim.x % gridDim.y, index / gridDim.x / gridDim.y};
    Block block;
    block.body = [&] { kernel(args...); };
    block.threads = ordered(blockDim.x);
    block.shared.reset(new std::byte[config.dynamicSmemBytes]);
    std::memset(block.shared.get(), 0xFF, config.dynamicSmemBytes);
    run_block(block);
  }
}

}  // namespace cuda_on_host

// Whoever has streams of his own (test/cuda/emulator) launches himself.
#ifndef PANNS_CUDA_EMULATED
inline const char* cudaGetErrorName(cudaError_t) { return "none"; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }

template <typename... Params, typename... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               Args... args) {
  cuda_on_host::run_grid(*config, kernel, args...);
  return cudaSuccess;
}
#endif
