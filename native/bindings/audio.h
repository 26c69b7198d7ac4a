// Decoding, resampling and features as JavaScript sees them.
#pragma once

#include <napi.h>

#include <memory>

namespace panns::bindings {

Napi::Value audio_library(const Napi::CallbackInfo& info);
Napi::Value set_audio_library_folder(const Napi::CallbackInfo& info);
Napi::Value probe(const Napi::CallbackInfo& info);
Napi::Value decode(const Napi::CallbackInfo& info);
Napi::Value fill_rows(const Napi::CallbackInfo& info);
Napi::Value resample(const Napi::CallbackInfo& info);
Napi::Value resampler_info(const Napi::CallbackInfo& info);

Napi::Value create_features(const Napi::CallbackInfo& info);
Napi::Value frontend_tensors(const Napi::CallbackInfo& info);

// A log-mel plan with threads of its own.
struct FeaturesState;

class FeaturesHandle : public Napi::ObjectWrap<FeaturesHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit FeaturesHandle(const Napi::CallbackInfo& info);
  void adopt(std::shared_ptr<FeaturesState> state) { state_ = std::move(state); }

 private:
  Napi::Value run(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);
  std::shared_ptr<FeaturesState> state_;
};

}  // namespace panns::bindings
