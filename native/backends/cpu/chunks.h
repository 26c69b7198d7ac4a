// Flat arrays cut into fixed chunks, so that what a chunk holds never depends on the thread count.
#pragma once

#include <cstdint>

#include "core/threads.h"

namespace panns::cpu {

// 64 KB of floats: small enough that three operands stay in a core's L2, large enough (several µs)
// to hide the cost of claiming a chunk. A multiple of every vector length and of 16.
constexpr int64_t kChunk = 16384;

constexpr int64_t chunk_count(int64_t count) { return (count + kChunk - 1) / kChunk; }

// Calls body(begin, size, index) for each chunk of [0, count).
template <typename Body>
void for_chunks(ThreadPool& pool, int64_t count, Body&& body) {
  pool.run(chunk_count(count), [&](int64_t index, int) {
    const int64_t begin = index * kChunk;
    body(begin, count - begin < kChunk ? count - begin : kChunk, index);
  });
}

}  // namespace panns::cpu
