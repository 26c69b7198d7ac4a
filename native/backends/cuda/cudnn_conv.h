// A convolution as cuDNN's graph API sees it, the engines that can compute it, and a plan for one.
//
// Maps are NHWC and filters KRSC (cuda/layout.h), so that every tensor is packed with its channels
// side by side. A 1-d network has F = 1 and a linear layer T = F = 1 and a kernel of 1 x 1.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "backends/cuda/cudnn_api.h"

namespace panns::cuda {

enum class Pass : uint8_t { forward, backward_data, backward_weight };
const char* pass_name(Pass pass);

// How products are formed. fp32: without tensor cores, every product exact in float. tf32: float
// storage, inputs rounded to 10 bits of mantissa on their way into a tensor core.
enum class Math : uint8_t { fp32, tf32, bf16, fp16 };
const char* math_name(Math math);
// Bytes of an element of a map.
int64_t element_bytes(Math math);

// Whether a map of two bins is taken as one of a bin, with the channels of both (bin_pairs.h), and
// who makes the filter of that: one who did before, or each run anew, as does one that comes back
// with a gradient. What it costs is part of a run's time.
enum class Pairs : uint8_t { none, before, each_run };

struct ConvGraph {
  Pass pass = Pass::forward;
  Math math = Math::fp32;
  int64_t n = 1, c = 1, t = 1, f = 1;  // x
  int64_t k = 1;                       // output channels
  int64_t kernel_t = 1, kernel_f = 1, stride_t = 1, stride_f = 1;
  int64_t pad_t = 0, pad_f = 0, dilation_t = 1, dilation_f = 1;
  int64_t groups = 1;
  // forward only: y = relu(conv(x) + bias), the bias in float
  bool bias = false, relu = false;
  // forward only: also the sums of y and of y * y over all but channels, in float, which
  // batch-norm needs: the place for a fused row of conv and batch_norm
  bool statistics = false;
  // backward_weight with 16-bit maps: the gradient comes in float
  bool float_gradient = false;
  // Not none: sizes are those of pairs. cuDNN computes the same; measuring does not.
  Pairs pairs = Pairs::none;

  int64_t out_t() const;
  int64_t out_f() const;
  int64_t flops() const;
  // "forward bf16 n32 c64 1001x64 k64 3x3 p1x1": the part of a cached plan's key that is the
  // shape's.
  std::string text() const;
};

// What plans are made for: a device at hand, or only its description.
struct Target {
  const CudnnApi* api = nullptr;
  cudnnHandle_t handle = nullptr;
  const Descriptor* properties = nullptr;  // used when there is no handle
};

// A device that is not at hand, from which cuDNN can say what it would run and compile it.
struct DeviceDescription {
  int architecture = 90;  // 90 for compute capability 9.0
  int multiprocessors = 132;
  int64_t shared_memory = 232448;  // bytes a block may ask for
  int64_t l2 = 50 << 20;
  const char* name = "";
};
Descriptor device_properties(const CudnnApi& api, const DeviceDescription& device);

// A way to compute a graph: an engine of cuDNN with its knobs, as the heuristics propose it.
struct Candidate {
  Descriptor config;
  int64_t engine = 0;
  int place = 0;  // among all that the heuristics propose for the graph
  bool runtime_compiled = false, tensor_core = false, converts_down = false,
       nondeterministic = false, needs_cublaslt = false, reduced_sums = false;
  bool transforms = false;  // products of transformed values: Winograd's, Fourier's
};

// A graph's descriptors, and the questions that can be asked about it.
class CudnnGraph {
 public:
  // Throws ERR_PANNS_DEVICE when cuDNN cannot express the graph.
  CudnnGraph(const Target& target, const ConvGraph& conv);
  const ConvGraph& conv() const { return conv_; }
  // What the heuristics propose, the fastest first; empty when there is nothing.
  std::vector<Candidate> candidates(cudnnBackendHeurMode_t mode) const;

 private:
  const Target target_;
  const ConvGraph conv_;
  std::deque<Descriptor> parts_;  // tensors and settings: their addresses stay
  std::vector<Descriptor> operations_;
  std::unique_ptr<Descriptor> graph_;
};

// Addresses of a graph's tensors; which of them are read and written depends on the pass.
struct ConvPointers {
  void* x = nullptr;  // dx in backward_data
  void* w = nullptr;  // dw in backward_weight
  void* y = nullptr;  // dy in both backward passes
  void* bias = nullptr;
  void *sum = nullptr, *sum_of_squares = nullptr;
};

// A plan that is ready to run, on a device or, without one, only compiled.
class Plan {
 public:
  // Null, with cuDNN's reason, when the candidate cannot be built.
  static std::unique_ptr<Plan> build(const Target& target, const Candidate& candidate,
                                     std::string* reason);
  // From text() of the same cuDNN and device; null when it cannot be used.
  static std::unique_ptr<Plan> from_text(const Target& target, const std::string& text);
  size_t workspace() const { return workspace_; }
  // Of its candidate.
  int place() const { return place_; }
  // "engine 47": what errors call it.
  const std::string& name() const { return name_; }
  // The plan with its compiled kernels, for the cache on disk: behind a line of place and name.
  std::string text() const;
  const Descriptor& descriptor() const { return plan_; }

 private:
  Plan(Descriptor plan, int place, std::string name);
  Descriptor plan_;
  size_t workspace_;
  int place_;
  std::string name_;
};

// A plan bound to addresses: made once, run often. Runs are enqueued on the handle's stream.
class BoundPlan {
 public:
  BoundPlan(const Target& target, const Plan& plan, const ConvGraph& conv,
            const ConvPointers& pointers, void* workspace);
  void run() const;
  // False, with cuDNN's reason, where the engine failed; an error where the call was wrong.
  bool try_run(std::string* reason) const;

 private:
  const Target target_;
  const Plan& plan_;
  Descriptor pack_;
};

}  // namespace panns::cuda
