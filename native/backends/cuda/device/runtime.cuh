// What device code needs of CUDA, in one place. With PANNS_CUDA_ON_HOST a header that stands in for
// it was included before (test/native/cuda_on_host.h), and the same sources run as plain C++.
#pragma once

#include <cstddef>
#include <cstdint>

#ifndef PANNS_CUDA_ON_HOST
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#define PANNS_DEVICE __device__ __forceinline__
#ifdef PANNS_CUDA_ON_HOST
#define PANNS_UNROLL
#else
#define PANNS_UNROLL _Pragma("unroll")
#endif
#define PANNS_HOST_DEVICE __host__ __device__ __forceinline__

namespace panns::cuda {

constexpr int kWarp = 32;

// The block's shared memory, whose size the launch names. Kernels take all of theirs from here.
template <typename T>
PANNS_DEVICE T* shared_memory() {
#ifdef PANNS_CUDA_ON_HOST
  return reinterpret_cast<T*>(cuda_on_host::shared_bytes());
#else
  extern __shared__ __align__(16) unsigned char panns_shared_bytes[];
  return reinterpret_cast<T*>(panns_shared_bytes);
#endif
}

template <typename T>
PANNS_HOST_DEVICE constexpr T smaller(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
PANNS_HOST_DEVICE constexpr T larger(T a, T b) {
  return a < b ? b : a;
}
PANNS_HOST_DEVICE constexpr bool is_nan(float x) { return x != x; }
// Of a NaN too.
PANNS_HOST_DEVICE constexpr bool is_finite(float x) { return x - x == 0; }
// Of what a step moves: backends::StepState::gate, null for none.
PANNS_DEVICE bool is_open(const float* gate) { return gate == nullptr || is_finite(*gate); }
// a / b rounded up.
PANNS_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace panns::cuda
