// Doors for tests: one op on its own, and the planner on the null backend.
#pragma once

#include <napi.h>

namespace panns::bindings {

Napi::Value run_op(const Napi::CallbackInfo& info);
Napi::Value null_step(const Napi::CallbackInfo& info);
Napi::Value fusions(const Napi::CallbackInfo& info);

}  // namespace panns::bindings
