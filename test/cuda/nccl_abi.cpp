// Compiled against NCCL's own header where there is one: our declarations are the same.
#include "backends/cuda/nccl_abi.h"

#include <nccl.h>

#include <type_traits>

namespace nccl = panns::cuda::nccl;

static_assert(sizeof(nccl::UniqueId) == sizeof(ncclUniqueId));
static_assert(alignof(nccl::UniqueId) == alignof(ncclUniqueId));
static_assert(sizeof(ncclResult_t) == sizeof(int) && sizeof(ncclDataType_t) == sizeof(int) &&
              sizeof(ncclRedOp_t) == sizeof(int));
static_assert(nccl::kSuccess == ncclSuccess && nccl::kInProgress == ncclInProgress);
static_assert(nccl::kSum == ncclSum && nccl::kAvg == ncclAvg);
static_assert(nccl::kUint8 == ncclUint8 && nccl::kFloat32 == ncclFloat32 &&
              nccl::kFloat64 == ncclFloat64);

// Each call of ours, with the types replaced, is one of theirs.
template <typename T>
struct Theirs {
  using type = T;
};
template <>
struct Theirs<nccl::Comm> {
  using type = ncclComm_t;
};
template <>
struct Theirs<nccl::Comm*> {
  using type = ncclComm_t*;
};
template <typename Ours, typename Function>
struct Fits;
template <typename R, typename... A, typename S, typename... B>
struct Fits<R (*)(A...), S (*)(B...)> {
  static constexpr bool value =
      sizeof...(A) == sizeof...(B) && ((sizeof(typename Theirs<A>::type) == sizeof(B)) && ...) &&
      ((std::is_pointer_v<typename Theirs<A>::type> == std::is_pointer_v<B>)&&...) &&
      sizeof(R) == sizeof(S);
};
static_assert(Fits<nccl::GetVersion, decltype(&ncclGetVersion)>::value);
static_assert(Fits<nccl::GetUniqueId, decltype(&ncclGetUniqueId)>::value);
static_assert(Fits<nccl::CommInitRank, decltype(&ncclCommInitRank)>::value);
static_assert(Fits<nccl::CommFinalize, decltype(&ncclCommFinalize)>::value);
static_assert(Fits<nccl::CommDestroy, decltype(&ncclCommDestroy)>::value);
static_assert(Fits<nccl::CommAbort, decltype(&ncclCommAbort)>::value);
static_assert(Fits<nccl::CommGetAsyncError, decltype(&ncclCommGetAsyncError)>::value);
static_assert(Fits<nccl::GetErrorString, decltype(&ncclGetErrorString)>::value);
static_assert(Fits<nccl::GetLastError, decltype(&ncclGetLastError)>::value);
static_assert(Fits<nccl::AllReduce, decltype(&ncclAllReduce)>::value);
static_assert(Fits<nccl::Broadcast, decltype(&ncclBroadcast)>::value);
