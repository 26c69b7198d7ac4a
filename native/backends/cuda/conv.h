// A convolution or a linear layer by cuDNN, with what stands between the graph's values and the
// types that its engines take: 16-bit copies of float weights, maps of one channel, the bias, and
// filters of pairs of bins.
//
// The copy of a weight that trains lies beside it: prepare() casts it there, as after loading or a
// broadcast, and the optimizer's kernel writes it with the weight. A step that is left out moves
// neither. The copy of another weight is the kernel's own.
#pragma once

#include <memory>

#include "backends/cuda/device.h"

namespace panns::cuda {

// A tensor of a convolution: how it is stored, and how cuDNN reads or writes it.
struct Operand {
  int64_t count = 0;
  Storage stored = Storage::fp32, used = Storage::fp32;
  bool converted() const { return stored != used; }
};

struct Convolution {
  ConvGraph graph;
  Operand x, w, y;
  Filter filter;
  int64_t bias = 0;     // values of the bias, of which the graph takes graph.k: the rest are zeros
  bool frozen = false;  // no optimizer moves the weight
  // How y is stored, for the bias's gradient: rows of `columns` channels.
  int64_t rows = 0, columns = 0;
};

// What a node asks for: conv and linear, forward and backward. Throws ERR_PANNS_UNSUPPORTED for
// groups that this layout cannot hold.
Convolution convolution_of(const NodeSpec& node, Math math);

// Whether it can be computed over pairs of bins, and that form of it: the maps stay as they are,
// the filter is another (bin_pairs.h). Not where sums of y are wanted by channel.
bool can_pair(const Convolution& conv);
Convolution paired(const Convolution& conv);

// A kernel's inputs and outputs by their roles; null: there is none.
struct ConvArguments {
  // Forward: x, w[, bias] to y. Backward data: y, w to x. Backward weight: x, y to w[, bias].
  void *x = nullptr, *w = nullptr, *y = nullptr, *bias = nullptr;
  void* copy = nullptr;                            // of w, beside the parameters
  void *sum = nullptr, *sum_of_squares = nullptr;  // of y, with graph.statistics
};
using TakeArguments = ConvArguments (*)(const Args& args);

// Throws ERR_PANNS_UNSUPPORTED when cuDNN has no engine for it on this device.
std::unique_ptr<Kernel> make_convolution(const Convolution& conv, TakeArguments take,
                                         Context& context);

}  // namespace panns::cuda
