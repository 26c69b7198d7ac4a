// libcudnn.so.9 without a GPU: the backend interface as far as native/backends/cuda/cudnn_conv.cpp
// uses it, and strict about it. An attribute that is not in attributes.h, a wrong type or count, a
// descriptor that is not finalized or is changed later: each is an error with words.
#include <cudnn_graph.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>

#include "attributes.h"
#include "emulator.h"
#include "engine.h"

using namespace cudnn_emulator;

struct cudnnContext {
  int device = 0;
  cudaStream_t stream = nullptr;
};

namespace {

thread_local std::string last_words;

cudnnStatus_t fail(cudnnStatus_t status, const std::string& words) {
  last_words = "emulated cuDNN: " + words;
  return status;
}

// Thrown while a descriptor is finalized.
struct Fault {
  cudnnStatus_t status;
  std::string words;
};
void require(bool holds, const char* words, cudnnStatus_t status = CUDNN_STATUS_BAD_PARAM) {
  if (!holds) throw Fault{status, words};
}

struct Node;

struct Value {
  int64_t count = 0;
  std::vector<std::byte> bytes;
  std::vector<std::shared_ptr<const Node>> nodes;  // of descriptors
};

// What a descriptor holds: shared, once it is finalized, by all that were given it.
struct Node {
  cudnnBackendDescriptorType_t type{};
  bool finalized = false;
  std::map<int, Value> values;
  // What finalizing makes of them.
  Tensor tensor;
  Operation operation;
  std::shared_ptr<const Graph> graph;
  const Engine* engine = nullptr;

  bool has(int name) const { return values.count(name) > 0; }
  template <typename T>
  std::vector<T> all(int name) const {
    const auto it = values.find(name);
    if (it == values.end()) return {};
    std::vector<T> out(static_cast<size_t>(it->second.count));
    std::memcpy(out.data(), it->second.bytes.data(), out.size() * sizeof(T));
    return out;
  }
  template <typename T>
  T one(int name) const {
    return all<T>(name).at(0);
  }
  const Node& node(int name, cudnnBackendDescriptorType_t expected) const {
    const Node& n = *values.at(name).nodes.at(0);
    require(n.type == expected, "a descriptor of another type than the attribute takes");
    return n;
  }
  const Tensor& tensor_at(int name) const {
    return node(name, CUDNN_BACKEND_TENSOR_DESCRIPTOR).tensor;
  }
  template <typename T>
  void put(int name, const std::vector<T>& list) {
    Value& v = values[name];
    v.count = static_cast<int64_t>(list.size());
    v.bytes.resize(list.size() * sizeof(T));
    std::memcpy(v.bytes.data(), list.data(), v.bytes.size());
  }
};

// What a cudnnBackendDescriptor_t points to.
struct Slot {
  std::shared_ptr<Node> node;
};

Slot& slot(cudnnBackendDescriptor_t descriptor) { return *static_cast<Slot*>(descriptor); }

std::shared_ptr<Node> new_node(cudnnBackendDescriptorType_t type) {
  auto node = std::make_shared<Node>();
  node->type = type;
  return node;
}

const Attribute* attribute(const Node& node, int name) {
  for (const Attribute& a : attributes().at(node.type)) {
    if (a.name == name) return &a;
  }
  return nullptr;
}

// ---- what finalizing does, by type

void finish_tensor(Node& n) {
  Tensor& t = n.tensor;
  t.uid = n.one<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  t.type = n.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE);
  t.alignment = n.one<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
  t.is_virtual =
      n.has(CUDNN_ATTR_TENSOR_IS_VIRTUAL) && n.one<char>(CUDNN_ATTR_TENSOR_IS_VIRTUAL) != 0;
  const auto copy = [&](int name, Dims& to) {
    const auto list = n.all<int64_t>(name);
    std::copy(list.begin(), list.end(), to.begin());
    require(*std::min_element(list.begin(), list.end()) > 0, "a size or stride below 1");
  };
  copy(CUDNN_ATTR_TENSOR_DIMENSIONS, t.dims);
  copy(CUDNN_ATTR_TENSOR_STRIDES, t.strides);
  require(t.type == CUDNN_DATA_FLOAT || t.type == CUDNN_DATA_HALF || t.type == CUDNN_DATA_BFLOAT16,
          "a data type that is not emulated", CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE);
  require(t.alignment > 0 && t.alignment % t.element_bytes() == 0, "an alignment below an element");
}

