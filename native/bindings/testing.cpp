#include "bindings/testing.h"

#include <cstddef>
#include <vector>

#include "bindings/convert.h"
#include "bindings/device.h"
#include "bindings/model.h"
#include "graph/fuse.h"

namespace panns::bindings {
namespace {

// Attributes that parse() does not read from a spec because passes set them.
struct Extra {
  bool training = false, relu = false, pool = false, frozen = false;
  double dropout = 0;
  int64_t mask = 0, in_channels = 0;
  ops::Pair in_extent{0, 0}, channels{0, 0};
};

Extra take_extra(const Napi::Object& attrs) {
  Extra e;
  const auto boolean = [&](const char* name, bool& to) {
    if (attrs.Has(name)) {
      to = flag(attrs, name);
      attrs.Delete(name);
    }
  };
  const auto whole = [&](const char* name, int64_t& to) {
    if (attrs.Has(name)) {
      to = integer(attrs, name);
      attrs.Delete(name);
    }
  };
  boolean("training", e.training);
  boolean("relu", e.relu);
  boolean("avg_pool_2x2", e.pool);
  boolean("frozen", e.frozen);
  whole("mask", e.mask);
  whole("in_channels", e.in_channels);
  whole("in_t", e.in_extent[0]);
  whole("in_f", e.in_extent[1]);
  whole("channels_a", e.channels[0]);
  whole("channels_b", e.channels[1]);
  if (attrs.Has("dropout")) {
    e.dropout = number(attrs, "dropout");
    attrs.Delete("dropout");
  }
  return e;
}

// The op whose parse() reads the attributes: backward ops share their forward's.
ops::Attrs parse_attrs(ops::Op op, ops::AttrMap& map, const Extra& e) {
  using ops::Op;
  const auto with = [&](auto a) -> ops::Attrs {
    using T = decltype(a);
    if constexpr (std::is_same_v<T, ops::BatchNormAttrs>) {
      a.training = e.training;
      a.relu = e.relu;
      a.avg_pool_2x2 = e.pool;
      a.dropout = {static_cast<float>(e.dropout), static_cast<int32_t>(e.mask)};
    } else if constexpr (std::is_same_v<T, ops::ConvAttrs>) {
      a.relu = e.relu;
      a.avg_pool_2x2 = e.pool;
      a.frozen = e.frozen;
      a.in_channels = e.in_channels;
      a.in_extent = e.in_extent;
    } else if constexpr (std::is_same_v<T, ops::ConcatAttrs>) {
      a.channels = e.channels;
    } else if constexpr (std::is_same_v<T, ops::LinearAttrs>) {
      a.relu = e.relu;
    } else if constexpr (std::is_same_v<T, ops::DropoutAttrs> ||
                         std::is_same_v<T, ops::SpecAugmentAttrs>) {
      a.mask = static_cast<int32_t>(e.mask);
    }
    return a;
  };
  switch (op) {
#define PANNS_OP(name, A) \
  case Op::name:          \
    return with(ops::A::parse(map));
#include "ops/list.inc"
#undef PANNS_OP
  }
  throw Error("ERR_PANNS_INTERNAL", "runOp", "unreachable");
}

struct HostTensor {
  ops::TensorSpec spec;
  std::vector<float> data;
};

ops::Form to_form(const std::string& s) {
  if (s == "map") return ops::Form::map;
  return s == "filter" ? ops::Form::filter : ops::Form::dense;
}

const char* form_name(ops::Form f) {
  return f == ops::Form::map ? "map" : f == ops::Form::filter ? "filter" : "dense";
}

// In-place ops change their inputs, which are then returned as if they were outputs.
bool in_place(ops::Op op) {
  return op == ops::Op::adam || op == ops::Op::sgd || op == ops::Op::grad_norm;
}

// batch_norm in training moves its running statistics: inputs 3 and 4.
bool moves_buffers(const ops::Attrs& attrs) {
  const auto* bn = std::get_if<ops::BatchNormAttrs>(&attrs);
  return bn != nullptr && bn->training;
}

}  // namespace

Napi::Value run_op(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string name = info[0].ToString().Utf8Value();
    ops::Op op{};
    bool found = false;
#define PANNS_OP(n, A) \
  if (name == #n) {    \
    op = ops::Op::n;   \
    found = true;      \
  }
#include "ops/list.inc"
#undef PANNS_OP
    PANNS_CHECK(found, "ERR_PANNS_SPEC", "runOp", "unknown op '", name, "'");
    const auto attr_object = info[1].As<Napi::Object>();
    const Extra extra = take_extra(attr_object);
    ops::AttrMap map = to_attrs(attr_object, name);
    const ops::Attrs attrs = parse_attrs(op, map, extra);
    map.finish();

    auto inputs = std::make_shared<std::vector<HostTensor>>();
    const auto list = info[2].As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); ++i) {
      const auto o = list.Get(i).As<Napi::Object>();
      HostTensor t;
      const auto dims = o.Get("shape").As<Napi::Array>();
      t.spec.form = to_form(text(o, "form"));
      Shape shape;
      switch (dims.Length()) {
        case 1:
          shape = Shape{0};
          break;
        case 2:
          shape = Shape{0, 0};
          break;
        default:
          shape = Shape{0, 0, 0, 0};
      }
      for (uint32_t d = 0; d < dims.Length(); ++d) {
        shape[static_cast<int>(d)] = dims.Get(d).ToNumber().Int64Value();
      }
      t.spec.shape = shape;
      const auto data = o.Get("data").As<Napi::Float32Array>();
      PANNS_CHECK(static_cast<int64_t>(data.ElementLength()) == shape.size(), "ERR_PANNS_SHAPE",
                  name, "expected ", shape.size(), " values, got ", data.ElementLength());
      t.data.assign(data.Data(), data.Data() + data.ElementLength());
      inputs->push_back(std::move(t));
    }
    const auto so = info[3].As<Napi::Object>();
    backends::StepState state;
    if (so.Has("seed")) state.seed = bigint(so.Get("seed"), "seed");
    if (so.Has("step")) state.step = static_cast<uint32_t>(integer(so, "step"));
    if (so.Has("lr")) state.lr = static_cast<float>(number(so, "lr"));
    if (so.Has("maxNorm")) state.max_norm = static_cast<float>(number(so, "maxNorm"));
    const DeviceChoice choice = info[4].IsObject() ? to_device_choice(info[4]) : DeviceChoice{};
    // Eager: kernel by kernel, and not as a recording of them.
    const bool eager = info[4].IsObject() && info[4].As<Napi::Object>().Has("eager");
    auto outputs = std::make_shared<std::vector<HostTensor>>();
    Job job;
    job.work = [=](const auto&) {
      const auto device = make_device(choice);
      const auto stream = device->stream();
      graph::Graph g;
      std::vector<graph::ValueId> in;
      for (const HostTensor& t : *inputs)
        in.push_back(g.add_value({"input", t.spec, graph::Kind::input}));
      const graph::Node node = g.add_node(op, attrs, name, in);
      for (size_t i = 0; i < node.out.size(); ++i) g.outputs[cat("out", i)] = node.out[i];
      graph::Program::Options options;
      options.reuse_memory = false;
      options.capture = !eager;
      graph::Program program(std::move(g), *device, {}, options);
      const auto read = [&](graph::ValueId v) {
        HostTensor t{program.graph().spec(v), {}};
        t.data.resize(static_cast<size_t>(t.spec.shape.size()));
        device->export_value(*stream, t.spec, program.address(v), t.data.data());
        outputs->push_back(std::move(t));
      };
      for (size_t i = 0; i < in.size(); ++i) {
        device->import_value(*stream, (*inputs)[i].spec, (*inputs)[i].data.data(),
                             program.address(in[i]));
      }
      program.refresh(*stream);
      // Poison: what a kernel does not write shows as NaN. All bits set are one in every type.
      for (graph::ValueId v : node.out) {
        const std::vector<std::byte> ones(device->bytes(program.graph().spec(v)), std::byte{0xff});
        stream->upload(program.address(v), ones.data(), ones.size());
      }
      program.run(*stream, state);
      for (graph::ValueId v : node.out) read(v);
      if (in_place(op)) {
        for (graph::ValueId v : in) read(v);
      } else if (op == ops::Op::batch_norm && moves_buffers(attrs)) {
        read(in[3]);
        read(in[4]);
      }
      if (op == ops::Op::grad_norm) {
        const auto after = program.read_state(*stream);
        outputs->push_back({{Shape{2}, ops::Form::dense}, {after.grad_norm, after.grad_scale}});
      }
      stream->synchronize();
    };
    job.result = [=](Napi::Env env) -> Napi::Value {
      auto all = Napi::Array::New(env);
      for (size_t i = 0; i < outputs->size(); ++i) {
        const HostTensor& t = (*outputs)[i];
        auto o = Napi::Object::New(env);
        auto dims = Napi::Array::New(env);
        for (int d = 0; d < t.spec.shape.rank(); ++d) {
          dims.Set(static_cast<uint32_t>(d), static_cast<double>(t.spec.shape[d]));
        }
        o.Set("shape", dims);
        o.Set("form", form_name(t.spec.form));
        o.Set("data", to_array(env, t.data));
        all.Set(static_cast<uint32_t>(i), o);
      }
      return all;
    };
    return instance(info.Env()).compute->post(info.Env(), std::move(job));
  });
}

