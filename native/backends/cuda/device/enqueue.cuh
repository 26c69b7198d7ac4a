// Launching a kernel: the one way to do it here, so that the same sources run on the host too.
#pragma once

#include "backends/cuda/device/runtime.cuh"
#include "backends/cuda/launch.h"
#include "core/error.h"

namespace panns::cuda {

// Threads of a block, unless a kernel has a reason: enough warps to hide memory latency, and five
// to eight blocks a multiprocessor at the registers these kernels take.
constexpr int kThreads = 256;

// Blocks that a multiprocessor must at least have room for, of kernels that take many registers:
// the compiler may then use 80 a thread. Left to itself it spills some for the sake of more blocks.
constexpr int kLeastBlocks = 3;

// Without asking for more a block may have this much shared memory on every device.
constexpr size_t kSharedBytes = 48 * 1024;

struct Grid {
  int64_t x = 0, y = 1, z = 1;
  int threads = kThreads;
  size_t shared = 0;  // bytes
};

// A grid for kernels that stride over `count` items, an item a thread: enough blocks to fill the
// device a few times over, so that uneven blocks even out.
inline Grid striding(const Launch& launch, int64_t count) {
  constexpr int64_t kBlocksEach = 32;
  return {.x = smaller(ceil_div(count, kThreads), launch.multiprocessors * kBlocksEach)};
}

// Does nothing for an empty grid.
template <typename... Params, typename... Args>
void enqueue(const Launch& launch, const char* name, void (*kernel)(Params...), const Grid& grid,
             Args... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  PANNS_CHECK(grid.x < (int64_t{1} << 31) && grid.y < 65536 && grid.z < 65536 &&
                  grid.shared <= kSharedBytes,
              "ERR_PANNS_UNSUPPORTED", name, "expected a grid that the device takes, got ", grid.x,
              " x ", grid.y, " x ", grid.z, " blocks with ", grid.shared,
              " bytes of shared memory; a smaller batch needs fewer blocks");
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                        static_cast<unsigned>(grid.z));
  config.blockDim = dim3(static_cast<unsigned>(grid.threads));
  config.dynamicSmemBytes = grid.shared;
  config.stream = launch.stream;
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
  PANNS_CHECK(status == cudaSuccess, "ERR_PANNS_DEVICE", name,
              "expected the kernel to launch, got ", cudaGetErrorName(status), " (",
              cudaGetErrorString(status), ")");
}

}  // namespace panns::cuda
