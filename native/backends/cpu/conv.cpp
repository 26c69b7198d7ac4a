#include "backends/cpu/conv.h"

#include "backends/cpu/conv_runner.h"
#include "core/error.h"

namespace panns::cpu {
namespace {

const char* pass_name(ConvPass pass) {
  switch (pass) {
    case ConvPass::forward:
      return "forward";
    case ConvPass::backward_data:
      return "backward_data";
    default:
      return "backward_weight";
  }
}

const char* algo_name(ConvAlgo algo) {
  switch (algo) {
    case ConvAlgo::generic:
      return "generic";
    case ConvAlgo::direct:
      return "direct";
    case ConvAlgo::depthwise:
      return "depthwise";
    case ConvAlgo::winograd:
      return "winograd";
    default:
      return "automatic";
  }
}

std::string describe(const ConvShape& s) {
  return cat("n ", s.n, ", channels ", s.in_c, " to ", s.out_c, " in ", s.groups,
             " groups, input (t ", s.in_t, ", f ", s.in_f, "), kernel (", s.kernel_t, ", ",
             s.kernel_f, "), stride (", s.stride_t, ", ", s.stride_f, "), pad (", s.pad_t, ", ",
             s.pad_f, "), dilation (", s.dilation_t, ", ", s.dilation_f, ")");
}

void check(const ConvShape& s) {
  const bool positive = s.n > 0 && s.in_c > 0 && s.out_c > 0 && s.in_t > 0 && s.in_f > 0 &&
                        s.kernel_t > 0 && s.kernel_f > 0 && s.stride_t > 0 && s.stride_f > 0 &&
                        s.dilation_t > 0 && s.dilation_f > 0 && s.groups > 0 && s.pad_t >= 0 &&
                        s.pad_f >= 0;
  PANNS_CHECK(positive, "ERR_PANNS_SHAPE", "conv",
              "expected positive sizes and padding of 0 or more, got ", describe(s));
  PANNS_CHECK(s.in_c % s.groups == 0 && s.out_c % s.groups == 0, "ERR_PANNS_SHAPE", "conv",
              "expected groups to divide both channel counts, got ", describe(s));
  const bool fits = s.in_t + 2 * s.pad_t > s.dilation_t * (s.kernel_t - 1) &&
                    s.in_f + 2 * s.pad_f > s.dilation_f * (s.kernel_f - 1);
  PANNS_CHECK(fits, "ERR_PANNS_SHAPE", "conv",
              "expected a kernel that fits into the padded input, got ", describe(s));
}

// Measured on Zen 3 over Cnn14's layers: Winograd wins down to some 30 tiles of 2 x 4 outputs for
// each transformed weight, and with less than two blocks of channels its transforms cost more
// than they save. Along time alone it wins down to a dozen tiles of 4 outputs, whose weights are
// transformed at less cost.
ConvAlgo choose(const ConvShape& s, ConvPass pass) {
  const int64_t tiles = s.n * ((s.out_t() + 3) / 4) * ((s.out_f() + 1) / 2);
  const int64_t enough = s.kernel_f == 1 && pass != ConvPass::backward_weight ? 12 : 24;
  // Into few channels direct would compute the padding of a whole block.
  const bool wide =
      (s.in_c >= 32 || (pass == ConvPass::backward_data && s.out_c >= 64)) && s.out_c >= 32;
  if (Conv::supports(s, pass, ConvAlgo::winograd) && tiles >= enough && wide) {
    return ConvAlgo::winograd;
  }
  for (ConvAlgo algo : {ConvAlgo::depthwise, ConvAlgo::direct}) {
    if (Conv::supports(s, pass, algo)) return algo;
  }
  return ConvAlgo::generic;
}

}  // namespace

bool Conv::supports(const ConvShape& s, ConvPass pass, ConvAlgo algo) {
  switch (algo) {
    case ConvAlgo::automatic:
    case ConvAlgo::generic:
      return true;
    case ConvAlgo::depthwise:
      return depthwise_conv_supports(s);
    case ConvAlgo::direct:
      // The kernels read and write whole blocks; only the input may be a single channel.
      return s.groups == 1 && s.out_c > 1 &&
             (s.in_c > 1 || pass != ConvPass::backward_data || one_conv_supports(s));
    default:
      return winograd_conv_supports(s);
  }
}

Conv::Conv(const ConvShape& shape, ConvPass pass, const ConvOptions& options)
    : shape_(shape), pass_(pass), algo_(options.algo), threads_(options.threads) {
  check(shape);
  PANNS_CHECK(supports(shape, pass, algo_), "ERR_PANNS_UNSUPPORTED", "conv", "the ",
              algo_name(algo_), " family does not compute ", pass_name(pass), " of ",
              describe(shape), "; use ConvAlgo::automatic");
  if (algo_ == ConvAlgo::automatic) algo_ = choose(shape, pass);
  if (algo_ == ConvAlgo::winograd) {
    runner_ = pass == ConvPass::backward_weight ? make_winograd_weight_conv(shape, options)
                                                : make_winograd_conv(shape, pass, options);
  } else if (algo_ == ConvAlgo::depthwise) {
    runner_ = make_depthwise_conv(shape, pass, options);
  } else if (pass == ConvPass::backward_data && shape.in_c == 1 && algo_ == ConvAlgo::direct) {
    runner_ = make_one_conv(shape, options);
  } else if (pass == ConvPass::backward_weight) {
    runner_ = make_weight_conv(shape, algo_, options);
  } else {
    runner_ = make_gather_conv(shape, pass, algo_, options);
  }
}

Conv::~Conv() = default;
Conv::Conv(Conv&&) noexcept = default;
Conv& Conv::operator=(Conv&&) noexcept = default;

size_t Conv::workspace() const { return static_cast<size_t>(runner_->workspace()) * sizeof(float); }

size_t Conv::packed_size() const { return static_cast<size_t>(runner_->packed()) * sizeof(float); }

void Conv::prepare_weights(ThreadPool& pool, const float* w, float* packed) const {
  runner_->prepare(pool, w, packed);
}

void Conv::forward(ThreadPool& pool, const float* x, const float* w, float* y,
                   const ConvEpilogue& epilogue, void* workspace) const {
  PANNS_CHECK(pass_ == ConvPass::forward && pool.size() <= threads_, "ERR_PANNS_INTERNAL", "conv",
              "expected a forward plan for ", pool.size(), " threads, got ", pass_name(pass_),
              " for ", threads_);
  runner_->run(pool, x, w, y, epilogue, static_cast<float*>(workspace));
}

void Conv::backward_data(ThreadPool& pool, const float* dy, const float* w, float* dx,
                         void* workspace) const {
  PANNS_CHECK(pass_ == ConvPass::backward_data && pool.size() <= threads_, "ERR_PANNS_INTERNAL",
              "conv", "expected a backward_data plan for ", pool.size(), " threads, got ",
              pass_name(pass_), " for ", threads_);
  runner_->run(pool, dy, w, dx, {}, static_cast<float*>(workspace));
}

void Conv::backward_weight(ThreadPool& pool, const float* x, const float* dy, float* dw,
                           void* workspace) const {
  PANNS_CHECK(pass_ == ConvPass::backward_weight && pool.size() <= threads_, "ERR_PANNS_INTERNAL",
              "conv", "expected a backward_weight plan for ", pool.size(), " threads, got ",
              pass_name(pass_), " for ", threads_);
  runner_->run(pool, x, dy, dw, {}, static_cast<float*>(workspace));
}

}  // namespace panns::cpu
