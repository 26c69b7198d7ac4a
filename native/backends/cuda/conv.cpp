#include "backends/cuda/conv.h"

#include <optional>

#include "backends/cuda/activation.h"
#include "backends/cuda/bin_pairs.h"
#include "backends/cuda/conv_bias.h"
#include "backends/cuda/convert.h"
#include "backends/cuda/measure.h"

namespace panns::cuda {
namespace {

// What scratch memory is cut into; the allocator gives as much.
constexpr size_t kAlignment = 256;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

size_t bytes_of(const Operand& o) { return static_cast<size_t>(o.count * storage_bytes(o.used)); }

class ConvolutionKernel final : public Kernel {
 public:
  ConvolutionKernel(const Convolution& conv, TakeArguments take, Context& context)
      : asked_(conv), take_(take), context_(context) {
    choose_plan();
    lay_out_workspace();
    planned_ = workspace_;
  }

  size_t workspace() const override { return planned_; }
  size_t keeps() const override {
    const size_t scratch = own_scratch_ != nullptr ? own_scratch_->bytes() : 0;
    return scratch + (copies_weight() && conv_.frozen ? copy_bytes() : 0);
  }

  void prepare(Stream& stream, const Args& args) override {
    const ConvArguments a = take_(args);
    if (!wanted(a)) return;
    const Launch launch = launch_on(stream, context_);
    if (copies_weight()) {
      if (weight_ == nullptr) weight_ = place_of_copy(a);
      if (pairs() == Pairs::before) {
        pair_filter(launch, conv_.filter, conv_.w.stored, a.w, conv_.w.used, weight_);
      } else {
        cast(launch, conv_.w.count, conv_.w.stored, a.w, conv_.w.used, weight_);
      }
    }
    if (bound_.has_value()) return;
    bind_what_runs(cuda_stream(stream), a, args);
  }

