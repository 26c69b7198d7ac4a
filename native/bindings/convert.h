// Between JavaScript values and the core's types.
#pragma once

#include <napi.h>

#include <span>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "bindings/engine.h"
#include "core/error.h"
#include "core/shape.h"
#include "graph/graph.h"
#include "graph/program.h"

namespace panns::bindings {

// A JavaScript Error with `code` and `where`.
Napi::Error to_js(Napi::Env env, const Error& error);

// What a container or an allocation that cannot grow so far becomes.
inline Error refused_memory() {
  return Error("ERR_PANNS_OUT_OF_MEMORY", "", "expected more memory than the system can give");
}

// Runs body and throws what it throws as a JavaScript error with its code.
template <typename Body>
auto guarded(Napi::Env env, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Error& e) {
    throw to_js(env, e);
  } catch (const std::bad_alloc&) {
    throw to_js(env, refused_memory());
  } catch (const std::length_error&) {
    throw to_js(env, refused_memory());
  }
}

// A Float32Array's, Int16Array's or Uint8Array's values for a job on another thread. Over a
// SharedArrayBuffer they are read in place and the array is held; any other memory could be
// detached, shrunk or changed meanwhile, so it is copied now, which also fixes the values as they
// are at the call.
template <typename T>
class ArrayInput {
 public:
  // Throws ERR_PANNS_SHAPE unless value is an array of T; expected < 0 accepts any length.
  ArrayInput(const Napi::Value& value, const std::string& where, int64_t expected, Job& job);
  // Null for an empty SharedArrayBuffer.
  const T* data() const { return copy_ != nullptr ? copy_->data() : shared_; }
  int64_t size() const { return size_; }

 private:
  const T* shared_ = nullptr;
  std::shared_ptr<std::vector<T>> copy_;
  int64_t size_ = 0;
};
using FloatInput = ArrayInput<float>;

// Samples in either form.
class SampleInput {
 public:
  // Throws ERR_PANNS_SHAPE unless value is a Float32Array or an Int16Array of that length.
  SampleInput(const Napi::Value& value, const std::string& where, int64_t expected, Job& job);
  graph::InputValues values() const {
    return std::visit([](const auto& input) -> graph::InputValues { return input.data(); }, input_);
  }

 private:
  std::variant<ArrayInput<float>, ArrayInput<int16_t>> input_;
};

// The memory of an Int16Array over a SharedArrayBuffer, to be read or written while the job runs,
// which holds it. Throws ERR_PANNS_OPTION for any other value.
std::span<int16_t> shared_samples(const Napi::Value& value, const char* name, Job& job);

// Lets a caller cancel the job by setting element 0 of a Uint8Array over a SharedArrayBuffer.
void take_cancel_flag(const Napi::Value& value, Job& job);

// A new Float32Array with these values.
Napi::Value to_array(Napi::Env env, const float* values, size_t count);
inline Napi::Value to_array(Napi::Env env, const std::vector<float>& v) {
  return to_array(env, v.data(), v.size());
}

Napi::Value shape_array(Napi::Env env, const Shape& shape);

// Typed access to an object's properties; throw ERR_PANNS_OPTION naming the property.
double number(const Napi::Object& o, const char* name);
int64_t integer(const Napi::Object& o, const char* name);
// The same of an argument, within a range.
int64_t integer(const Napi::Value& value, const char* name, int64_t low, int64_t high);
// Clips of a batch and samples of a clip: bounds that keep every product of theirs in range.
int64_t batch_size(const Napi::Value& value);
int64_t sample_count(const Napi::Value& value);
bool flag(const Napi::Object& o, const char* name);
std::string text(const Napi::Object& o, const char* name);
// The index among names of the text.
int choice(const Napi::Object& o, const char* name, const std::vector<std::string>& names);
inline bool given(const Napi::Object& o, const char* name) { return !o.Get(name).IsUndefined(); }
std::vector<std::string> strings(const Napi::Value& list, const char* name);
uint64_t bigint(const Napi::Value& value, const char* name);

graph::Spec to_spec(const Napi::Value& value);
ops::AttrMap to_attrs(const Napi::Value& value, const std::string& where);

}  // namespace panns::bindings