Napi::Value null_step(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const graph::Spec spec = to_spec(info[0]);
    const auto options = to_session_options(info[1]);
    const auto device = backends::make_null_device();
    const graph::Graph g = graph::parse(spec, {1, options.samples, false, false});
    graph::Parameters parameters(g, *device);
    train::Session session(*device, parameters, spec, options);
    const auto clips = static_cast<size_t>(session.clips());
    const std::vector<float> waveform(clips * static_cast<size_t>(options.samples), 0.5f);
    const std::vector<float> target(clips * static_cast<size_t>(session.classes()), 1.0f);
    const std::vector<float> lambda(clips, 0.5f);
    auto runs = Napi::Array::New(env);
    // The first run captures; the others replay. The null kernels add one to what they write.
    for (uint32_t i = 0; i < 3; ++i) {
      const auto r = session.step({waveform.data(), target.data(), lambda.data(), {}, true});
      runs.Set(i, r.loss);
    }
    auto o = Napi::Object::New(env);
    o.Set("text", session.text());
    o.Set("runs", runs);
    o.Set("bytes", static_cast<double>(session.need().added()));
    return o;
  });
}

Napi::Value fusions(const Napi::CallbackInfo& info) {
  auto list = Napi::Array::New(info.Env());
  uint32_t i = 0;
  for (const auto& name : graph::fusion_names()) list.Set(i++, name);
  return list;
}

}  // namespace panns::bindings