  void enqueue(Stream& stream, const Args& args) override {
    const ConvArguments a = take_(args);
    auto* scratch = scratch_of(args);
    const Launch launch = launch_on(stream, context_);
    if (wanted(a)) {
      if (conv_.graph.pass != Pass::backward_data) cast_in(launch, conv_.x, a.x, scratch + x_at_);
      if (!forward()) cast_in(launch, conv_.y, a.y, scratch + y_at_);
      if (reads_weight() && pairs() == Pairs::each_run) {
        const bool copied = weight_ != nullptr;
        pair_filter(launch, conv_.filter, copied ? conv_.w.used : conv_.w.stored,
                    copied ? weight_ : a.w, conv_.w.used, scratch + w_at_);
      }
      if (pads_bias()) pad_bias(launch, static_cast<const float*>(a.bias), scratch + bias_at_);
      // Engines may add to what is there.
      if (conv_.graph.statistics) clear_sums(stream);
      run_plan(stream);
      if (apart_) {
        add_bias(launch, conv_.rows, conv_.columns, a.bias != nullptr ? conv_.bias : 0,
                 conv_.y.used, static_cast<const float*>(a.bias), relu_,
                 conv_.y.converted() ? scratch + y_at_ : a.y);
      }
      if (conv_.graph.pass == Pass::backward_data) {
        cast_out(launch, conv_.x, scratch + x_at_, a.x);
      } else if (!reads_weight() && pairs() != Pairs::none) {
        unpair_gradient(launch, conv_.filter, conv_.w.used, scratch + w_at_,
                        static_cast<float*>(a.w));
      } else if (!reads_weight()) {
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
  bool reads_weight() const { return conv_.graph.pass != Pass::backward_weight; }
  Pairs pairs() const { return conv_.graph.pairs; }
  bool copies_weight() const {
    return reads_weight() && (conv_.w.converted() || pairs() == Pairs::before);
  }
  size_t paired_bytes() const {
    return static_cast<size_t>(paired_size(conv_.filter) * storage_bytes(conv_.w.used));
  }
  size_t copy_bytes() const {
    return pairs() == Pairs::before ? paired_bytes() : bytes_of(conv_.w);
  }
  bool pads_bias() const { return conv_.graph.bias && conv_.bias != conv_.graph.k; }
  bool sums_bias() const { return conv_.graph.pass == Pass::backward_weight && conv_.bias > 0; }
  // The gradient of a weight may be the only thing that nobody asks for.
  bool wanted(const ConvArguments& a) const { return reads_weight() || a.w != nullptr; }

  // Own memory also for a weight that trains in no session: of a node that is run alone.
  void* place_of_copy(const ConvArguments& a) {
    if (!conv_.frozen && a.copy != nullptr) return a.copy;
    own_copy_ = allocate_device_memory(context_.ordinal, copy_bytes());
    return own_copy_->data();
  }

  std::byte* scratch_of(const Args& args) const {
    return own_scratch_ != nullptr ? own_scratch_->data() : static_cast<std::byte*>(args.workspace);
  }

  void choose_plan() {
    Plans& plans = *context_.plans;
    conv_ = asked_;
    if (can_pair(conv_)) {
      const Convolution over_pairs = paired(conv_);
      if (plans.prefers(over_pairs.graph, conv_.graph)) conv_ = over_pairs;
    }
    plans.prefer_float_gradient(conv_.graph);
    if (conv_.graph.float_gradient) conv_.w.used = conv_.w.stored;
    ConvGraph& g = conv_.graph;
    apart_ = (g.bias || g.relu) && !g.statistics && plans.try_plan(g) == nullptr;
    if (apart_) {
      relu_ = g.relu;
      g.bias = g.relu = false;
    }
    plan_ = plans.plan(g);
  }

  // Engines that fail when they first run are passed over, as those that cannot be built. What that
  // run computes is overwritten by the first real one. Where the next engine needs more scratch
  // memory than was planned, the kernel takes its own; later programs are planned with that engine.
  void bind_what_runs(CudaStream& stream, const ConvArguments& a, const Args& args) {
    Plans& plans = *context_.plans;
    for (;; plan_.reset()) {
      if (plan_ == nullptr) {
        choose_plan();
        lay_out_workspace();
      }
      const size_t room = own_scratch_ != nullptr ? own_scratch_->bytes() : planned_;
      if (workspace_ > room) {
        own_scratch_ = allocate_device_memory(context_.ordinal, workspace_);
      }
      bind(a, scratch_of(args));
      std::string reason;
      try {
        if (first_run(plans.target(), stream, conv_.graph, *plan_, *bound_, &reason)) return;
      } catch (const DeviceLost& e) {
        plans.refuse(conv_.graph, *plan_, e.what());
        throw;
      }
      bound_.reset();
      plans.refuse(conv_.graph, *plan_, reason);
    }
  }

  void lay_out_workspace() {
    workspace_ = aligned(plan_->workspace());
    const auto take = [&](bool needed, size_t bytes) {
      const size_t at = workspace_;
      if (needed) workspace_ += aligned(bytes);
      return at;
    };
    x_at_ = take(conv_.x.converted(), bytes_of(conv_.x));
    if (pairs() != Pairs::none) {
      w_at_ = take(pairs() == Pairs::each_run, paired_bytes());
    } else {
      w_at_ = take(conv_.w.converted() && !reads_weight(), bytes_of(conv_.w));
    }
    y_at_ = take(conv_.y.converted(), bytes_of(conv_.y));
    bias_at_ = take(pads_bias(), static_cast<size_t>(conv_.graph.k) * sizeof(float));
    statistics_at_ =
        take(conv_.graph.statistics, 2 * static_cast<size_t>(conv_.graph.k) * sizeof(float));
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
    if (pairs() == Pairs::each_run) {
      p.w = scratch + w_at_;
    } else {
      p.w = copies_weight() ? weight_ : place(conv_.w, a.w, w_at_);
    }
    p.y = place(conv_.y, a.y, y_at_);
    if (conv_.graph.bias) p.bias = pads_bias() ? scratch + bias_at_ : a.bias;
    // A norm that leads nowhere has been left out, and the sums it would have taken go nowhere.
    const auto sums = static_cast<size_t>(conv_.graph.k) * sizeof(float);
    p.sum = sum_ = a.sum != nullptr ? a.sum : scratch + statistics_at_;
    p.sum_of_squares = sum_of_squares_ =
        a.sum_of_squares != nullptr ? a.sum_of_squares : scratch + statistics_at_ + sums;
    bound_.emplace(context_.plans->target(), *plan_, conv_.graph, p, workspace);
  }

  // Zeros behind it for the padding; of pairs each bin has its own.
  void pad_bias(const Launch& launch, const float* bias, std::byte* padded) const {
    const int bins = pairs() != Pairs::none ? 2 : 1;
    const int64_t each = conv_.graph.k / bins;
    for (int bin = 0; bin < bins; ++bin) {
      copy_padded(launch, conv_.bias, each, bias, reinterpret_cast<float*>(padded) + bin * each);
    }
  }

  void clear_sums(Stream& stream) const {
    const size_t bytes = static_cast<size_t>(conv_.graph.k) * sizeof(float);
    for (void* sums : {sum_, sum_of_squares_}) {
      PANNS_CUDA(cudaMemsetAsync(sums, 0, bytes, cuda_stream(stream).raw()));
    }
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

  Convolution asked_, conv_;  // and what is computed of it
  // Bias and relu come in a kernel of their own, as cuDNN has no engine with them: some versions
  // have none for depthwise convolutions in 16 bits.
  bool apart_ = false, relu_ = false;
  TakeArguments take_;
  Context& context_;
  std::shared_ptr<const Plan> plan_;
  std::optional<BoundPlan> bound_;
  void* weight_ = nullptr;  // its copy in the maps' type, or of pairs that are made before
  std::unique_ptr<backends::Memory> own_copy_;
  void *sum_ = nullptr, *sum_of_squares_ = nullptr;  // of y, by channel
  std::unique_ptr<backends::Memory> own_scratch_;    // null: what was planned is enough
  size_t planned_ = 0, workspace_ = 0, x_at_ = 0, w_at_ = 0, y_at_ = 0, bias_at_ = 0,
         statistics_at_ = 0, sums_at_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make_convolution(const Convolution& conv, TakeArguments take,
                                         Context& context) {
  return std::make_unique<ConvolutionKernel>(conv, take, context);
}

}  // namespace panns::cuda
