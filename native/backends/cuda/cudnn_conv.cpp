#include "backends/cuda/cudnn_conv.h"

#include <algorithm>
#include <sstream>

#include "core/error.h"

namespace panns::cuda {
namespace {

// Names of a graph's tensors, by which addresses are given.
enum Uid : int64_t { kX = 1, kW, kY, kBias, kSum, kSumOfSquares, kFirstVirtual };

// Tensors start at multiples of this: the allocator gives 256, and vectors have 16.
constexpr int64_t kByteAlignment = 16;
// How many proposals are read; the heuristics give at most some forty.
constexpr int64_t kMostCandidates = 64;

cudnnDataType_t storage(Math math) {
  switch (math) {
    case Math::bf16:
      return CUDNN_DATA_BFLOAT16;
    case Math::fp16:
      return CUDNN_DATA_HALF;
    default:
      return CUDNN_DATA_FLOAT;
  }
}

// Channels side by side: (N, C, T, F) lies as N, T, F, C.
std::vector<int64_t> channels_last(const std::vector<int64_t>& d) {
  return {d[1] * d[2] * d[3], 1, d[1] * d[3], d[1]};
}

Descriptor tensor(const CudnnApi& api, int64_t uid, cudnnDataType_t type,
                  const std::vector<int64_t>& dims, bool is_virtual = false) {
  Descriptor d(api, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  d.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, dims)
      .set(CUDNN_ATTR_TENSOR_STRIDES, channels_last(dims))
      .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, uid)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, kByteAlignment);
  if (is_virtual) d.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
  d.finalize();
  return d;
}

Descriptor convolution(const CudnnApi& api, const ConvGraph& c) {
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  Descriptor d(api, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  d.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode)
      .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2})
      .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, {c.pad_t, c.pad_f})
      .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, {c.pad_t, c.pad_f})
      .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, {c.stride_t, c.stride_f})
      .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, {c.dilation_t, c.dilation_f})
      .finalize();
  return d;
}

Descriptor pointwise(const CudnnApi& api, cudnnPointwiseMode_t mode) {
  Descriptor d(api, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  d.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode)
      .set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT)
      .finalize();
  return d;
}

// y = mode(x[, b])
Descriptor pointwise_operation(const CudnnApi& api, const Descriptor& mode, const Descriptor& x,
                               const Descriptor* b, const Descriptor& y) {
  Descriptor d(api, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  d.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, mode)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  if (b != nullptr) d.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *b);
  d.finalize();
  return d;
}

Descriptor sum_setting(const CudnnApi& api) {
  const cudnnReduceTensorOp_t add = CUDNN_REDUCE_TENSOR_ADD;
  Descriptor d(api, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  d.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &add)
      .set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .finalize();
  return d;
}

Descriptor sum_operation(const CudnnApi& api, const Descriptor& setting, const Descriptor& x,
                         const Descriptor& y) {
  Descriptor d(api, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  d.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, setting)
      .set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x)
      .set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y)
      .finalize();
  return d;
}

// A pass differs from another in the operation's type and in the names of its attributes.
struct PassNames {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t conv, x, w, y, alpha, beta;
};

const PassNames& names(Pass pass) {
  static const PassNames table[] = {
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
  };
  return table[static_cast<size_t>(pass)];
}

