// What of nccl.h is used here, as NCCL 2 has it, so that building needs no NCCL.
// test/cuda/nccl_abi.cpp holds it against the header.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace panns::cuda::nccl {

using Comm = struct OpaqueComm*;
struct UniqueId {
  char internal[128];
};

constexpr int kSuccess = 0, kInProgress = 7;
constexpr int kSum = 0, kAvg = 4;
constexpr int kUint8 = 1, kFloat32 = 7, kFloat64 = 8;

// Enumerations travel as int.
using GetVersion = int (*)(int*);
using GetUniqueId = int (*)(UniqueId*);
using CommInitRank = int (*)(Comm*, int size, UniqueId, int rank);
using CommFinalize = int (*)(Comm);
using CommDestroy = int (*)(Comm);
using CommAbort = int (*)(Comm);
using CommGetAsyncError = int (*)(Comm, int*);
using GetErrorString = const char* (*)(int);
using GetLastError = const char* (*)(Comm);
using AllReduce = int (*)(const void*, void*, size_t, int type, int op, Comm, cudaStream_t);
using Broadcast = int (*)(const void*, void*, size_t, int type, int root, Comm, cudaStream_t);

}  // namespace panns::cuda::nccl
