#include "backends/cuda/conv.h"

#include <optional>

#include "backends/cuda/activation.h"
#include "backends/cuda/conv_bias.h"
#include "backends/cuda/convert.h"

namespace panns::cuda {
namespace {

// What scratch memory is cut into; the allocator gives as much.
constexpr size_t kAlignment = 256;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

size_t bytes_of(const Operand& o) { return static_cast<size_t>(o.count * storage_bytes(o.used)); }

class ConvolutionKernel final : public Kernel {
 public:
  ConvolutionKernel(const Convolution& conv, TakeArguments take, Context& context)
      : conv_(conv), take_(take), context_(context) {
    choose_plan();
    lay_out_workspace();
    keeps_weight_ = forward() && conv_.frozen && conv_.w.converted();
    if (keeps_weight_) weight_ = allocate_device_memory(context.ordinal, bytes_of(conv_.w));
  }

  size_t workspace() const override { return workspace_; }

  void prepare(Stream& stream, const Args& args) override {
    const ConvArguments a = take_(args);
    if (!wanted(a)) return;
    const Launch launch = launch_on(stream, context_);
    if (keeps_weight_) {
      cast(launch, conv_.w.count, conv_.w.stored, a.w, conv_.w.used, weight_->data());
    }
    if (bound_.has_value()) return;
    bind(a, args.workspace);
    // Once outside of any capture: this loads the engine's kernels. What it computes is overwritten
    // by the first real run.
    run_plan(stream);
  }

  void enqueue(Stream& stream, const Args& args) override {
    const ConvArguments a = take_(args);
    auto* scratch = static_cast<std::byte*>(args.workspace);
    const Launch launch = launch_on(stream, context_);
    if (wanted(a)) {
      const bool weight_in = conv_.graph.pass != Pass::backward_weight;
      if (conv_.graph.pass != Pass::backward_data) cast_in(launch, conv_.x, a.x, scratch + x_at_);
      if (weight_in && !keeps_weight_) cast_in(launch, conv_.w, a.w, scratch + w_at_);
      if (!forward()) cast_in(launch, conv_.y, a.y, scratch + y_at_);
      if (pads_bias()) {
        copy_padded(launch, conv_.bias, conv_.graph.k, static_cast<const float*>(a.bias),
                    reinterpret_cast<float*>(scratch + bias_at_));
      }
      run_plan(stream);
      if (conv_.graph.pass == Pass::backward_data) {
        cast_out(launch, conv_.x, scratch + x_at_, a.x);
      } else if (!weight_in) {
        cast_out(launch, conv_.w, scratch + w_at_, a.w);
      } else {
        cast_out(launch, conv_.y, scratch + y_at_, a.y);
      }
    }
    if (sums_bias() && a.bias != nullptr) {
      column_sums(launch, conv_.rows, conv_.columns, conv_.bias, conv_.y.stored, a.y,
                  static_cast<float*>(a.bias), scratch + sums_at_);
    }
  }

 private:
  bool forward() const { return conv_.graph.pass == Pass::forward; }
  bool pads_bias() const { return conv_.graph.bias && conv_.bias != conv_.graph.k; }
  bool sums_bias() const { return conv_.graph.pass == Pass::backward_weight && conv_.bias > 0; }
  // The gradient of a weight may be the only thing that nobody asks for.
  bool wanted(const ConvArguments& a) const {
    return conv_.graph.pass != Pass::backward_weight || a.w != nullptr;
  }

  // A weight's gradient is asked for in float at once; where no engine gives it so, it comes in
  // the maps' type and is widened.
  void choose_plan() {
    ConvGraph& g = conv_.graph;
    if (g.pass == Pass::backward_weight && conv_.w.converted()) {
      g.float_gradient = true;
      plan_ = context_.plans->try_plan(g);
      if (plan_ != nullptr) {
        conv_.w.used = conv_.w.stored;
        return;
      }
      g.float_gradient = false;
    }
    plan_ = context_.plans->plan(g);
  }

  void lay_out_workspace() {
    workspace_ = aligned(plan_->workspace());
    const auto take = [&](bool needed, size_t bytes) {
      const size_t at = workspace_;
      if (needed) workspace_ += aligned(bytes);
      return at;
    };
    x_at_ = take(conv_.x.converted(), bytes_of(conv_.x));
    w_at_ = take(conv_.w.converted(), bytes_of(conv_.w));
    y_at_ = take(conv_.y.converted(), bytes_of(conv_.y));
    bias_at_ = take(pads_bias(), static_cast<size_t>(conv_.graph.k) * sizeof(float));
    sums_at_ =
        take(sums_bias(), static_cast<size_t>(column_sums_workspace(conv_.rows, conv_.columns)));
  }

  void bind(const ConvArguments& a, void* workspace) {
    auto* scratch = static_cast<std::byte*>(workspace);
    const auto place = [&](const Operand& o, void* stored, size_t at) -> void* {
      return o.converted() ? scratch + at : stored;
    };
    ConvPointers p;
    p.x = place(conv_.x, a.x, x_at_);
    p.w = keeps_weight_ ? weight_->data() : place(conv_.w, a.w, w_at_);
    p.y = place(conv_.y, a.y, y_at_);
    if (conv_.graph.bias) p.bias = pads_bias() ? scratch + bias_at_ : a.bias;
    bound_.emplace(context_.plans->target(), *plan_, conv_.graph, p, workspace);
  }

  void run_plan(Stream& stream) {
    const Target& target = context_.plans->target();
    target.api->check(target.api->set_stream(target.handle, cuda_stream(stream).raw()),
                      "cudnnSetStream");
    bound_->run();
  }

  static void cast_in(const Launch& launch, const Operand& o, const void* stored, void* used) {
    if (o.converted()) cast(launch, o.count, o.stored, stored, o.used, used);
  }
  static void cast_out(const Launch& launch, const Operand& o, const void* used, void* stored) {
    if (o.converted()) cast(launch, o.count, o.used, used, o.stored, stored);
  }

  Convolution conv_;
  TakeArguments take_;
  Context& context_;
  std::shared_ptr<const Plan> plan_;
  std::optional<BoundPlan> bound_;
  bool keeps_weight_ = false;
  std::unique_ptr<backends::Memory> weight_;  // a frozen weight in the maps' type
  size_t workspace_ = 0, x_at_ = 0, w_at_ = 0, y_at_ = 0, bias_at_ = 0, sums_at_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make_convolution(const Convolution& conv, TakeArguments take,
                                         Context& context) {
  return std::make_unique<ConvolutionKernel>(conv, take, context);
}

}  // namespace panns::cuda
