#include <algorithm>
#include <cstdlib>

#include "backends/cpu/logmel.h"
#include "bindings/audio.h"
#include "bindings/convert.h"
#include "frontend/mel.h"
#include "frontend/window.h"

namespace panns::bindings {

struct FeaturesState {
  FeaturesState(const frontend::LogmelConfig& config, int threads)
      : pool(threads), logmel(config, pool.size()) {
    const auto bytes = static_cast<size_t>(logmel.workspace_bytes() + 63) / 64 * 64;
    workspace.reset(std::aligned_alloc(64, bytes > 0 ? bytes : 64));
    PANNS_CHECK(workspace != nullptr, "ERR_PANNS_OUT_OF_MEMORY", "features", "the system refused ",
                bytes, " bytes");
  }
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  ThreadPool pool;
  cpu::Logmel logmel;
  std::unique_ptr<void, Free> workspace;
};

namespace {

frontend::LogmelConfig to_config(const Napi::Value& value) {
  PANNS_CHECK(value.IsObject(), "ERR_PANNS_OPTION", "features", "expected options as an object");
  const auto o = value.As<Napi::Object>();
  frontend::LogmelConfig c;
  c.sample_rate = integer(o, "sampleRate");
  c.window_size = integer(o, "windowSize");
  c.hop_size = integer(o, "hopSize");
  c.mel_bins = integer(o, "melBins");
  c.fmin = number(o, "fmin");
  c.fmax = number(o, "fmax");
  if (given(o, "windowLength")) c.window_length = integer(o, "windowLength");
  if (given(o, "periodic")) c.periodic = flag(o, "periodic");
  if (given(o, "preemphasis")) c.preemphasis = number(o, "preemphasis");
  if (given(o, "melScale")) {
    c.mel_scale = static_cast<ops::MelScale>(choice(o, "melScale", {"slaney", "kaldi"}));
  }
  if (given(o, "log")) {
    c.log = static_cast<ops::LogKind>(choice(o, "log", {"decibel", "natural"}));
  }
  if (given(o, "shift")) c.shift = number(o, "shift");
  if (given(o, "scale")) c.scale = number(o, "scale");
  c.validate();
  return c;
}

// The floats, or those that 16-bit samples stand for, which `room` then holds.
const float* as_floats(const graph::InputValues& values, int64_t count, std::vector<float>& room) {
  if (const auto* floats = std::get_if<const float*>(&values)) return *floats;
  const int16_t* samples = std::get<const int16_t*>(values);
  room.resize(static_cast<size_t>(count));
  std::transform(samples, samples + count, room.begin(), backends::sample_of);
  return room.data();
}

}  // namespace

Napi::Function FeaturesHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeFeatures",
                     {InstanceMethod<&FeaturesHandle::run>("run"),
                      InstanceMethod<&FeaturesHandle::dispose>("dispose")});
}

FeaturesHandle::FeaturesHandle(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<FeaturesHandle>(info) {}

Napi::Value FeaturesHandle::run(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    PANNS_CHECK(state_ != nullptr, "ERR_PANNS_DISPOSED", "features",
                "the extractor was disposed of");
    const int64_t batch = batch_size(info[1]), samples = sample_count(info[2]);
    const std::string kind = info[3].ToString().Utf8Value();
    PANNS_CHECK(kind == "logmel" || kind == "spectrogram", "ERR_PANNS_OPTION", "output",
                "expected 'logmel' or 'spectrogram', got '", kind, "'");
    const auto output = kind == "logmel" ? cpu::LogmelOutput::rows : cpu::LogmelOutput::spectrum;
    state_->logmel.config().check_samples(samples);
    Job job;
    const SampleInput waveform(info[0], "waveform", batch * samples, job);
    auto out = std::make_shared<std::vector<float>>();
    job.work = [=, s = state_](const auto&) {
      out->resize(static_cast<size_t>(s->logmel.output_size(batch, samples, output)));
      std::vector<float> floats;
      s->logmel.run(s->pool, as_floats(waveform.values(), batch * samples, floats), batch, samples,
                    output, out->data(), s->workspace.get());
    };
    job.result = [out](Napi::Env env) { return to_array(env, *out); };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

void FeaturesHandle::dispose(const Napi::CallbackInfo&) { state_.reset(); }

Napi::Value create_features(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto config = to_config(info[0]);
    const int64_t threads = integer(info[1], "threads", 0, 1024);
    const Napi::Object handle = instance(info.Env()).features.New({});
    FeaturesHandle::Unwrap(handle)->adopt(
        std::make_shared<FeaturesState>(config, static_cast<int>(threads)));
    return handle;
  });
}

Napi::Value frontend_tensors(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto config = to_config(info[0]);
    auto stft = std::make_shared<frontend::StftKernels>();
    auto mel = std::make_shared<std::vector<float>>();
    return instance(info.Env())
        .compute->post(info.Env(), {[=](const auto&) {
                                      *stft = frontend::stft_kernels(config);
                                      *mel = frontend::mel_filter_bank(config).dense();
                                    },
                                    [=](Napi::Env env) -> Napi::Value {
                                      auto o = Napi::Object::New(env);
                                      o.Set("convReal", to_array(env, stft->real));
                                      o.Set("convImag", to_array(env, stft->imag));
                                      o.Set("melW", to_array(env, *mel));
                                      return o;
                                    },
                                    {}});
  });
}

}  // namespace panns::bindings
