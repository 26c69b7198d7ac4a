// Elements of a map in registers: W neighbouring channels as floats, whatever their storage. Eight
// are one access of 16 bytes in a 16-bit type and two in float32; a map with one channel, and axes
// that eight does not divide, go one by one.
#pragma once

#include <type_traits>

#include "backends/cuda/device/runtime.cuh"
#include "backends/cuda/layout.h"
#include "core/error.h"

namespace panns::cuda {

using Bf16 = __nv_bfloat16;
using Fp16 = __half;

template <int W>
struct Pack {
  float v[W];
};

PANNS_DEVICE float2 widen(__nv_bfloat162 x) { return __bfloat1622float2(x); }
PANNS_DEVICE float2 widen(__half2 x) { return __half22float2(x); }
PANNS_DEVICE __nv_bfloat162 narrow(float2 x, Bf16) { return __float22bfloat162_rn(x); }
PANNS_DEVICE __half2 narrow(float2 x, Fp16) { return __float22half2_rn(x); }

PANNS_DEVICE float to_float(float x) { return x; }
PANNS_DEVICE float to_float(Bf16 x) { return __bfloat162float(x); }
PANNS_DEVICE float to_float(Fp16 x) { return __half2float(x); }
PANNS_DEVICE void put(float* p, float x) { *p = x; }
PANNS_DEVICE void put(Bf16* p, float x) { *p = __float2bfloat16_rn(x); }
PANNS_DEVICE void put(Fp16* p, float x) { *p = __float2half_rn(x); }

template <int W, typename T>
PANNS_DEVICE Pack<W> load(const T* p) {
  Pack<W> out;
  if constexpr (W == 1) {
    out.v[0] = to_float(*p);
  } else if constexpr (sizeof(T) == 4) {
    PANNS_UNROLL
    for (int i = 0; i < W; i += 4) {
      const float4 x = *reinterpret_cast<const float4*>(p + i);
      out.v[i] = x.x;
      out.v[i + 1] = x.y;
      out.v[i + 2] = x.z;
      out.v[i + 3] = x.w;
    }
  } else {
    using Pair = decltype(narrow(float2{}, T{}));
    union Bits {
      PANNS_DEVICE Bits() {}
      uint4 whole;
      Pair pair[4];
    } bits;
    bits.whole = *reinterpret_cast<const uint4*>(p);
    PANNS_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float2 x = widen(bits.pair[i]);
      out.v[2 * i] = x.x;
      out.v[2 * i + 1] = x.y;
    }
  }
  return out;
}

// Eight elements on their way: asked for well before they are needed, and waited for only when they
// are unpacked.
template <typename T>
struct Fetched {
  using Part = std::conditional_t<sizeof(T) == 4, float4, uint4>;
  Part part[kChannelBlock * sizeof(T) / sizeof(Part)];
};

template <typename T>
PANNS_DEVICE Fetched<T> fetch(const T* p) {
  using Part = typename Fetched<T>::Part;
  Fetched<T> out;
  PANNS_UNROLL
  for (size_t i = 0; i < sizeof(out) / sizeof(Part); ++i) {
    out.part[i] = reinterpret_cast<const Part*>(p)[i];
  }
  return out;
}

template <typename T>
PANNS_DEVICE Pack<kChannelBlock> unpack(const Fetched<T>& x) {
  return load<kChannelBlock>(reinterpret_cast<const T*>(x.part));
}

// __stwb is a plain store that stays whole: the compiler takes an assignment of sixteen bytes
// apart, and does not always find the pieces again.
template <int W, typename T>
PANNS_DEVICE void store(T* p, const Pack<W>& x) {
  if constexpr (W == 1) {
    put(p, x.v[0]);
  } else if constexpr (sizeof(T) == 4) {
    PANNS_UNROLL
    for (int i = 0; i < W; i += 4) {
      __stwb(reinterpret_cast<float4*>(p + i), float4{x.v[i], x.v[i + 1], x.v[i + 2], x.v[i + 3]});
    }
  } else {
    using Pair = decltype(narrow(float2{}, T{}));
    union Bits {
      PANNS_DEVICE Bits() {}
      uint4 whole;
      Pair pair[4];
    } bits;
    PANNS_UNROLL
    for (int i = 0; i < 4; ++i) bits.pair[i] = narrow(float2{x.v[2 * i], x.v[2 * i + 1]}, T{});
    __stwb(reinterpret_cast<uint4*>(p), bits.whole);
  }
}

// Calls body(T{}) with the element type of `type`, for wrappers that choose a kernel.
template <typename Body>
void with_storage(Storage type, Body&& body) {
  switch (type) {
    case Storage::fp32:
      return body(float{});
    case Storage::bf16:
      return body(Bf16{});
    case Storage::fp16:
      return body(Fp16{});
  }
}

// Calls body(T{}, width) for the vectors of a map: eight channels, or one of a map that has one.
template <typename Body>
void with_width(const Map& map, Body&& body) {
  if (map.c == 1) {
    body(float{}, std::integral_constant<int, 1>{});
  } else {
    with_storage(map.storage(),
                 [&](auto element) { body(element, std::integral_constant<int, 8>{}); });
  }
}

}  // namespace panns::cuda
