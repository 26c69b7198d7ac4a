// db[c] = sum over rows of dy[row][c].
//
// dy: [rows][columns], any storage; db: float32. Pass one: a block of 32 x 8 threads adds a chunk
// of rows of 32 columns, eight rows side by side, and then the eight sums in order. Pass two: a
// thread a column adds the chunks in order, in double. Reads dy once: 2 or 4 bytes an element, in
// accesses of 64 or 128 bytes a warp.
//
// measured: never run on a GPU yet
#include "backends/cuda/conv_bias.h"
#include "backends/cuda/device/enqueue.cuh"
#include "backends/cuda/device/pack.cuh"

namespace panns::cuda {
namespace {

constexpr int kColumns = kWarp;  // of a block: a warp reads neighbours
constexpr int kRowsAtOnce = 8;
// Rows of a block: 64 additions a thread hide the latency of the loads among them, and the chunks
// of the largest maps (two million rows) are still few enough for one thread to add.
constexpr int64_t kChunk = 512;

template <typename T>
__global__ void __launch_bounds__(kColumns* kRowsAtOnce)
    chunk_sums_kernel(int64_t rows, int64_t columns, const T* x, float* sums) {
  const int lane = threadIdx.x % kColumns, row = threadIdx.x / kColumns;
  const int64_t column = int64_t{blockIdx.y} * kColumns + lane;
  const int64_t begin = int64_t{blockIdx.x} * kChunk, end = smaller(rows, begin + kChunk);
  float sum = 0;
  if (column < columns) {
    for (int64_t r = begin + row; r < end; r += kRowsAtOnce)
      sum += to_float(x[r * columns + column]);
  }
  float* shared = shared_memory<float>();
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (row != 0 || column >= columns) return;
  float total = 0;
  for (int i = 0; i < kRowsAtOnce; ++i) total += shared[i * kColumns + lane];
  sums[int64_t{blockIdx.x} * columns + column] = total;
}

__global__ void __launch_bounds__(kThreads)
    add_chunks_kernel(int64_t chunks, int64_t columns, int64_t count, const float* sums,
                      float* db) {
  const int64_t column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= count) return;
  double total = 0;
  for (int64_t i = 0; i < chunks; ++i) total += sums[i * columns + column];
  db[column] = static_cast<float>(total);
}

template <typename T>
void chunk_sums(const Launch& launch, int64_t rows, int64_t columns, const T* x, float* sums) {
  const Grid grid{.x = ceil_div(rows, kChunk),
                  .y = ceil_div(columns, kColumns),
                  .threads = kColumns * kRowsAtOnce,
                  .shared = sizeof(float) * kColumns * kRowsAtOnce};
  enqueue(launch, "column_sums", chunk_sums_kernel<T>, grid, rows, columns, x, sums);
}

}  // namespace

int64_t column_sums_workspace(int64_t rows, int64_t columns) {
  return ceil_div(rows, kChunk) * columns * static_cast<int64_t>(sizeof(float));
}

void column_sums(const Launch& launch, int64_t rows, int64_t columns, int64_t count, Storage type,
                 const void* dy, float* db, void* workspace) {
  auto* sums = static_cast<float*>(workspace);
  switch (type) {
    case Storage::fp32:
      chunk_sums(launch, rows, columns, static_cast<const float*>(dy), sums);
      break;
    case Storage::bf16:
      chunk_sums(launch, rows, columns, static_cast<const Bf16*>(dy), sums);
      break;
    case Storage::fp16:
      chunk_sums(launch, rows, columns, static_cast<const Fp16*>(dy), sums);
      break;
  }
  enqueue(launch, "column_sums", add_chunks_kernel, {.x = ceil_div(count, kThreads)},
          ceil_div(rows, kChunk), columns, count, sums, db);
}

}  // namespace panns::cuda
