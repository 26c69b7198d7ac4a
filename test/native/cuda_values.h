// What the tests of the CUDA kernels share: values in the device's layout and storage types, and
// the loop over orders of execution. See cuda_on_host.h, which a test includes first.
#pragma once

#include "cuda_on_host.h"
// Here, so that the sources under test find it included.
#include "backends/backend.h"
#include "backends/cuda/launch.h"
#include "backends/cuda/layout.h"
#include "kernels.h"

namespace cuda_test {

using panns::cat;
using panns::Error;
using panns::cuda::Filter;
using panns::cuda::Launch;
using panns::cuda::Map;
using panns::cuda::Run;
using panns::cuda::Storage;
using test::Doubles;
using test::Floats;
using test::normal;
using test::rng;
using test::throws;
using test::uniform;

constexpr Storage kStorages[] = {Storage::fp32, Storage::bf16, Storage::fp16};

inline const char* text(Storage type) {
  return type == Storage::fp32 ? "fp32" : type == Storage::bf16 ? "bf16" : "fp16";
}
inline std::string text(const Map& m) {
  return cat("(", m.n, ",", m.c, ",", m.t, ",", m.f, ") ", text(m.storage()));
}

// Half a unit in the last place of 1, and of the smallest normal number.
inline double unit(Storage type) {
  return type == Storage::fp32 ? 0x1p-24 : type == Storage::bf16 ? 0x1p-8 : 0x1p-11;
}
inline double smallest(Storage type) { return type == Storage::fp16 ? 0x1p-25 : 0; }

inline float round_to(Storage type, float x) {
  switch (type) {
    case Storage::bf16:
      return __bfloat162float(__float2bfloat16_rn(x));
    case Storage::fp16:
      return __half2float(__float2half_rn(x));
    default:
      return x;
  }
}
// Inputs as the device can hold them, so that the oracle starts from the same numbers.
inline Floats rounded(Storage type, Floats x) {
  for (float& v : x) v = round_to(type, v);
  return x;
}
inline Doubles wide(const Floats& x) { return Doubles(x.begin(), x.end()); }

// Device memory: elements of a storage type, in a block of just their size.
class Array {
 public:
  explicit Array(const Run& run)  // poisoned: NaN in every type
      : type_(run.type),
        bytes_(run.count * panns::cuda::storage_bytes(run.type), std::byte{0xFF}) {}
  Array(const Floats& x, Storage type = Storage::fp32) : Array(Run(std::ssize(x), type)) {
    for (size_t i = 0; i < x.size(); ++i) put(static_cast<int64_t>(i), x[i]);
  }
  void* data() { return bytes_.data(); }
  operator float*() { return reinterpret_cast<float*>(bytes_.data()); }
  operator void*() { return data(); }
  Storage type() const { return type_; }
  int64_t count() const { return std::ssize(bytes_) / panns::cuda::storage_bytes(type_); }
  float at(int64_t i) const {
    uint16_t code;
    float x;
    if (type_ == Storage::fp32) {
      std::memcpy(&x, bytes_.data() + 4 * i, 4);
      return x;
    }
    std::memcpy(&code, bytes_.data() + 2 * i, 2);
    return type_ == Storage::bf16 ? __bfloat162float({code}) : __half2float({code});
  }
  void put(int64_t i, float x) {
    const uint16_t code =
        type_ == Storage::bf16 ? __float2bfloat16_rn(x).bits : __float2half_rn(x).bits;
    if (type_ == Storage::fp32) {
      std::memcpy(bytes_.data() + 4 * i, &x, 4);
    } else {
      std::memcpy(bytes_.data() + 2 * i, &code, 2);
    }
  }
  Floats floats() const {
    Floats all(static_cast<size_t>(count()));
    for (int64_t i = 0; i < count(); ++i) all[static_cast<size_t>(i)] = at(i);
    return all;
  }
  bool same_bits(const Array& o) const { return bytes_ == o.bytes_; }