// The places of a candidate's notes, which say how its engine computes.
void read_notes(const CudnnApi& api, Candidate& c) {
  Descriptor engine(api, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.raw();
  c.config.get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
  c.engine = engine.get_int64(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
  // A newer cuDNN may have more kinds of notes than the headers this was built with.
  constexpr int64_t kMostNotes = 32;
  cudnnBackendNumericalNote_t numerical[kMostNotes];
  const int64_t numericals = engine.get(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                        kMostNotes, numerical);
  for (int64_t i = 0; i < std::min(numericals, kMostNotes); ++i) {
    c.tensor_core |= numerical[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    c.converts_down |= numerical[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
    c.reduced_sums |= numerical[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
    c.nondeterministic |= numerical[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    c.transforms |=
        numerical[i] == CUDNN_NUMERICAL_NOTE_FFT || numerical[i] == CUDNN_NUMERICAL_NOTE_WINOGRAD;
  }
  cudnnBackendBehaviorNote_t behavior[kMostNotes];
  const int64_t behaviors =
      engine.get(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, kMostNotes, behavior);
  for (int64_t i = 0; i < std::min(behaviors, kMostNotes); ++i) {
    c.runtime_compiled |= behavior[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    c.needs_cublaslt |= behavior[i] == CUDNN_BEHAVIOR_NOTE_CUBLASLT_DEPENDENCY;
  }
}

}  // namespace

const char* pass_name(Pass pass) {
  static const char* const kNames[] = {"forward", "backward_data", "backward_weight"};
  return kNames[static_cast<size_t>(pass)];
}

const char* math_name(Math math) {
  static const char* const kNames[] = {"fp32", "tf32", "bf16", "fp16"};
  return kNames[static_cast<size_t>(math)];
}

int64_t element_bytes(Math math) { return math == Math::fp32 || math == Math::tf32 ? 4 : 2; }

int64_t ConvGraph::out_t() const {
  return (t + 2 * pad_t - dilation_t * (kernel_t - 1) - 1) / stride_t + 1;
}
int64_t ConvGraph::out_f() const {
  return (f + 2 * pad_f - dilation_f * (kernel_f - 1) - 1) / stride_f + 1;
}
int64_t ConvGraph::flops() const {
  return 2 * n * out_t() * out_f() * k * (c / groups) * kernel_t * kernel_f;
}

std::string ConvGraph::text() const {
  std::string s = cat(pass_name(pass), " ", math_name(math), " n", n, " c", c, " ", t, "x", f, " k",
                      k, " ", kernel_t, "x", kernel_f);
  if (pad_t != 0 || pad_f != 0) s += cat(" p", pad_t, "x", pad_f);
  if (stride_t != 1 || stride_f != 1) s += cat(" s", stride_t, "x", stride_f);
  if (dilation_t != 1 || dilation_f != 1) s += cat(" d", dilation_t, "x", dilation_f);
  if (groups != 1) s += cat(" g", groups);
  if (bias) s += " bias";
  if (relu) s += " relu";
  if (statistics) s += " statistics";
  if (float_gradient) s += " float_gradient";
  if (pairs != Pairs::none) s += pairs == Pairs::before ? " paired before" : " paired";
  return s;
}

Descriptor device_properties(const CudnnApi& api, const DeviceDescription& d) {
  // The names are cuDNN's; limits that all architectures from 8.0 on share stand as numbers.
  const std::string json =
      cat(R"({"deviceVer":)", d.architecture * 10, R"(,"multiProcessorCount":)", d.multiprocessors,
          R"(,"maxSharedMemoryPerBlockOptin":)", d.shared_memory, R"(,"l2CacheSize":)", d.l2,
          R"(,"deviceName":")", d.name, R"(","driverVer":13000,"totalGlobalMem":85899345920)",
          R"(,"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64])",
          R"(,"maxSharedMemoryPerBlock":49152,"reservedSharedMemoryPerBlock":1024)",
          R"(,"regsPerBlock":65536,"maxRegistersPerSM":65536,"maxCtasPerSM":32,"warpSize":32)",
          R"(,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"smClockRateKHz":1500000)",
          R"(,"memClockRateKHz":2000000,"smCountOrigin":0,"supportCoopLaunch":1,"isTccDriver":0)",
          R"(,"oversizedSharedMemoryPerBlock":)", d.shared_memory, R"(,"memoryBusWidth":5120)",
          R"(,"pciDeviceId":0,"cudaDeviceId":0})");
  Descriptor properties(api, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  properties.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                 static_cast<int64_t>(json.size()), json.data());
  properties.finalize();
  return properties;
}

CudnnGraph::CudnnGraph(const Target& target, const ConvGraph& conv) : target_(target), conv_(conv) {
  const CudnnApi& api = *target.api;
  const cudnnDataType_t io = storage(conv.math);
  const bool forward = conv.pass == Pass::forward;
  const bool widens = conv.pass == Pass::backward_weight && conv.float_gradient;
  const std::vector<int64_t> xs{conv.n, conv.c, conv.t, conv.f};
  const std::vector<int64_t> ws{conv.k, conv.c / conv.groups, conv.kernel_t, conv.kernel_f};
  const std::vector<int64_t> ys{conv.n, conv.k, conv.out_t(), conv.out_f()};
  const std::vector<int64_t> channels{1, conv.k, 1, 1};
  int64_t next_virtual = kFirstVirtual;
  const auto keep = [&](Descriptor d) -> const Descriptor& {
    parts_.push_back(std::move(d));
    return parts_.back();
  };
  // A result inside the graph is float and is nowhere in memory.
  const auto inner = [&](const std::vector<int64_t>& dims) -> const Descriptor& {
    return keep(tensor(api, next_virtual++, CUDNN_DATA_FLOAT, dims, true));
  };
  const auto apply = [&](cudnnPointwiseMode_t mode, const Descriptor& x, const Descriptor* b,
                         const Descriptor& y) {
    const Descriptor& setting = keep(pointwise(api, mode));
    operations_.push_back(pointwise_operation(api, setting, x, b, y));
  };

  // How many results follow the convolution's own before y is there.
  int following = forward ? int{conv.bias} + int{conv.relu} : 0;
  const auto next_y = [&]() -> const Descriptor& {
    return following-- == 0 ? keep(tensor(api, kY, io, ys)) : inner(ys);
  };
  const Descriptor& x = keep(tensor(api, kX, io, xs));
  const Descriptor& w = widens ? inner(ws) : keep(tensor(api, kW, io, ws));
  const Descriptor* y = &next_y();
  const PassNames& n = names(conv.pass);
  const Descriptor& setting = keep(convolution(api, conv));
  operations_.emplace_back(api, n.type);
  operations_.back()
      .set(n.conv, setting)
      .set(n.x, x)
      .set(n.w, w)
      .set(n.y, *y)
      .set(n.alpha, 1.0f)
      .set(n.beta, 0.0f)
      .finalize();
  if (forward && conv.bias) {
    const Descriptor& bias = keep(tensor(api, kBias, CUDNN_DATA_FLOAT, channels));
    const Descriptor& sum = next_y();
    apply(CUDNN_POINTWISE_ADD, *y, &bias, sum);
    y = &sum;
  }
  if (forward && conv.relu) {
    const Descriptor& positive = next_y();
    apply(CUDNN_POINTWISE_RELU_FWD, *y, nullptr, positive);
    y = &positive;
  }
  if (forward && conv.statistics) {
    const Descriptor& adds = keep(sum_setting(api));
    const Descriptor& sum = keep(tensor(api, kSum, CUDNN_DATA_FLOAT, channels));
    const Descriptor& squares = keep(tensor(api, kSumOfSquares, CUDNN_DATA_FLOAT, channels));
    operations_.push_back(sum_operation(api, adds, *y, sum));
    const Descriptor& square = inner(ys);
    apply(CUDNN_POINTWISE_MUL, *y, y, square);
    operations_.push_back(sum_operation(api, adds, square, squares));
  }
  if (widens) {
    apply(CUDNN_POINTWISE_IDENTITY, w, nullptr, keep(tensor(api, kW, CUDNN_DATA_FLOAT, ws)));
  }

  std::vector<cudnnBackendDescriptor_t> raw;
  for (const Descriptor& o : operations_) raw.push_back(o.raw());
  graph_ = std::make_unique<Descriptor>(api, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph_->set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
              static_cast<int64_t>(raw.size()), raw.data());
  if (target.handle != nullptr) {
    graph_->set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
  }
  graph_->finalize();
}

std::vector<Candidate> CudnnGraph::candidates(cudnnBackendHeurMode_t mode) const {
  const CudnnApi& api = *target_.api;
  Descriptor heuristics(api, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, *graph_)
      .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (target_.handle == nullptr) {
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *target_.properties);
  }
  if (!heuristics.try_finalize()) return {};
  std::vector<Candidate> found;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int64_t i = 0; i < kMostCandidates; ++i) {
    found.push_back({Descriptor(api, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)});
    raw.push_back(found.back().config.raw());
  }
  const int64_t count = heuristics.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                       kMostCandidates, raw.data());
  found.erase(found.begin() + std::min(count, kMostCandidates), found.end());
  for (Candidate& c : found) read_notes(api, c);
  return found;
}

Plan::Plan(Descriptor plan, int place, std::string name)
    : plan_(std::move(plan)),
      workspace_(static_cast<size_t>(plan_.get_int64(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE))),
      place_(place),
      name_(std::move(name)) {}

namespace {

Descriptor plan_for(const Target& target) {
  Descriptor plan(*target.api, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  if (target.handle != nullptr) {
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
  } else {
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *target.properties);
  }
  return plan;
}

}  // namespace

std::unique_ptr<Plan> Plan::build(const Target& target, const Candidate& candidate,
                                  std::string* reason) {
  Descriptor plan = plan_for(target);
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, candidate.config);
  if (!plan.try_finalize(reason)) return nullptr;
  return std::unique_ptr<Plan>(
      new Plan(std::move(plan), candidate.place, cat("engine ", candidate.engine)));
}

