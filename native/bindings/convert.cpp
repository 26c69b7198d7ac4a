#include "bindings/convert.h"

#include <cmath>
#include <cstring>

namespace panns::bindings {
namespace {

struct ArrayInfo {
  napi_typedarray_type type;
  size_t length;
  void* data;
  bool shared;  // over a SharedArrayBuffer
};

ArrayInfo array_info(const Napi::Value& value) {
  ArrayInfo info{};
  napi_value buffer = nullptr;
  size_t offset = 0;
  bool plain = true;
  // node-addon-api's own class refuses SharedArrayBuffers; the C call does not.
  napi_get_typedarray_info(value.Env(), value, &info.type, &info.length, &info.data, &buffer,
                           &offset);
  napi_is_arraybuffer(value.Env(), buffer, &plain);
  info.shared = !plain;
  return info;
}

Error bad(const char* name, const char* expected) {
  return Error("ERR_PANNS_OPTION", name, cat("expected ", expected));
}

// The typed array that holds elements of T.
template <typename T>
struct ArrayKind;
template <>
struct ArrayKind<float> {
  static constexpr napi_typedarray_type type = napi_float32_array;
  static constexpr const char* name = "Float32Array";
};
template <>
struct ArrayKind<int16_t> {
  static constexpr napi_typedarray_type type = napi_int16_array;
  static constexpr const char* name = "Int16Array";
};
template <>
struct ArrayKind<uint8_t> {
  static constexpr napi_typedarray_type type = napi_uint8_array;
  static constexpr const char* name = "Uint8Array";
};

}  // namespace

Napi::Error to_js(Napi::Env env, const Error& error) {
  Napi::Error e = Napi::Error::New(env, error.what());
  e.Set("code", error.code());
  if (!error.where().empty()) e.Set("where", error.where());
  return e;
}

template <typename T>
ArrayInput<T>::ArrayInput(const Napi::Value& value, const std::string& where, int64_t expected,
                          Job& job) {
  using Kind = ArrayKind<T>;
  PANNS_CHECK(value.IsTypedArray(), "ERR_PANNS_SHAPE", where, "expected a ", Kind::name);
  const ArrayInfo info = array_info(value);
  PANNS_CHECK(info.type == Kind::type, "ERR_PANNS_SHAPE", where, "expected a ", Kind::name,
              ", got another typed array");
  size_ = static_cast<int64_t>(info.length);
  PANNS_CHECK(expected < 0 || size_ == expected, "ERR_PANNS_SHAPE", where, "expected ", expected,
              " values, got ", size_);
  const auto* data = static_cast<const T*>(info.data);
  if (info.shared) {
    shared_ = data;
    job.held.push_back(Napi::Persistent(value.As<Napi::Object>()));
  } else {
    copy_ = std::make_shared<std::vector<T>>(data, data + size_);
  }
}

template class ArrayInput<float>;
template class ArrayInput<int16_t>;
template class ArrayInput<uint8_t>;

namespace {

using EitherInput = std::variant<ArrayInput<float>, ArrayInput<int16_t>>;

EitherInput either_input(const Napi::Value& value, const std::string& where, int64_t expected,
                         Job& job) {
  if (value.IsTypedArray() && array_info(value).type == napi_int16_array) {
    return ArrayInput<int16_t>(value, where, expected, job);
  }
  return ArrayInput<float>(value, where, expected, job);
}

}  // namespace

SampleInput::SampleInput(const Napi::Value& value, const std::string& where, int64_t expected,
                         Job& job)
    : input_(either_input(value, where, expected, job)) {}

std::span<int16_t> shared_samples(const Napi::Value& value, const char* name, Job& job) {
  const char* const wanted = "expected an Int16Array over a SharedArrayBuffer";
  PANNS_CHECK(value.IsTypedArray(), "ERR_PANNS_OPTION", name, wanted);
  const ArrayInfo info = array_info(value);
  PANNS_CHECK(info.type == napi_int16_array && info.shared, "ERR_PANNS_OPTION", name, wanted);
  job.held.push_back(Napi::Persistent(value.As<Napi::Object>()));
  return {static_cast<int16_t*>(info.data), info.length};
}

void take_cancel_flag(const Napi::Value& value, Job& job) {
  if (value.IsUndefined()) return;
  PANNS_CHECK(value.IsTypedArray(), "ERR_PANNS_OPTION", "cancel", "expected a Uint8Array");
  const ArrayInfo info = array_info(value);
  PANNS_CHECK(info.type == napi_uint8_array && info.shared && info.length >= 1, "ERR_PANNS_OPTION",
              "cancel", "expected a Uint8Array over a SharedArrayBuffer");
  job.held.push_back(Napi::Persistent(value.As<Napi::Object>()));
  static_assert(sizeof(std::atomic<bool>) == 1 && std::atomic<bool>::is_always_lock_free);
  job.cancel = static_cast<std::atomic<bool>*>(info.data);
}

Napi::Value shape_array(Napi::Env env, const Shape& shape) {
  auto list = Napi::Array::New(env);
  for (int i = 0; i < shape.rank(); ++i) {
    list.Set(static_cast<uint32_t>(i), static_cast<double>(shape[i]));
  }
  return list;
}

Napi::Value to_array(Napi::Env env, const float* values, size_t count) {
  auto array = Napi::Float32Array::New(env, count);
  if (count > 0) std::memcpy(array.Data(), values, count * sizeof(float));
  return array;
}

double number(const Napi::Object& o, const char* name) {
  const Napi::Value v = o.Get(name);
  if (!v.IsNumber()) throw bad(name, "a number");
  return v.As<Napi::Number>().DoubleValue();
}

int64_t integer(const Napi::Object& o, const char* name) {
  const double d = number(o, name);
  // 2^53: the largest integer a JavaScript number holds exactly.
  if (d != std::floor(d) || std::abs(d) > 9007199254740992.0) throw bad(name, "an integer");
  return static_cast<int64_t>(d);
}

int64_t integer(const Napi::Value& value, const char* name, int64_t low, int64_t high) {
  const double d = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  PANNS_CHECK(d == std::floor(d) && d >= static_cast<double>(low) && d <= static_cast<double>(high),
              "ERR_PANNS_SHAPE", name, "expected a whole number in ", low, "..", high, ", got ", d);
  return static_cast<int64_t>(d);
}

int64_t batch_size(const Napi::Value& value) { return integer(value, "batch", 1, 1 << 20); }

int64_t sample_count(const Napi::Value& value) {
  return integer(value, "samples", 1, Shape::kMaxSize);
}

bool flag(const Napi::Object& o, const char* name) {
  const Napi::Value v = o.Get(name);
  if (!v.IsBoolean()) throw bad(name, "true or false");
  return v.As<Napi::Boolean>().Value();
}

std::string text(const Napi::Object& o, const char* name) {
  const Napi::Value v = o.Get(name);
  if (!v.IsString()) throw bad(name, "a string");
  return v.As<Napi::String>().Utf8Value();
}

int choice(const Napi::Object& o, const char* name, const std::vector<std::string>& names) {
  const Napi::Value v = o.Get(name);
  std::string list;
  for (size_t i = 0; i < names.size(); ++i) {
    if (v.IsString() && v.As<Napi::String>().Utf8Value() == names[i]) return static_cast<int>(i);
    list += (i > 0 ? " or '" : "'") + names[i] + "'";
  }
  throw bad(name, list.c_str());
}

std::vector<std::string> strings(const Napi::Value& value, const char* name) {
  if (!value.IsArray()) throw bad(name, "a list of strings");
  const auto list = value.As<Napi::Array>();
  std::vector<std::string> out;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value v = list.Get(i);
    if (!v.IsString()) throw bad(name, "a list of strings");
    out.push_back(v.As<Napi::String>().Utf8Value());
  }
  return out;
}

