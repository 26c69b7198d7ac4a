// How the CUDA backend lays a tensor out in memory: channels last, which tensor cores and cuDNN
// read fastest, and padded so that eight channels are one access of 16 bytes in a 16-bit type.
//
//   feature map (N, C, T, F)     [N][T][F][C'] in the map's storage type; channels past C hold
//   zeros feature map with C == 1      [N][T][F], float32 in every precision conv weight (O, I, kT,
//   kF)   [O'][kT][kF][I'], float32 masters; zeros past O and I anything else                dense,
//   row-major, float32
//
// X' is 1 where X is 1, else X rounded up to a multiple of 8. Weights with groups hold
// I = in_channels / groups, as in PyTorch, so a depthwise weight is [O'][kT][kF]. The optimizer
// sees weights and gradients in this layout as flat arrays; padding has zero gradient and stays
// zero. A 16-bit copy of the weights has the same order. Addresses are multiples of 16 bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace panns::cuda {

// How the elements of a feature map are stored. Arithmetic is in float32 whatever the storage.
enum class Storage : uint8_t { fp32, bf16, fp16 };

constexpr int64_t storage_bytes(Storage type) { return type == Storage::fp32 ? 4 : 2; }

constexpr int64_t kChannelBlock = 8;

constexpr int64_t padded_channels(int64_t c) {
  return c == 1 ? 1 : (c + kChannelBlock - 1) / kChannelBlock * kChannelBlock;
}

// A feature map (N, C, T, F). `precision` is the device's; one channel is float32 all the same.
struct Map {
  int64_t n = 0, c = 0, t = 0, f = 0;
  Storage precision = Storage::fp32;

  constexpr Storage storage() const { return c == 1 ? Storage::fp32 : precision; }
  constexpr int64_t channels() const { return padded_channels(c); }
  constexpr int64_t pixels() const { return n * t * f; }
  constexpr int64_t size() const { return pixels() * channels(); }  // elements
  constexpr int64_t bytes() const { return size() * storage_bytes(storage()); }
  constexpr int64_t at(int64_t in, int64_t ic, int64_t it, int64_t jf) const {
    return ((in * t + it) * f + jf) * channels() + ic;
  }
};

// A conv weight (O, I, kT, kF).
struct Filter {
  int64_t o = 0, i = 0, kt = 0, kf = 0;

  constexpr int64_t in_channels() const { return padded_channels(i); }
  constexpr int64_t out_channels() const { return padded_channels(o); }
  constexpr int64_t row() const { return kt * kf * in_channels(); }  // of one output channel
  constexpr int64_t size() const { return out_channels() * row(); }  // elements
  constexpr int64_t at(int64_t jo, int64_t ji, int64_t it, int64_t jf) const {
    return jo * row() + (it * kf + jf) * in_channels() + ji;
  }
};

// A run of stored elements that an op takes one by one: a whole map with its padding, or an array.
struct Run {
  int64_t count = 0;
  Storage type = Storage::fp32;

  constexpr Run(int64_t count, Storage type = Storage::fp32) : count(count), type(type) {}
  constexpr Run(const Map& map) : count(map.size()), type(map.storage()) {}
};

}  // namespace panns::cuda
