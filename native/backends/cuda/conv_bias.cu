// db[c] = sum over rows of dy[row][c]; and y[row][c] += bias[c], with relu, in place.
//
// dy: [rows][columns], any storage; db: float32. Pass one: a block of 32 x 8 threads adds a chunk
// of rows of 32 columns, eight rows side by side, and then the eight sums in order. Pass two: a
// thread a column adds the chunks in order, in double. Reads dy once: 2 or 4 bytes an element, in
// accesses of 64 or 128 bytes a warp.
//
// measured: never run on a GPU yet
#include "backends/cuda/conv_bias.h"
#include "backends/cuda/device/divisor.cuh"
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

template <typename T, int W>
__global__ void __launch_bounds__(kThreads)
    add_bias_kernel(uint32_t count, Divisor vectors, uint32_t channels, float floor,
                    const float* bias, T* y) {
  const uint32_t step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += step) {
    const uint32_t first = divide(i, vectors).rest * W;
    Pack<W> out = load<W>(y + int64_t{i} * W);
    PANNS_UNROLL
    for (int k = 0; k < W; ++k) {
      const float z = out.v[k] + (first + k < channels ? bias[first + k] : 0.0f);
      out.v[k] = z < floor ? floor : z;
    }
    store<W>(y + int64_t{i} * W, out);
  }
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

void add_bias(const Launch& launch, int64_t rows, int64_t columns, int64_t count, Storage type,
              const float* bias, bool relu, void* y) {
  const auto run = [&](auto element, auto width) {
    using T = decltype(element);
    const int64_t vectors = rows * columns / width;
    expect_indexable(vectors, "conv bias");
    enqueue(launch, "conv bias", add_bias_kernel<T, width>, striding(launch, vectors),
            static_cast<uint32_t>(vectors), Divisor(columns / width), static_cast<uint32_t>(count),
            relu ? 0.0f : -INFINITY, bias, static_cast<T*>(y));
  };
  with_storage(type, [&](auto element) {
    if (columns % kChannelBlock == 0) {
      run(element, std::integral_constant<int, 8>{});
    } else {
      run(element, std::integral_constant<int, 1>{});
    }
  });
}

}  // namespace panns::cuda
