#include "bindings/audio.h"

#include <algorithm>
#include <optional>

#include "audio/decode.h"
#include "audio/resample.h"
#include "audio/sndfile.h"
#include "bindings/convert.h"
#include "data/rows.h"

namespace panns::bindings {
namespace {

Napi::Object to_object(Napi::Env env, const audio::AudioInfo& a) {
  auto o = Napi::Object::New(env);
  o.Set("frames", static_cast<double>(a.frames));
  o.Set("sampleRate", a.sample_rate);
  o.Set("channels", a.channels);
  o.Set("format", a.format);
  o.Set("subtype", a.subtype);
  return o;
}

// A path, or a file's bytes.
class SourceInput {
 public:
  SourceInput(const Napi::Value& value, Job& job) {
    if (value.IsString()) {
      path_ = value.As<Napi::String>().Utf8Value();
      return;
    }
    PANNS_CHECK(value.IsTypedArray(), "ERR_PANNS_OPTION", "source",
                "expected a path or a Uint8Array");
    bytes_.emplace(value, "source", -1, job);
  }
  audio::Source source() const {
    audio::Source s;
    s.path = path_;
    if (bytes_) s.bytes = std::span(bytes_->data(), static_cast<size_t>(bytes_->size()));
    return s;
  }

 private:
  std::string path_;
  std::optional<ArrayInput<uint8_t>> bytes_;
};

// Rates reach the core as int; anything beyond is refused here with its value.
int to_rate(const Napi::Object& o, const char* name) {
  const int64_t rate = integer(o, name);
  PANNS_CHECK(rate >= 0 && rate <= 768000, "ERR_PANNS_OPTION", name, "expected 0..768000 Hz, got ",
              rate);
  return static_cast<int>(rate);
}

}  // namespace

Napi::Value audio_library(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const audio::SndfileStatus status = audio::sndfile_status();
    std::string error;
    if (!status.loaded) {
      for (const auto& a : status.attempts)
        error += (error.empty() ? "" : "; ") + a.path + ": " + a.reason;
    }
    auto o = Napi::Object::New(env);
    o.Set("path", status.path);
    o.Set("version", status.version);
    o.Set("error", error);
    return o;
  });
}

Napi::Value set_audio_library_folder(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    PANNS_CHECK(info[0].IsString(), "ERR_PANNS_OPTION", "folder", "expected a string");
    audio::set_sndfile_dir(info[0].As<Napi::String>().Utf8Value());
    return info.Env().Undefined();
  });
}

Napi::Value probe(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Job job;
    const SourceInput source(info[0], job);
    auto found = std::make_shared<audio::AudioInfo>();
    job.work = [=](const std::atomic<bool>& cancel) {
      *found = audio::probe(source.source(), &cancel);
    };
    job.result = [found](Napi::Env env) -> Napi::Value { return to_object(env, *found); };
    return instance(info.Env()).audio->post(info.Env(), std::move(job));
  });
}

Napi::Value decode(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Job job;
    const SourceInput source(info[0], job);
    PANNS_CHECK(info[1].IsObject(), "ERR_PANNS_OPTION", "decode", "expected options as an object");
    const auto o = info[1].As<Napi::Object>();
    audio::DecodeRequest request;
    request.start_seconds = number(o, "start");
    request.duration_seconds = number(o, "duration");
    request.target_rate = to_rate(o, "sampleRate");
    request.mono = flag(o, "mono");
    request.nan = flag(o, "nanToZero") ? audio::NanPolicy::kZero : audio::NanPolicy::kError;
    request.max_seconds = number(o, "maxSeconds");
    take_cancel_flag(info[2], job);
    auto decoded = std::make_shared<audio::Decoded>();
    job.work = [=](const std::atomic<bool>& cancel) mutable {
      request.source = source.source();
      request.cancel = &cancel;
      *decoded = audio::decode(request);
    };
    job.result = [=](Napi::Env env) -> Napi::Value {
      auto r = Napi::Object::New(env);
      auto channels = Napi::Array::New(env);
      for (size_t c = 0; c < decoded->channels.size(); ++c) {
        const auto& samples = decoded->channels[c];
        channels.Set(static_cast<uint32_t>(c),
                     to_array(env, samples.data(), static_cast<size_t>(samples.size())));
      }
      r.Set("channels", channels);
      r.Set("sampleRate", decoded->sample_rate);
      r.Set("truncated", decoded->truncated);
      r.Set("info", to_object(env, decoded->info));
      return r;
    };
    return instance(info.Env()).audio->post(info.Env(), std::move(job));
  });
}

