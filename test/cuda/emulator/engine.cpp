#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <set>
#include <stdexcept>

#include "../../native/narrow_floats.h"
#include "convolve.h"

namespace cudnn_emulator {
namespace {

enum Index : int64_t {
  kRaces,
  kCublas,
  kReduces,
  kUnbuilt,
  kHungry,
  kTensorCore,
  kRounds,
  kTransforms,
  kPlain,
  kFails
};

// PANNS_EMULATOR_ENGINES: asked each time, as a test may change its mind.
bool engines_are(const char* how) {
  const char* text = std::getenv("PANNS_EMULATOR_ENGINES");
  return text != nullptr && std::strcmp(text, how) == 0;
}

bool is_convolution(Kind kind) { return kind <= Kind::backward_filter; }

int64_t count_of(const Dims& d) { return d[0] * d[1] * d[2] * d[3]; }

bool is_packed(const Tensor& t) {
  const Dims& d = t.dims;
  return t.strides == Dims{d[1] * d[2] * d[3], 1, d[1] * d[3], d[1]};
}

float read(const std::byte* at, int64_t type) {
  if (type == CUDNN_DATA_FLOAT) {
    float x;
    std::memcpy(&x, at, sizeof x);
    return x;
  }
  uint16_t code;
  std::memcpy(&code, at, sizeof code);
  return type == CUDNN_DATA_HALF ? narrow_floats::from_fp16(code) : narrow_floats::from_bf16(code);
}

void write(std::byte* at, int64_t type, float x) {
  if (type == CUDNN_DATA_FLOAT) {
    std::memcpy(at, &x, sizeof x);
    return;
  }
  const uint16_t code =
      type == CUDNN_DATA_HALF ? narrow_floats::to_fp16(x) : narrow_floats::to_bf16(x);
  std::memcpy(at, &code, sizeof code);
}

// Calls body(index in channels-last order, index in the tensor's memory).
template <typename Body>
void each_element(const Tensor& t, const Body& body) {
  const Dims &d = t.dims, &s = t.strides;
  int64_t i = 0;
  if (is_packed(t)) {
    for (; i < count_of(d); ++i) body(static_cast<size_t>(i), i);
    return;
  }
  for (int64_t n = 0; n < d[0]; ++n)
    for (int64_t h = 0; h < d[2]; ++h)
      for (int64_t w = 0; w < d[3]; ++w)
        for (int64_t c = 0; c < d[1]; ++c) {
          body(static_cast<size_t>(i++), n * s[0] + c * s[1] + h * s[2] + w * s[3]);
        }
}

Values load(const Tensor& t, const void* memory) {
  const auto* bytes = static_cast<const std::byte*>(memory);
  Values values(static_cast<size_t>(count_of(t.dims)));
  each_element(
      t, [&](size_t i, int64_t at) { values[i] = read(bytes + at * t.element_bytes(), t.type); });
  return values;
}

void store(const Tensor& t, void* memory, const Values& values) {
  auto* bytes = static_cast<std::byte*>(memory);
  each_element(
      t, [&](size_t i, int64_t at) { write(bytes + at * t.element_bytes(), t.type, values[i]); });
}

// As the tensor would keep them.
void round_to(int64_t type, Values& values) {
  if (type == CUDNN_DATA_FLOAT) return;
  std::byte kept[4];
  for (float& x : values) {
    write(kept, type, x);
    x = read(kept, type);
  }
}

Geometry geometry_of(const Operation& o) {
  const Dims &x = o.tensors[0].dims, &w = o.tensors[1].dims, &y = o.tensors[2].dims;
  return {x[0],         x[1],         w[0],     x[1] / w[1], {x[2], x[3]},
          {y[2], y[3]}, {w[2], w[3]}, o.stride, o.dilation,  o.pad};
}

Values convolve(const Operation& o, std::vector<Values> in, bool rounds) {
  if (rounds) {
    for (Values& values : in) {
      for (float& x : values) x = narrow_floats::to_tf32(x);
    }
  }
  const Geometry g = geometry_of(o);
  switch (o.kind) {
    case Kind::forward:
      return forward(g, in[0], in[1]);
    case Kind::backward_data:
      return backward_data(g, in[0], in[1]);
    default:
      return backward_filter(g, in[0], in[1]);
  }
}

// b has as many values as x, or one a channel.
Values pointwise(const Operation& o, const std::vector<Values>& in) {
  Values y = in[0];
  const auto other = [&](size_t i) {
    return in[1].size() == y.size() ? in[1][i] : in[1][i % in[1].size()];
  };
  for (size_t i = 0; i < y.size(); ++i) {
    switch (o.mode) {
      case CUDNN_POINTWISE_ADD:
        y[i] += other(i);
        break;
      case CUDNN_POINTWISE_MUL:
        y[i] *= other(i);
        break;
      case CUDNN_POINTWISE_RELU_FWD:
        y[i] = y[i] > 0 || std::isnan(y[i]) ? y[i] : 0;
        break;
      default:
        break;
    }
  }
  return y;
}

Values reduce(const Values& x, size_t channels) {
  std::vector<double> sums(channels);
  for (size_t i = 0; i < x.size(); ++i) sums[i % channels] += x[i];
  return Values(sums.begin(), sums.end());
}

std::string convolution_fault(const Operation& o) {
  const Dims &x = o.tensors[0].dims, &w = o.tensors[1].dims, &y = o.tensors[2].dims;
  if (w[1] <= 0 || x[1] % w[1] != 0 || w[0] % (x[1] / w[1]) != 0) {
    return "the channels of x are no multiple of the filter's, or the outputs none of the groups";
  }
  if (y[0] != x[0] || y[1] != w[0]) return "y has other images than x, or other channels than w";
  for (size_t i = 0; i < 2; ++i) {
    const int64_t reach = x[2 + i] + o.pad[i] + o.post_pad[i] - o.dilation[i] * (w[2 + i] - 1) - 1;
    if (o.stride[i] < 1 || reach < 0 || y[2 + i] != reach / o.stride[i] + 1) {
      return "y has not the size that x, w, padding, stride and dilation make";
    }
  }
  return "";
}

std::string operation_fault(const Operation& o) {
  if (is_convolution(o.kind)) return convolution_fault(o);
  const Tensor &x = o.tensors.front(), &y = o.tensors.back();
  const Dims channels{1, x.dims[1], 1, 1};
  if (o.kind == Kind::reduction) return y.dims == channels ? "" : "only sums by channel";
  if (y.dims != x.dims) return "a pointwise result has not the size of its argument";
  const bool takes_two = o.mode == CUDNN_POINTWISE_ADD || o.mode == CUDNN_POINTWISE_MUL;
  if (takes_two != (o.tensors.size() == 3)) return "a pointwise operation of other arguments";
  if (takes_two && o.tensors[1].dims != x.dims && o.tensors[1].dims != channels) {
    return "b has neither the size of x nor one value a channel";
  }
  return "";
}

}  // namespace

int64_t Tensor::element_bytes() const { return type == CUDNN_DATA_FLOAT ? 4 : 2; }

int64_t Tensor::bytes() const {
  int64_t last = 0;
  for (size_t i = 0; i < dims.size(); ++i) last += (dims[i] - 1) * strides[i];
  return (last + 1) * element_bytes();
}

const Tensor& Operation::result() const {
  if (kind == Kind::backward_data) return tensors[0];
  if (kind == Kind::backward_filter) return tensors[1];
  return tensors.back();
}

std::vector<Tensor> Operation::arguments() const {
  if (kind == Kind::backward_data) return {tensors[1], tensors[2]};
  if (kind == Kind::backward_filter) return {tensors[0], tensors[2]};
  return {tensors.begin(), tensors.end() - 1};
}

std::string Graph::fault() const {
  std::map<int64_t, Tensor> seen;
  std::set<int64_t> made;
  for (const Operation& o : operations) {
    if (const std::string fault = operation_fault(o); !fault.empty()) return fault;
    for (const Tensor& t : o.tensors) {
      const auto [it, fresh] = seen.emplace(t.uid, t);
      const Tensor& first = it->second;
      if (first.dims != t.dims || first.strides != t.strides || first.type != t.type ||
          first.is_virtual != t.is_virtual) {
        return "two tensors have the same unique id";
      }
    }
    for (const Tensor& t : o.arguments()) {
      if (t.is_virtual != 0 && made.count(t.uid) == 0) return "a virtual tensor that nobody makes";
    }
    if (!made.insert(o.result().uid).second) return "a tensor that two operations make";
  }
  return operations.empty() ? "no operations" : "";
}

std::map<int64_t, Tensor> Graph::stored() const {
  std::map<int64_t, Tensor> all;
  for (const Operation& o : operations) {
    for (const Tensor& t : o.tensors) {
      if (t.is_virtual == 0) all[t.uid] = t;
    }
  }
  return all;
}

std::vector<int64_t> Graph::numbers() const {
  std::vector<int64_t> all;
  const auto add = [&](const auto& values) { all.insert(all.end(), values.begin(), values.end()); };
  for (const Operation& o : operations) {
    add(std::array<int64_t, 3>{static_cast<int64_t>(o.kind), o.mode,
                               static_cast<int64_t>(o.tensors.size())});
    for (const auto& pair : {o.pad, o.post_pad, o.stride, o.dilation}) add(pair);
    for (const Tensor& t : o.tensors) {
      add(std::array<int64_t, 4>{t.uid, t.type, t.alignment, t.is_virtual});
      add(t.dims);
      add(t.strides);
    }
  }
  return all;
}

bool Graph::from_numbers(const std::vector<int64_t>& numbers, Graph& graph) {
  size_t at = 0;
  bool whole = true;
  const auto next = [&] {
    whole = whole && at < numbers.size();
    return whole ? numbers[at++] : 0;
  };
  while (whole && at < numbers.size()) {
    Operation o;
    const int64_t kind = next();
    o.kind = static_cast<Kind>(kind);
    o.mode = next();
    const int64_t count = next();
    if (kind < 0 || kind > static_cast<int64_t>(Kind::reduction) || count < 2 || count > 3) {
      return false;
    }
    for (auto* pair : {&o.pad, &o.post_pad, &o.stride, &o.dilation}) {
      for (int64_t& x : *pair) x = next();
    }
    for (int64_t i = 0; i < count; ++i) {
      Tensor t;
      for (int64_t* x : {&t.uid, &t.type, &t.alignment, &t.is_virtual}) *x = next();
      for (int64_t& x : t.dims) x = next();
      for (int64_t& x : t.strides) x = next();
      o.tensors.push_back(t);
    }
    graph.operations.push_back(o);
  }
  return whole && graph.fault().empty();
}

const std::vector<Engine>& engines() {
  constexpr int64_t kSome = 4096, kTooMuch = int64_t{3} << 30;
  static const std::vector<Engine> all{
      {kRaces,
       {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC},
       {},
       kSome},
      {kCublas, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {CUDNN_BEHAVIOR_NOTE_CUBLASLT_DEPENDENCY}, 0},
      {kReduces, {CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION}, {}, kSome},
      {kUnbuilt, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}, kSome},
      {kHungry, {}, {}, kTooMuch},
      {kTensorCore,
       {CUDNN_NUMERICAL_NOTE_TENSOR_CORE},
       {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION},
       kSome},
      {kRounds, {CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}, {}, 2 * kSome},
      {kTransforms, {CUDNN_NUMERICAL_NOTE_WINOGRAD}, {}, kSome},
      // One byte, so that whatever lies behind it is not where the allocator would put it.
      {kPlain, {}, {}, 3 * kSome + 1},
      // None, so that the engine after it needs more.
      {kFails, {}, {}, 0}};
  return all;
}

