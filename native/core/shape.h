// Logical shapes. Feature maps are (N, C, T, F), as PyTorch's (N, C, H, W) with time as height.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <string>

#include "core/error.h"

namespace panns {

class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    PANNS_CHECK(static_cast<int>(dims.size()) <= kMaxRank, "ERR_PANNS_SHAPE", "",
                "expected at most ", kMaxRank, " dimensions, got ", dims.size());
    for (int64_t d : dims) dims_[rank_++] = d;
  }

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t& operator[](int i) { return dims_[i]; }
  // Elements that a tensor may have: 4 TiB of floats. Everything computed from a size (bytes,
  // padding, sums over a graph) then stays far from overflow.
  static constexpr int64_t kMaxSize = int64_t{1} << 40;

  // Number of elements; 1 for a scalar (rank 0). Throws ERR_PANNS_OUT_OF_MEMORY beyond kMaxSize.
  int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) {
      PANNS_CHECK(!__builtin_mul_overflow(n, dims_[i], &n) && n <= kMaxSize,
                  "ERR_PANNS_OUT_OF_MEMORY", "",
                  "expected a tensor that memory can hold, of at most 2^40 elements, got ", text());
    }
    return n;
  }
  bool operator==(const Shape& o) const {
    if (rank_ != o.rank_) return false;
    for (int i = 0; i < rank_; ++i) {
      if (dims_[i] != o.dims_[i]) return false;
    }
    return true;
  }
  // "32x64x250x16"; "scalar" for rank 0.
  std::string text() const {
    if (rank_ == 0) return "scalar";
    std::string s;
    for (int i = 0; i < rank_; ++i) s += (i ? "x" : "") + std::to_string(dims_[i]);
    return s;
  }

 private:
  int rank_ = 0;
  std::array<int64_t, kMaxRank> dims_{};
};

inline std::ostream& operator<<(std::ostream& out, const Shape& s) { return out << s.text(); }

}  // namespace panns
