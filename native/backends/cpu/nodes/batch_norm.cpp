#include "backends/cpu/batch_norm.h"

#include <optional>

#include "backends/collective.h"
#include "backends/cpu/nodes/adapter.h"

namespace panns::cpu {
namespace {

BatchNorm norm_of(const ops::BatchNormAttrs& a) {
  BatchNorm norm;
  norm.axis = a.axis == ops::Axis::freq ? NormAxis::freq : NormAxis::channel;
  norm.relu = a.relu;
  norm.pool = a.avg_pool_2x2;
  norm.eps = a.eps;
  norm.momentum = a.momentum;
  norm.dropout.p = a.dropout.p;
  norm.over_processes = a.over_processes;
  return norm;
}

// Those that the node's batch is spread over; none where it is this process's own.
std::optional<BatchNormProcesses> processes_of(const BatchNorm& norm, const Args& args) {
  if (!norm.over_processes || args.processes == nullptr) return std::nullopt;
  const auto sum = [](void* processes, double* values, int64_t count) {
    static_cast<backends::Collective*>(processes)->sum(values, count);
  };
  return BatchNormProcesses{args.processes->size(), sum, args.processes};
}

// The kernels always write two rows of features beside the map. Where nobody wants them (a frozen
// norm has no backward and no gradients) they go to scratch memory.
class Spare {
 public:
  Spare(const BatchNorm& norm, const Map& map)
      : own_(static_cast<size_t>(batch_norm_workspace(norm, map) + 63) / 64 * 64),
        features_(static_cast<size_t>(batch_norm_params(norm, map))) {}
  size_t bytes() const { return own_ + 2 * features_ * sizeof(float); }
  // Output 1 or 2 of the node.
  float* or_spare(const Args& args, size_t i) const {
    if (args.out[i] != nullptr) return out(args, i);
    return reinterpret_cast<float*>(scratch(args) + own_) + (i - 1) * features_;
  }

 private:
  size_t own_, features_;
};

}  // namespace

bool supports_batch_norm(const NodeSpec& node) {
  const auto& a = ops::as<ops::BatchNormAttrs>(node.attrs);
  // The first convolution is a small part of a step here.
  return !a.of_conv && !a.augments() && batch_norm_supported(norm_of(a), map_of(node.in[0]));
}

// (x, gamma, beta, running_mean, running_var) to y, in training to (y, mean, invstd)
std::unique_ptr<Kernel> make_batch_norm(const NodeSpec& node, Context& context) {
  const auto& a = ops::as<ops::BatchNormAttrs>(node.attrs);
  const Map map = map_of(node.in[0]);
  const BatchNorm norm = norm_of(a);
  const Spare spare(norm, map);
  return adapt(spare.bytes(), [=, mask = a.dropout.mask, training = a.training,
                               &pool = context.pool](const Args& args) {
    BatchNorm n = norm;
    n.dropout.random = random_stream(args, mask);
    if (!training) {
      batch_norm_eval(
          pool, n, map,
          {in(args, 0), in(args, 1), in(args, 2), in(args, 3), in(args, 4), out(args, 0)},
          scratch(args));
      return;
    }
    const auto processes = processes_of(n, args);
    batch_norm_train(pool, n, map,
                     {in(args, 0), in(args, 1), in(args, 2), static_cast<float*>(args.in[3]),
                      static_cast<float*>(args.in[4]), spare.or_spare(args, 1),
                      spare.or_spare(args, 2), out(args, 0), processes ? &*processes : nullptr},
                     scratch(args));
  });
}

// (x, gamma, beta, mean, invstd, dy), of a norm that does not train with the running statistics in
// their place, to (dx, dgamma, dbeta)
std::unique_ptr<Kernel> make_batch_norm_backward(const NodeSpec& node, Context& context) {
  const auto& a = ops::as<ops::BatchNormAttrs>(node.attrs);
  const Map map = map_of(node.in[0]);
  const BatchNorm norm = norm_of(a);
  const Spare spare(norm, map);
  return adapt(spare.bytes(), [=, mask = a.dropout.mask, training = a.training,
                               &pool = context.pool](const Args& args) {
    BatchNorm n = norm;
    n.dropout.random = random_stream(args, mask);
    if (!training) {
      batch_norm_eval_backward(pool, n, map,
                               {in(args, 0), in(args, 1), in(args, 2), in(args, 3), in(args, 4),
                                in(args, 5), out(args, 0), out(args, 1), out(args, 2)},
                               scratch(args));
      return;
    }
    const auto processes = processes_of(n, args);
    batch_norm_backward(
        pool, n, map,
        {in(args, 0), in(args, 1), in(args, 2), in(args, 3), in(args, 4), in(args, 5), out(args, 0),
         spare.or_spare(args, 1), spare.or_spare(args, 2), processes ? &*processes : nullptr},
        scratch(args));
  });
}

}  // namespace panns::cpu