namespace {

std::vector<int64_t> sound(cudnnBackendHeurMode_t mode) {
  if (mode == CUDNN_HEUR_MODE_A) {
    return {kRaces,      kCublas, kReduces,    kUnbuilt, kHungry,
            kTensorCore, kRounds, kTransforms, kPlain};
  }
  if (mode == CUDNN_HEUR_MODE_B) return {kTensorCore, kPlain};
  return {kPlain};
}

}  // namespace

std::vector<int64_t> proposed(cudnnBackendHeurMode_t mode) {
  std::vector<int64_t> list = sound(mode);
  const bool fails = engines_are("failing") || engines_are("breaking");
  if (mode == CUDNN_HEUR_MODE_A && fails) list.insert(list.begin(), kFails);
  return list;
}

std::string failure(const Engine& engine) {
  if (engines_are("none") || (engines_are("failing") && engine.index == kFails)) {
    return "this engine fails when it runs";
  }
  return "";
}

std::string refusal(const Engine& engine, const Graph& graph) {
  if (engine.index == kUnbuilt) return "this engine needs more shared memory than there is";
  // As cuDNN, which widens few gradients in an epilogue: here none of a depthwise filter.
  const Operation& first = graph.operations.front();
  const bool depthwise =
      is_convolution(first.kind) && first.tensors[1].dims[1] == 1 && first.tensors[0].dims[1] > 1;
  if (first.kind == Kind::backward_filter && depthwise && graph.operations.size() > 1) {
    return "no epilogue behind the gradient of a depthwise filter";
  }
  // As cuDNN 9.19 on sm_90.
  if (first.kind == Kind::forward && depthwise && graph.operations.size() > 1 &&
      first.tensors[0].type != CUDNN_DATA_FLOAT) {
    return "no epilogue behind a depthwise convolution in 16 bits";
  }
  return "";
}

