// A map as a matrix of rows (pixels) by vectors (of W channels), and how blocks cover it: a block
// has `columns` vectors side by side and `rows` rows at a time, so a thread keeps its channels, and
// what belongs to them stays in registers, while it walks down the rows.
#pragma once

#include "backends/cuda/device/enqueue.cuh"

namespace panns::cuda {

struct Tiling {
  uint32_t vectors = 0;  // of a row
  uint32_t columns = 0, rows = 0;
  uint32_t tiles = 0;  // blocks side by side: gridDim.x

  Tiling() = default;
  explicit Tiling(int64_t vectors_) : vectors(static_cast<uint32_t>(vectors_)) {
    // 32 vectors of 16 bytes are 512 consecutive bytes, all that coalescing asks for.
    constexpr int64_t kColumns = 32;
    tiles = static_cast<uint32_t>(ceil_div(vectors, kColumns));
    columns = static_cast<uint32_t>(ceil_div(vectors, tiles));
    rows = kThreads / columns;
  }
  // Blocks one below the other, for kernels whose blocks are independent.
  int64_t stacks(const Launch& launch, int64_t all_rows) const {
    constexpr int64_t kBlocksEach = 32, kMostStacks = 65535;
    const int64_t most = larger<int64_t>(1, launch.multiprocessors * kBlocksEach / tiles);
    return smaller(smaller(ceil_div(all_rows, rows), most), kMostStacks);
  }
};

// This thread's place: the vector it works on, and its row among the block's.
struct Place {
  uint32_t vector, row;
  bool active;

  PANNS_DEVICE explicit Place(const Tiling& g)
      : vector(blockIdx.x * g.columns + threadIdx.x % g.columns),
        row(threadIdx.x / g.columns),
        active(row < g.rows && vector < g.vectors) {}
};

// Rows cut into chunks for a deterministic reduction in two stages: what a chunk holds depends on
// the shape alone. A thread sums its rows of a chunk in float, and everything after in double.
struct Chunks {
  uint32_t rows = 0;  // in all
  uint32_t each = 0;  // rows of a chunk; the last may have fewer
  uint32_t count = 0;

  // With float sums of 64 terms the error stays near eight roundings.
  static constexpr int64_t kTerms = 64;

  Chunks() = default;
  // `terms`: how many a row adds.
  Chunks(int64_t all_rows, const Tiling& g, int64_t terms = 1)
      : rows(static_cast<uint32_t>(all_rows)) {
    // A block should have some rows to pay for its reduction, and all blocks together should fill
    // the largest device (some 150 multiprocessors, 8 blocks each) once.
    constexpr int64_t kFewest = 8, kBlocks = 1024;
    const int64_t blocks = larger<int64_t>(1, kBlocks / g.tiles);
    const int64_t wanted = larger(kFewest, ceil_div(all_rows, blocks * g.rows));
    each = static_cast<uint32_t>(smaller(wanted, kTerms / terms) * g.rows);
    count = static_cast<uint32_t>(ceil_div(all_rows, each));
  }
  PANNS_HOST_DEVICE uint32_t size(uint32_t chunk) const {
    return chunk + 1 < count ? each : rows - (count - 1) * each;
  }
};

// Sums K values of each thread over the rows of the block, always in the same order; the threads
// of row 0 get the sums. Every thread of the block calls it, those that are not active with zeros.
// Shared memory: K * kThreads values.
template <int K, typename V>
PANNS_DEVICE void sum_rows(const Tiling& g, const Place& at, V* values) {
  V* shared = shared_memory<V>() + threadIdx.x;
  PANNS_UNROLL
  for (int k = 0; k < K; ++k) shared[k * kThreads] = values[k];
  __syncthreads();
  for (uint32_t rows = g.rows; rows > 1;) {
    const uint32_t half = (rows + 1) / 2;
    if (at.row + half < rows) {
      PANNS_UNROLL
      for (int k = 0; k < K; ++k) {
        shared[k * kThreads] += shared[k * kThreads + half * g.columns];
      }
    }
    rows = half;
    __syncthreads();
  }
  PANNS_UNROLL
  for (int k = 0; k < K; ++k) values[k] = shared[k * kThreads];
}

// The sum over a warp, the same in every lane.
template <typename V>
PANNS_DEVICE V warp_sum(V x) {
  PANNS_UNROLL
  for (int mask = kWarp / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(~0u, x, mask);
  return x;
}

}  // namespace panns::cuda
