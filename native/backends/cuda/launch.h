// Where a kernel goes: what every function of this folder takes first. No CUDA header is needed to
// call one; device/enqueue.cuh is what launches.
#pragma once

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace panns::cuda {

struct Launch {
  CUstream_st* stream = nullptr;
  // How many blocks are worth having. It sizes grids whose blocks do not depend on one another, and
  // so never changes a result.
  int multiprocessors = 132;
};

}  // namespace panns::cuda