void compute(const Engine& engine, const Graph& graph, const std::map<int64_t, void*>& memory) {
  static int runs = 0;
  if (engine.index == kFails) throw std::runtime_error("this engine breaks the device");
  const bool rounds =
      engine.index <= kCublas || (engine.index >= kTensorCore && engine.index <= kTransforms);
  std::map<int64_t, Values> inside;
  for (const Operation& o : graph.operations) {
    std::vector<Values> in;
    for (const Tensor& t : o.arguments()) {
      const auto made = inside.find(t.uid);
      in.push_back(made != inside.end() ? made->second : load(t, memory.at(t.uid)));
    }
    const Tensor& t = o.result();
    Values y = is_convolution(o.kind)      ? convolve(o, std::move(in), rounds)
               : o.kind == Kind::reduction ? reduce(in[0], static_cast<size_t>(t.dims[1]))
                                           : pointwise(o, in);
    if (engine.index == kReduces) round_to(CUDNN_DATA_BFLOAT16, y);
    if (engine.index == kRaces) {
      // Not as the run before: in the last places.
      for (float& x : y) x *= 1 + static_cast<float>(++runs % 7) * 0x1p-20f;
    }
    round_to(t.type, y);
    if (t.is_virtual == 0) store(t, memory.at(t.uid), y);
    inside[t.uid] = std::move(y);
  }
}

}  // namespace cudnn_emulator
