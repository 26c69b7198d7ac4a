#include "ops/attrs.h"

#include "core/error.h"

namespace panns::ops {
namespace {

constexpr int64_t kBig = int64_t{1} << 30;

std::string by(Pair p) { return cat(p[0], "x", p[1]); }

Init weight_init(AttrMap& map) {
  return static_cast<Init>(map.choice("init", 0, {"xavier", "kaiming", "normal"}));
}

}  // namespace

LogmelAttrs LogmelAttrs::parse(AttrMap& map) {
  LogmelAttrs a;
  a.sample_rate = map.integer("sample_rate", a.sample_rate, 1, 768000);
  a.window_size = map.integer("window_size", a.window_size, 2, 1 << 20);
  a.hop_size = map.integer("hop_size", a.hop_size, 1, 1 << 20);
  a.mel_bins = map.integer("mel_bins", a.mel_bins, 1, 4096);
  a.fmin = map.number("fmin", a.fmin, 0, 384000);
  a.fmax = map.number("fmax", a.fmax, 0, 384000);
  a.window_length = map.integer("window_length", a.window_size, 1, a.window_size);
  a.periodic = map.flag("periodic", a.periodic);
  a.preemphasis = map.number("preemphasis", a.preemphasis, -1, 1);
  a.mel_scale = static_cast<MelScale>(map.choice("mel_scale", 0, {"slaney", "kaldi"}));
  a.log = static_cast<LogKind>(map.choice("log", 0, {"decibel", "natural"}));
  a.shift = map.number("shift", a.shift, -1e6, 1e6);
  a.scale = map.number("scale", a.scale, -1e6, 1e6);
  return a;
}
std::string LogmelAttrs::text() const {
  std::string s = cat("rate=", sample_rate, " window=", window_size, " hop=", hop_size,
                      " mel=", mel_bins, " fmin=", fmin, " fmax=", fmax);
  if (window_length != window_size) s += cat(" length=", window_length);
  if (!periodic) s += " symmetric";
  if (preemphasis != 0) s += cat(" preemphasis=", preemphasis);
  if (mel_scale == MelScale::kaldi) s += " kaldi";
  if (log == LogKind::natural) s += " natural";
  if (shift != 0) s += cat(" shift=", shift);
  if (scale != 1) s += cat(" scale=", scale);
  return s;
}

PoolAttrs PoolAttrs::parse(AttrMap& map) {
  PoolAttrs a;
  a.kind = static_cast<PoolKind>(map.choice("kind", 0, {"avg", "max", "avg+max"}));
  a.kernel = map.pair("kernel", {2, 2}, 1, kBig);
  a.stride = map.pair("stride", a.kernel, 1, kBig);
  a.padding = map.pair("padding", {0, 0}, 0, kBig);
  for (int i = 0; i < 2; ++i) {
    PANNS_CHECK(a.padding[i] * 2 <= a.kernel[i], "ERR_PANNS_SPEC", map.where(),
                "expected padding of at most half the kernel ", by(a.kernel), ", got ",
                by(a.padding));
  }
  return a;
}
std::string PoolAttrs::text() const {
  static const char* names[] = {"avg", "max", "avg+max"};
  std::string s = cat(names[static_cast<int>(kind)], " ", by(kernel));
  if (stride != kernel) s += " stride=" + by(stride);
  if (padding != Pair{0, 0}) s += " pad=" + by(padding);
  return s;
}

DropoutAttrs DropoutAttrs::parse(AttrMap& map) {
  DropoutAttrs a;
  a.p = static_cast<float>(map.number("p", 0.5, 0, 0.999));
  return a;
}
std::string DropoutAttrs::text() const { return cat("p=", p, " mask=", mask); }

BatchNormAttrs BatchNormAttrs::parse(AttrMap& map) {
  BatchNormAttrs a;
  a.axis = map.choice("axis", 0, {"channel", "freq"}) == 0 ? Axis::channel : Axis::freq;
  a.eps = static_cast<float>(map.number("eps", 1e-5, 0, 1));
  a.momentum = static_cast<float>(map.number("momentum", 0.1, 0, 1));
  a.zero_gamma = map.flag("zero_gamma", false);
  return a;
}
std::string BatchNormAttrs::text() const {
  std::string s = axis == Axis::freq ? "freq" : "channel";
  s += training ? " batch" : " running";
  if (over_processes) s += " of all";
  if (from_sums) s += " from sums";
  if (of_conv) s += " of conv";
  if (of_conv && *of_conv != Pair{1, 1}) s += " stride=" + by(*of_conv);
  if (relu) s += " +relu";
  if (avg_pool_2x2) s += " +avg_pool_2x2";
  if (dropout.p > 0) s += " +dropout(" + dropout.text() + ")";
  if (spec_augment) s += " +spec_augment(" + spec_augment->text() + ")";
  if (mixup) s += " +mixup";
  return s;
}

SpecAugmentAttrs SpecAugmentAttrs::parse(AttrMap& map) {
  SpecAugmentAttrs a;
  a.time_width = map.integer("time_width", a.time_width, 1, 1 << 20);
  a.freq_width = map.integer("freq_width", a.freq_width, 1, 4096);
  return a;
}
std::string SpecAugmentAttrs::text() const {
  return cat("time=", time_width, " freq=", freq_width, " mask=", mask);
}

ConvAttrs ConvAttrs::parse(AttrMap& map) {
  ConvAttrs a;
  a.out_channels = map.integer("out_channels", 0, 1, 1 << 20);
  a.kernel = map.pair("kernel", {1, 1}, 1, 1 << 16);
  a.stride = map.pair("stride", {1, 1}, 1, 1 << 16);
  a.padding = map.pair("padding", {0, 0}, 0, 1 << 16);
  a.dilation = map.pair("dilation", {1, 1}, 1, 1 << 16);
  a.groups = map.integer("groups", 1, 1, 1 << 20);
  a.bias = map.flag("bias", false);
  a.init = weight_init(map);
  PANNS_CHECK(a.out_channels > 0, "ERR_PANNS_SPEC", map.where(), "expected out_channels, got none");
  return a;
}
std::string ConvAttrs::text() const {
  std::string s = by(kernel);
  if (stride != Pair{1, 1}) s += " stride=" + by(stride);
  if (padding != Pair{0, 0}) s += " pad=" + by(padding);
  if (dilation != Pair{1, 1}) s += " dilation=" + by(dilation);
  if (groups != 1) s += cat(" groups=", groups);
  if (bias) s += " +bias";
  if (relu) s += " +relu";
  if (avg_pool_2x2) s += " +avg_pool_2x2";
  if (statistics) s += " +statistics";
  return s;
}

ReduceAttrs ReduceAttrs::parse(AttrMap& map) {
  ReduceAttrs a;
  a.axis = map.choice("axis", 0, {"freq", "time"}) == 0 ? Axis::freq : Axis::time;
  a.kind = static_cast<ReduceKind>(map.choice("kind", 0, {"mean", "max", "max+mean"}));
  return a;
}
std::string ReduceAttrs::text() const {
  static const char* names[] = {"mean", "max", "max+mean"};
  return cat(names[static_cast<int>(kind)], " over ", axis == Axis::freq ? "freq" : "time");
}

BinsAttrs BinsAttrs::parse(AttrMap& map) {
  BinsAttrs a;
  a.bins = map.integer("bins", 1, 1, 1 << 20);
  return a;
}
std::string BinsAttrs::text() const { return cat("bins=", bins); }

UpsampleAttrs UpsampleAttrs::parse(AttrMap& map) {
  UpsampleAttrs a;
  a.ratio = map.integer("ratio", 1, 1, 1 << 20);
  return a;
}
std::string UpsampleAttrs::text() const { return cat("x", ratio); }

LinearAttrs LinearAttrs::parse(AttrMap& map) {
  LinearAttrs a;
  a.out_features = map.integer("out_features", 0, 1, 1 << 24);
  a.bias = map.flag("bias", true);
  a.init = weight_init(map);
  PANNS_CHECK(a.out_features > 0, "ERR_PANNS_SPEC", map.where(), "expected out_features, got none");
  return a;
}
std::string LinearAttrs::text() const {
  return cat(out_features, bias ? " +bias" : "", relu ? " +relu" : "");
}

AdamAttrs AdamAttrs::parse(AttrMap& map) {
  AdamAttrs a;
  a.beta1 = map.number("beta1", 0.9, 0, 0.9999999);
  a.beta2 = map.number("beta2", 0.999, 0, 0.9999999);
  a.eps = map.number("eps", 1e-8, 0, 1);
  a.weight_decay = map.number("weight_decay", 0, 0, 1e3);
  a.amsgrad = map.flag("amsgrad", false);
  a.decoupled = map.flag("decoupled", false);
  return a;
}
std::string AdamAttrs::text() const {
  return cat("betas=", beta1, ",", beta2, " eps=", eps, " weight_decay=", weight_decay,
             amsgrad ? " amsgrad" : "", decoupled ? " decoupled" : "",
             rate != 1 ? cat(" rate=", rate) : std::string());
}

SgdAttrs SgdAttrs::parse(AttrMap& map) {
  SgdAttrs a;
  a.momentum = map.number("momentum", 0, 0, 1);
  a.weight_decay = map.number("weight_decay", 0, 0, 1e3);
  a.nesterov = map.flag("nesterov", false);
  return a;
}
std::string SgdAttrs::text() const {
  return cat("momentum=", momentum, " weight_decay=", weight_decay, nesterov ? " nesterov" : "",
             rate != 1 ? cat(" rate=", rate) : std::string());
}

std::string text(const Attrs& attrs) {
  return std::visit([](const auto& a) { return a.text(); }, attrs);
}

}  // namespace panns::ops