std::unique_ptr<Plan> Plan::from_text(const Target& target, const std::string& text) {
  const size_t end = text.find('\n');
  if (end == std::string::npos) return nullptr;
  std::istringstream line(text.substr(0, end));
  int place = 0;
  std::string name;
  if (!(line >> place) || !std::getline(line >> std::ws, name)) return nullptr;
  const std::string json = text.substr(end + 1);
  Descriptor plan = plan_for(target);
  const cudnnStatus_t status =
      target.api->set_attribute(plan.raw(), CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                CUDNN_TYPE_CHAR, static_cast<int64_t>(json.size()), json.data());
  if (status != CUDNN_STATUS_SUCCESS || !plan.try_finalize()) return nullptr;
  return std::unique_ptr<Plan>(new Plan(std::move(plan), place, name));
}

std::string Plan::text() const {
  return cat(place_, " ", name_, "\n",
             plan_.get_text(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION));
}

BoundPlan::BoundPlan(const Target& target, const Plan& plan, const ConvGraph& conv,
                     const ConvPointers& p, void* workspace)
    : target_(target), plan_(plan), pack_(*target.api, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR) {
  std::vector<int64_t> uids{kX, kW, kY};
  std::vector<void*> addresses{p.x, p.w, p.y};
  if (conv.bias) {
    uids.push_back(kBias);
    addresses.push_back(p.bias);
  }
  if (conv.statistics) {
    uids.insert(uids.end(), {kSum, kSumOfSquares});
    addresses.insert(addresses.end(), {p.sum, p.sum_of_squares});
  }
  pack_.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, uids)
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
           static_cast<int64_t>(addresses.size()), addresses.data())
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace)
      .finalize();
}

void BoundPlan::run() const {
  target_.api->check(target_.api->execute(target_.handle, plan_.descriptor().raw(), pack_.raw()),
                     "cudnnBackendExecute");
}

bool BoundPlan::try_run(std::string* reason) const {
  const CudnnApi& api = *target_.api;
  const cudnnStatus_t status = api.execute(target_.handle, plan_.descriptor().raw(), pack_.raw());
  switch (CUDNN_STATUS_CATEGORY(static_cast<int>(status))) {
    case CUDNN_STATUS_NOT_SUPPORTED:
    case CUDNN_STATUS_INTERNAL_ERROR:
    case CUDNN_STATUS_EXECUTION_FAILED:
      *reason = api.words(status);
      return false;
    default:
      api.check(status, "cudnnBackendExecute");
      return true;
  }
}

}  // namespace panns::cuda
