// What the emulated cuDNN computes: a graph of operations on tensors, and the engines for it.
#pragma once

#include <cudnn_graph.h>

#include <array>
#include <map>
#include <string>
#include <vector>

namespace cudnn_emulator {

// (N, C, H, W), as cuDNN names the axes; a filter is (K, C, R, S).
using Dims = std::array<int64_t, 4>;

struct Tensor {
  int64_t uid = 0, type = CUDNN_DATA_FLOAT, alignment = 1, is_virtual = 0;
  Dims dims{}, strides{};

  int64_t element_bytes() const;
  // From the first element to behind the last.
  int64_t bytes() const;
};

enum class Kind : int64_t { forward, backward_data, backward_filter, pointwise, reduction };

struct Operation {
  Kind kind = Kind::pointwise;
  int64_t mode = 0;  // of a pointwise operation
  std::array<int64_t, 2> pad{}, post_pad{}, stride{}, dilation{};
  // Convolutions: x, w, y, of which the pass says which is the result. Else: x[, b], y.
  std::vector<Tensor> tensors;

  const Tensor& result() const;
  std::vector<Tensor> arguments() const;
};

struct Graph {
  std::vector<Operation> operations;

  // Why no such graph can be computed, or "".
  std::string fault() const;
  // Those in memory, by uid.
  std::map<int64_t, Tensor> stored() const;
  std::vector<int64_t> numbers() const;
  static bool from_numbers(const std::vector<int64_t>& numbers, Graph& graph);
};

// Ways to compute a graph, of which most must not be taken: they round, differ from run to run,
// need another library, do not build, ask for more memory than there is, or fail when they run.
struct Engine {
  int64_t index;
  std::vector<cudnnBackendNumericalNote_t> numerical;
  std::vector<cudnnBackendBehaviorNote_t> behavior;
  int64_t workspace;
};
const std::vector<Engine>& engines();
// The engines that a mode of the heuristics proposes, the first first.
std::vector<int64_t> proposed(cudnnBackendHeurMode_t mode);
// Why the engine does not compute the graph, or "".
std::string refusal(const Engine& engine, const Graph& graph);

// Why the engine, which was built, does not run, or "".
std::string failure(const Engine& engine);

// Runs it on memory that is at hand. Addresses by uid.
void compute(const Engine& engine, const Graph& graph, const std::map<int64_t, void*>& memory);

}  // namespace cudnn_emulator
