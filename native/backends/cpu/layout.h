// How the CPU backend lays a tensor out in memory. Time is the fast axis: it stays long (1001 to
// 31 frames) while frequency shrinks to 2, so a tile along time has almost no waste.
//
//   feature map (N, C, T, F)      [N][F][ceil(C/16)][T][16]; lanes past C hold zeros
//   feature map with C == 1       [N][F][T]
//   conv weight (O, I, kT, kF)    [ceil(O/16)][ceil(I/16)][kF][kT][16 i][16 o], zeros past O and I
//   conv weight with I == 1       [ceil(O/16)][kF][kT][16 o]     (first layer, and depthwise)
//   anything else                 dense, row-major
//
// Weights with groups hold I = in_channels / groups, as in PyTorch. The optimizer sees weights and
// gradients in this layout as flat arrays; padding lanes have zero gradient and so stay zero.
#pragma once

#include <cstdint>

namespace panns::cpu {

constexpr int64_t kChannelBlock = 16;

constexpr int64_t round_up(int64_t x, int64_t multiple) {
  return (x + multiple - 1) / multiple * multiple;
}

// A feature map (N, C, T, F).
struct Map {
  int64_t n = 0, c = 0, t = 0, f = 0;

  constexpr int64_t block() const { return c == 1 ? 1 : kChannelBlock; }
  constexpr int64_t blocks() const { return (c + block() - 1) / block(); }
  constexpr int64_t panel() const { return t * block(); }       // floats of one (n, f, block)
  constexpr int64_t row() const { return blocks() * panel(); }  // floats of one (n, f)
  constexpr int64_t image() const { return f * row(); }         // floats of one n
  constexpr int64_t size() const { return n * image(); }
  constexpr int64_t at(int64_t in, int64_t ic, int64_t it, int64_t jf) const {
    return in * image() + jf * row() + ic / block() * panel() + it * block() + ic % block();
  }
};

// A conv weight (O, I, kT, kF).
struct Filter {
  int64_t o = 0, i = 0, kt = 0, kf = 0;

  constexpr int64_t in_block() const { return i == 1 ? 1 : kChannelBlock; }
  constexpr int64_t in_blocks() const { return (i + in_block() - 1) / in_block(); }
  constexpr int64_t out_blocks() const { return (o + kChannelBlock - 1) / kChannelBlock; }
  constexpr int64_t tap() const { return in_block() * kChannelBlock; }
  constexpr int64_t size() const { return out_blocks() * in_blocks() * kt * kf * tap(); }
  constexpr int64_t at(int64_t jo, int64_t ji, int64_t it, int64_t jf) const {
    return (((jo / kChannelBlock * in_blocks() + ji / in_block()) * kf + jf) * kt + it) * tap() +
           ji % in_block() * kChannelBlock + jo % kChannelBlock;
  }
};

}  // namespace panns::cpu