void finish_setting(Node& n) {
  if (n.type == CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR) {
    require(n.one<int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) == 2, "other than two dimensions");
    require(n.one<int>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CROSS_CORRELATION,
            "another mode than a cross-correlation");
    require(n.one<int>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE) == CUDNN_DATA_FLOAT,
            "sums that are not float");
  } else if (n.type == CUDNN_BACKEND_REDUCTION_DESCRIPTOR) {
    require(n.one<int>(CUDNN_ATTR_REDUCTION_OPERATOR) == CUDNN_REDUCE_TENSOR_ADD,
            "a reduction that is not emulated", CUDNN_STATUS_NOT_SUPPORTED);
  } else {
    const int mode = n.one<int>(CUDNN_ATTR_POINTWISE_MODE);
    require(mode == CUDNN_POINTWISE_ADD || mode == CUDNN_POINTWISE_MUL ||
                mode == CUDNN_POINTWISE_RELU_FWD || mode == CUDNN_POINTWISE_IDENTITY,
            "a pointwise mode that is not emulated", CUDNN_STATUS_NOT_SUPPORTED);
  }
}

struct ConvolutionNames {
  Kind kind;
  int setting, x, w, y, alpha, beta;
};

void finish_convolution(Node& n, const ConvolutionNames& names) {
  Operation& o = n.operation;
  o.kind = names.kind;
  o.tensors = {n.tensor_at(names.x), n.tensor_at(names.w), n.tensor_at(names.y)};
  const Node& setting = n.node(names.setting, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  const auto pair = [&](int name, std::array<int64_t, 2>& to) {
    const auto list = setting.all<int64_t>(name);
    std::copy(list.begin(), list.end(), to.begin());
  };
  pair(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, o.pad);
  pair(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, o.post_pad);
  pair(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, o.stride);
  pair(CUDNN_ATTR_CONVOLUTION_DILATIONS, o.dilation);
  require(n.one<float>(names.alpha) == 1 && n.one<float>(names.beta) == 0,
          "a result that is scaled or added to");
}

void finish_operation(Node& n) {
  switch (n.type) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
      return finish_convolution(
          n,
          {Kind::forward, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA});
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
      return finish_convolution(
          n, {Kind::backward_data, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA});
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
      return finish_convolution(
          n, {Kind::backward_filter, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA});
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
      n.operation.kind = Kind::pointwise;
      n.operation.mode =
          n.node(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_BACKEND_POINTWISE_DESCRIPTOR)
              .one<int>(CUDNN_ATTR_POINTWISE_MODE);
      n.operation.tensors = {n.tensor_at(CUDNN_ATTR_OPERATION_POINTWISE_XDESC)};
      if (n.has(CUDNN_ATTR_OPERATION_POINTWISE_BDESC)) {
        n.operation.tensors.push_back(n.tensor_at(CUDNN_ATTR_OPERATION_POINTWISE_BDESC));
      }
      n.operation.tensors.push_back(n.tensor_at(CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
      return;
    default:
      n.operation.kind = Kind::reduction;
      n.node(CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
      n.operation.tensors = {n.tensor_at(CUDNN_ATTR_OPERATION_REDUCTION_XDESC),
                             n.tensor_at(CUDNN_ATTR_OPERATION_REDUCTION_YDESC)};
  }
}

void finish_graph(Node& n) {
  auto graph = std::make_shared<Graph>();
  for (const auto& o : n.values.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).nodes) {
    require(!o->operation.tensors.empty(), "an operation of a graph that is none");
    graph->operations.push_back(o->operation);
  }
  if (const std::string fault = graph->fault(); !fault.empty()) {
    throw Fault{CUDNN_STATUS_BAD_PARAM, fault};
  }
  n.graph = graph;
}

void finish_heuristics(Node& n) {
  const auto mode = n.one<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE);
  const auto graph =
      n.node(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR).graph;
  Value& results = n.values[CUDNN_ATTR_ENGINEHEUR_RESULTS];
  for (const int64_t index : proposed(mode)) {
    const Engine& e = engines().at(static_cast<size_t>(index));
    const auto engine = new_node(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    const auto config = new_node(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    for (const auto& made : {engine, config}) {
      made->engine = &e;
      made->graph = graph;
      made->finalized = true;
    }
    engine->put(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, std::vector<int64_t>{e.index});
    engine->put(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, e.numerical);
    engine->put(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, e.behavior);
    config->values[CUDNN_ATTR_ENGINECFG_ENGINE] = {1, {}, {engine}};
    results.nodes.push_back(config);
  }
  results.count = static_cast<int64_t>(results.nodes.size());
}

constexpr const char* kFront = R"({"emulated cuDNN":1,"engine":)";

std::string text_of(const Engine& engine, const Graph& graph) {
  std::ostringstream text;
  text << kFront << engine.index << R"(,"graph":[)";
  const char* between = "";
  for (const int64_t x : graph.numbers()) {
    text << between << x;
    between = ",";
  }
  text << "]}";
  return text.str();
}

void read_plan(Node& n, const std::string& text) {
  std::istringstream in(text);
  std::string front(std::strlen(kFront), ' '), middle(10, ' '), back(2, ' ');
  size_t index = 0;
  in.read(front.data(), static_cast<std::streamsize>(front.size())) >> index;
  in.read(middle.data(), static_cast<std::streamsize>(middle.size()));
  require(in && front == kFront && middle == R"(,"graph":[)" && index < engines().size(),
          "a text that is none of a plan");
  std::vector<int64_t> numbers(1);
  while (in >> numbers.back() && in.peek() == ',') {
    in.get();
    numbers.push_back(0);
  }
  in.read(back.data(), static_cast<std::streamsize>(back.size()));
  auto graph = std::make_shared<Graph>();
  require(in && back == "]}" && in.peek() == EOF && Graph::from_numbers(numbers, *graph),
          "the text of a plan that is damaged");
  n.engine = &engines()[index];
  n.graph = graph;
}

void finish_plan(Node& n) {
  const auto text = n.all<char>(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION);
  const bool configured = n.has(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  require(configured == text.empty(), "a plan is made of a configuration or of a text");
  if (configured) {
    const Node& config =
        n.node(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    n.engine = config.engine;
    n.graph = config.graph;
  } else {
    read_plan(n, std::string(text.begin(), text.end()));
  }
  if (const std::string no = refusal(*n.engine, *n.graph); !no.empty()) {
    throw Fault{CUDNN_STATUS_NOT_SUPPORTED, no};
  }
  const std::string written = text_of(*n.engine, *n.graph);
  n.put(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, std::vector<int64_t>{n.engine->workspace});
  n.put(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
        std::vector<char>(written.begin(), written.end()));
}

void finish(Node& n) {
  for (const Attribute& a : attributes().at(n.type)) {
    require(a.use != Use::required || n.has(a.name), "an attribute that it needs was not set");
  }
  switch (n.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
      return finish_tensor(n);
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
    case CUDNN_BACKEND_POINTWISE_DESCRIPTOR:
    case CUDNN_BACKEND_REDUCTION_DESCRIPTOR:
      return finish_setting(n);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
      return finish_graph(n);
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
      return finish_heuristics(n);
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
      return finish_plan(n);
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
      return require(n.all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).size() ==
                         n.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).size(),
                     "as many addresses as names");
    case CUDNN_BACKEND_ENGINE_DESCRIPTOR:
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR:
      return require(false, "engines come from the heuristics here");
    default:
      return finish_operation(n);
  }
}

// Whether what the pack names is there, on the stream's device.
void check_pack(cudaStream_t stream, const Engine& engine, const Graph& graph,
                const std::map<int64_t, void*>& memory, void* workspace) {
  for (const auto& [uid, tensor] : graph.stored()) {
    const auto it = memory.find(uid);
    require(it != memory.end(), "a tensor without an address");
    require(it->second != nullptr, "a tensor at null", CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
    require(reinterpret_cast<uintptr_t>(it->second) % static_cast<uintptr_t>(tensor.alignment) == 0,
            "an address that is not aligned", CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER);
    require(cuda_emulator::reachable(stream, it->second, static_cast<size_t>(tensor.bytes())),
            "a tensor that is not in memory of the stream's device");
  }
  require(engine.workspace == 0 ||
              cuda_emulator::reachable(stream, workspace, static_cast<size_t>(engine.workspace)),
          "a workspace that is not in memory of the stream's device");
}

}  // namespace

extern "C" {

size_t cudnnGetVersion() { return CUDNN_VERSION; }
size_t cudnnGetCudartVersion() { return CUDART_VERSION; }

const char* cudnnGetErrorString(cudnnStatus_t status) {
  if (status == CUDNN_STATUS_SUCCESS) return "CUDNN_STATUS_SUCCESS";
  switch (CUDNN_STATUS_CATEGORY(static_cast<int>(status))) {
    case CUDNN_STATUS_BAD_PARAM:
      return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_NOT_SUPPORTED:
      return "CUDNN_STATUS_NOT_SUPPORTED";
    default:
      return "CUDNN_STATUS_EXECUTION_FAILED";
  }
}

void cudnnGetLastErrorString(char* text, size_t room) {
  std::snprintf(text, room, "%s", last_words.c_str());
  last_words.clear();
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  *handle = new cudnnContext{cuda_emulator::current_device(), nullptr};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete handle;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  if (cuda_emulator::device_of(stream) != handle->device) {
    return fail(CUDNN_STATUS_BAD_PARAM_STREAM_MISMATCH, "a stream of another device");
  }
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* descriptor) {
  if (attributes().count(type) == 0) {
    return fail(CUDNN_STATUS_NOT_SUPPORTED, "a type of descriptor that is not emulated");
  }
  *descriptor = new Slot{new_node(type)};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  delete static_cast<Slot*>(descriptor);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void* list) {
  Node& n = *slot(descriptor).node;
  const Attribute* a = attribute(n, name);
  if (n.finalized) return fail(CUDNN_STATUS_BAD_PARAM, "it is finalized");
  if (a == nullptr || a->use == Use::read) {
    return fail(CUDNN_STATUS_NOT_SUPPORTED, "an attribute that it does not have");
  }
  if (type != a->type) return fail(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "of another type");
  if (count < a->least || count > a->most || list == nullptr) {
    return fail(CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND, "another count of values");
  }
  Value v;
  v.count = count;
  v.bytes.resize(static_cast<size_t>(count) * bytes_of(type));
  std::memcpy(v.bytes.data(), list, v.bytes.size());
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    for (int64_t i = 0; i < count; ++i) {
      const auto& given = slot(static_cast<const cudnnBackendDescriptor_t*>(list)[i]).node;
      if (!given->finalized) {
        return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "what it is given is not finalized");
      }
      v.nodes.push_back(given);
    }
  }
  n.values[name] = std::move(v);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  Node& n = *slot(descriptor).node;
  if (n.finalized) return fail(CUDNN_STATUS_BAD_PARAM, "it is finalized already");
  try {
    finish(n);
  } catch (const Fault& fault) {
    return fail(fault.status, fault.words);
  }
  n.finalized = true;
  return CUDNN_STATUS_SUCCESS;
}

// Descriptors are filled into those that the caller has made.
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t room,
                                       int64_t* count, void* list) {
  const Node& n = *slot(descriptor).node;
  const Attribute* a = attribute(n, name);
  if (!n.finalized) return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "it is not finalized");
  if (a == nullptr) return fail(CUDNN_STATUS_NOT_SUPPORTED, "an attribute that it does not have");
  if (type != a->type) return fail(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "of another type");
  const auto it = n.values.find(name);
  if (it == n.values.end()) return fail(CUDNN_STATUS_BAD_PARAM, "it was not set");
  const Value& v = it->second;
  if (count != nullptr) *count = v.count;
  const int64_t given = list == nullptr ? 0 : std::min(room, v.count);
  if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    std::memcpy(list, v.bytes.data(), static_cast<size_t>(given) * bytes_of(type));
    return CUDNN_STATUS_SUCCESS;
  }
  for (int64_t i = 0; i < given; ++i) {
    Slot& to = slot(static_cast<cudnnBackendDescriptor_t*>(list)[i]);
    const auto& node = v.nodes[static_cast<size_t>(i)];
    if (to.node->type != node->type || to.node->finalized) {
      return fail(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "no fresh descriptor of that type");
    }
    to.node = std::const_pointer_cast<Node>(node);
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan_descriptor,
                                  cudnnBackendDescriptor_t pack_descriptor) {
  const Node &plan = *slot(plan_descriptor).node, &pack = *slot(pack_descriptor).node;
  if (!plan.finalized || !pack.finalized) {
    return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "the plan or the pack is not finalized");
  }
  if (plan.one<cudnnHandle_t>(CUDNN_ATTR_EXECUTION_PLAN_HANDLE) != handle) {
    return fail(CUDNN_STATUS_BAD_PARAM, "the plan was made for another handle");
  }
  const auto uids = pack.all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto addresses = pack.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  std::map<int64_t, void*> memory;
  for (size_t i = 0; i < uids.size(); ++i) memory[uids[i]] = addresses[i];
  auto* workspace = pack.one<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  try {
    check_pack(handle->stream, *plan.engine, *plan.graph, memory, workspace);
  } catch (const Fault& fault) {
    return fail(fault.status, fault.words);
  }
  for (const auto note : plan.engine->behavior) {
    if (note == CUDNN_BEHAVIOR_NOTE_CUBLASLT_DEPENDENCY) {
      return fail(CUDNN_STATUS_EXECUTION_FAILED_CUBLAS, "there is no cuBLASLt");
    }
  }
  if (const std::string no = failure(*plan.engine); !no.empty()) {
    return fail(CUDNN_STATUS_EXECUTION_FAILED, no);
  }
  const auto work = [engine = plan.engine, graph = plan.graph, memory, workspace] {
    // An engine may leave anything there.
    if (workspace != nullptr) {
      std::memset(workspace, 0xFF, static_cast<size_t>(engine->workspace));
    }
    compute(*engine, *graph, memory);
  };
  if (cuda_emulator::submit(handle->stream, work) != 0) {
    return fail(CUDNN_STATUS_EXECUTION_FAILED_CUDART, "the stream takes no work");
  }
  return CUDNN_STATUS_SUCCESS;
}

}  // extern "C"