namespace {

// Where a row's samples come from: `samples` in memory, `offset` in a file, or a file to decode.
data::RowRequest to_row(const Napi::Value& value, Job& job) {
  PANNS_CHECK(value.IsObject(), "ERR_PANNS_OPTION", "fillRows", "expected rows as objects");
  const auto o = value.As<Napi::Object>();
  data::RowRequest request;
  request.row = shared_samples(o.Get("row"), "row", job);
  request.most = integer(o, "most");
  if (given(o, "samples")) {
    const auto samples = shared_samples(o.Get("samples"), "samples", job);
    PANNS_CHECK(request.most <= static_cast<int64_t>(samples.size()), "ERR_PANNS_SHAPE", "samples",
                "expected ", request.most, " samples, got ", samples.size());
    request.clip = data::HeldClip{samples.data()};
  } else if (given(o, "offset")) {
    request.clip = data::StoredClip{text(o, "path"), integer(o, "offset")};
  } else {
    data::AudioClip clip;
    clip.source.path = text(o, "path");
    clip.start_seconds = number(o, "start");
    clip.duration_seconds = number(o, "duration");
    request.clip = std::move(clip);
  }
  return request;
}

Napi::Value to_value(Napi::Env env, const data::RowResult& result) {
  if (result.code.empty()) return Napi::Number::New(env, static_cast<double>(result.samples));
  auto o = Napi::Object::New(env);
  o.Set("code", result.code);
  o.Set("message", result.message);
  return o;
}

}  // namespace

Napi::Value fill_rows(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    PANNS_CHECK(info[0].IsArray() && info[1].IsObject(), "ERR_PANNS_OPTION", "fillRows",
                "expected a list of rows and options");
    const auto list = info[0].As<Napi::Array>();
    const auto o = info[1].As<Napi::Object>();
    Job job;
    auto rows = std::make_shared<std::vector<data::RowRequest>>();
    for (uint32_t i = 0; i < list.Length(); ++i) {
      const Napi::HandleScope scope(info.Env());
      rows->push_back(to_row(list.Get(i), job));
    }
    data::RowOptions options;
    options.target_rate = to_rate(o, "sampleRate");
    const int64_t threads = integer(o, "threads");
    PANNS_CHECK(threads >= 0 && threads <= 1024, "ERR_PANNS_OPTION", "threads",
                "expected 0..1024, got ", threads);
    take_cancel_flag(info[2], job);
    auto results = std::make_shared<std::vector<data::RowResult>>();
    job.work = [=](const std::atomic<bool>& cancel) mutable {
      // More threads than rows would only be started and stopped.
      const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(rows->size()));
      ThreadPool pool(
          static_cast<int>(std::min<int64_t>(threads > 0 ? threads : available_cores(), most)));
      options.cancel = &cancel;
      *results = data::fill_rows(*rows, options, pool);
    };
    job.result = [=](Napi::Env env) -> Napi::Value {
      auto all = Napi::Array::New(env, results->size());
      for (size_t i = 0; i < results->size(); ++i) {
        all.Set(static_cast<uint32_t>(i), to_value(env, (*results)[i]));
      }
      return all;
    };
    return instance(info.Env()).audio->post(info.Env(), std::move(job));
  });
}

Napi::Value resample(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Job job;
    const FloatInput samples(info[0], "samples", -1, job);
    const int64_t from = integer(info[1], "from", 1, 768000),
                  to = integer(info[2], "to", 1, 768000);
    auto out = std::make_shared<std::vector<float>>();
    job.work = [=](const auto&) {
      const audio::Resampler resampler(from, to);
      out->resize(static_cast<size_t>(resampler.output_size(samples.size())));
      audio::resample(samples.data(), samples.size(), from, to, out->data());
    };
    job.result = [out](Napi::Env env) { return to_array(env, *out); };
    return instance(info.Env()).audio->post(info.Env(), std::move(job));
  });
}

Napi::Value resampler_info(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const audio::Resampler r(integer(info[0], "from", 1, 768000),
                             integer(info[1], "to", 1, 768000));
    auto o = Napi::Object::New(info.Env());
    o.Set("passbandHz", r.passband_hz());
    o.Set("taps", static_cast<double>(r.taps()));
    return o;
  });
}

}  // namespace panns::bindings