 private:
  Storage type_;
  std::vector<std::byte> bytes_;
};

inline std::vector<std::byte> workspace(int64_t bytes) {
  return std::vector<std::byte>(static_cast<size_t>(bytes), std::byte{0xFF});
}

inline int64_t dense_size(const Map& m) { return m.n * m.c * m.t * m.f; }
inline size_t dense_at(const Map& m, int64_t n, int64_t c, int64_t t, int64_t f) {
  return static_cast<size_t>(((n * m.c + c) * m.t + t) * m.f + f);
}
// The index by which random words are drawn.
inline uint64_t nhwc(const Map& m, int64_t n, int64_t c, int64_t t, int64_t f) {
  return static_cast<uint64_t>(((n * m.t + t) * m.f + f) * m.c + c);
}
template <typename Body>
void each(const Map& m, Body&& body) {  // body(n, c, t, f)
  for (int64_t n = 0; n < m.n; ++n)
    for (int64_t c = 0; c < m.c; ++c)
      for (int64_t t = 0; t < m.t; ++t)
        for (int64_t f = 0; f < m.f; ++f) body(n, c, t, f);
}
// Row-major (N, C, T, F) to the device's layout and back; the latter gives NaNs where the padding
// is not zero, so that no comparison passes.
inline Array pack(const Map& m, const Floats& dense) {
  Array out(Floats(static_cast<size_t>(m.size()), 0.0f), m.storage());
  each(m, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    out.put(m.at(n, c, t, f), dense[dense_at(m, n, c, t, f)]);
  });
  return out;
}
inline Floats unpack(const Map& m, const Array& packed) {
  Floats out(static_cast<size_t>(dense_size(m)));
  each(m, [&](int64_t n, int64_t c, int64_t t, int64_t f) {
    out[dense_at(m, n, c, t, f)] = packed.at(m.at(n, c, t, f));
  });
  for (int64_t p = 0; p < m.pixels(); ++p) {
    for (int64_t c = m.c; c < m.channels(); ++c) {
      if (packed.at(p * m.channels() + c) != 0) out[0] = NAN;
    }
  }
  return out;
}
// Fresh values for a map, as its storage holds them; row-major.
inline Floats random_map(const Map& m, double mean = 0, double deviation = 1) {
  return rounded(m.storage(), normal(dense_size(m), mean, deviation));
}

// The largest error over what is allowed: `base` times the largest wanted value for the float
// arithmetic, and one rounding to `type`. Where few values are wanted, all of them may be sums that
// cancel by chance: `scale` is then the size of their terms.
// Above 1 is too much; infinite where a NaN is left.
inline double excess(const Floats& got, const Doubles& want, Storage type, double base,
                     double scale = 0) {
  if (got.size() != want.size()) return INFINITY;
  for (double w : want) scale = std::max(scale, std::fabs(w));
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double rounding = type == Storage::fp32 ? 0 : unit(type) * std::fabs(want[i]);
    const double allowed = base * scale + rounding + smallest(type);
    const double difference = std::fabs(static_cast<double>(got[i]) - want[i]);
    const double over = difference == 0 ? 0 : difference / allowed;
    if (!(over <= worst)) worst = std::isnan(over) ? INFINITY : over;
  }
  return worst;
}

// Calls outputs = run(), a std::vector<Array>, with blocks and threads in three orders; all must
// give the same bits, and check(outputs), an excess, at most 1.
template <typename RunAll, typename Check>
void on_orders(const std::string& name, RunAll&& run, Check&& check) {
  using cuda_on_host::Order;
  cuda_on_host::order = Order::ascending;
  const std::vector<Array> outputs = run();
  bool same = true;
  for (Order order : {Order::descending, Order::shuffled}) {
    cuda_on_host::order = order;
    const std::vector<Array> again = run();
    for (size_t i = 0; i < outputs.size(); ++i) same = same && outputs[i].same_bits(again[i]);
  }
  const double worst = check(outputs);
  tap::ok(same && worst <= 1, cat(name, ": ", std::round(100 * worst), " % of the error allowed",
                                  same ? "" : ", DIFFERS between orders of execution"));
}

inline panns::backends::StepState random_state() {
  panns::backends::StepState state;
  state.seed = rng();
  state.step = static_cast<uint32_t>(rng());
  return state;
}

// Few multiprocessors, so that small tests have threads that take more than one turn.
inline const Launch kLaunch{nullptr, 1};

}  // namespace cuda_test