uint64_t bigint(const Napi::Value& value, const char* name) {
  if (!value.IsBigInt()) throw bad(name, "a bigint");
  bool lossless = false;
  const uint64_t x = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) throw bad(name, "a bigint in 0..2^64-1");
  return x;
}

ops::AttrMap to_attrs(const Napi::Value& value, const std::string& where) {
  ops::AttrMap map(where);
  if (value.IsUndefined()) return map;
  PANNS_CHECK(value.IsObject(), "ERR_PANNS_SPEC", where, "expected attributes as an object");
  const auto o = value.As<Napi::Object>();
  const Napi::Array names = o.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = names.Get(i).As<Napi::String>().Utf8Value();
    const Napi::Value v = o.Get(name);
    if (v.IsNumber()) {
      map.set(name, v.As<Napi::Number>().DoubleValue());
    } else if (v.IsBoolean()) {
      map.set(name, v.As<Napi::Boolean>().Value());
    } else if (v.IsString()) {
      map.set(name, v.As<Napi::String>().Utf8Value());
    } else if (v.IsArray()) {
      std::vector<double> list;
      const auto array = v.As<Napi::Array>();
      for (uint32_t k = 0; k < array.Length(); ++k) {
        const Napi::Value item = array.Get(k);
        PANNS_CHECK(item.IsNumber(), "ERR_PANNS_SPEC", where, "expected ", name,
                    " to be a list of numbers");
        list.push_back(item.As<Napi::Number>().DoubleValue());
      }
      map.set(name, list);
    } else {
      throw Error(
          "ERR_PANNS_SPEC", where,
          cat("expected ", name, " to be a number, a boolean, a string or a list of numbers"));
    }
  }
  return map;
}

graph::Spec to_spec(const Napi::Value& value) {
  PANNS_CHECK(value.IsObject(), "ERR_PANNS_SPEC", "spec", "expected an object");
  const auto o = value.As<Napi::Object>();
  graph::Spec spec;
  spec.name = text(o, "name");
  const Napi::Value nodes = o.Get("nodes");
  PANNS_CHECK(nodes.IsArray(), "ERR_PANNS_SPEC", spec.name, "expected a list of nodes");
  const auto list = nodes.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value item = list.Get(i);
    PANNS_CHECK(item.IsObject(), "ERR_PANNS_SPEC", spec.name, "expected node ", i,
                " to be an object");
    const auto node = item.As<Napi::Object>();
    const std::string path = text(node, "path"), op = text(node, "op");
    spec.nodes.push_back(
        {op, path, strings(node.Get("inputs"), "inputs"),
         to_attrs(node.Get("attrs"), spec.name + "/" + (path.empty() ? op : path))});
  }
  const Napi::Value outputs = o.Get("outputs");
  PANNS_CHECK(outputs.IsObject(), "ERR_PANNS_SPEC", spec.name, "expected outputs as an object");
  const auto named = outputs.As<Napi::Object>();
  const Napi::Array names = named.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = names.Get(i).As<Napi::String>().Utf8Value();
    const int64_t node = integer(named, name.c_str());
    PANNS_CHECK(node >= 0 && node < static_cast<int64_t>(spec.nodes.size()), "ERR_PANNS_SPEC",
                spec.name, "output '", name, "' names node ", node, ", which does not exist");
    spec.outputs[name] = static_cast<int>(node);
  }
  return spec;
}

}  // namespace panns::bindings
