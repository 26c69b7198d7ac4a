// adam (AdamW, AMSGrad), sgd (momentum, Nesterov) and the norm of the gradients.
//   adam: g = grad_scale grad + decay w; m += (1 - b1)(g - m); v = b2 v + (1 - b2) g^2
//         w -= lr / (1 - b1^t) m / (sqrt(v or v_max) / sqrt(1 - b2^t) + eps)
// Flat float32 arrays, 16-byte accesses (4-byte ones where an address is not a multiple of 16).
// Bytes an element: adam 16 read + 12 written, AMSGrad 20 + 16, sgd 12 + 8 with momentum, the copy
// 2 more; grad_norm 4 read.
// measured: never run on a GPU yet
#include "backends/backend.h"
#include "backends/cuda/device/pack.cuh"
#include "backends/cuda/device/row.cuh"
#include "backends/cuda/optimizer.h"

namespace panns::cuda {
namespace {

// What is the same for all elements of a step, rounded to float once.
struct AdamStep {
  float grad_scale, weight_decay, weight_factor;  // gradient += decay * weight; weight *= factor
  float step_size, inv_root_correction2;          // lr / (1 - b1^t), 1 / sqrt(1 - b2^t)
};

PANNS_DEVICE double power(double base, uint32_t exponent) {
  double result = 1;
  for (; exponent != 0; exponent /= 2, base *= base) {
    if (exponent % 2 == 1) result *= base;
  }
  return result;
}

// One thread of the block computes it for all.
PANNS_DEVICE AdamStep step_of(const Adam& a, const backends::StepState* state) {
  auto* shared = shared_memory<AdamStep>();
  if (threadIdx.x == 0) {
    const uint32_t t = state->step + 1;
    const double lr = state->lr * a.rate;
    AdamStep s;
    s.grad_scale = state->grad_scale;
    s.weight_decay = static_cast<float>(a.decoupled ? 0 : a.weight_decay);
    s.weight_factor = static_cast<float>(a.decoupled ? 1 - lr * a.weight_decay : 1);
    s.step_size = static_cast<float>(lr / (1 - power(a.beta1, t)));
    s.inv_root_correction2 = static_cast<float>(1 / sqrt(1 - power(a.beta2, t)));
    *shared = s;
  }
  __syncthreads();
  return *shared;
}

// Whether the update takes place at all.
PANNS_DEVICE bool updates(const backends::StepState* state, const float* gate) {
  return state->grad_scale != 0 && is_open(gate);
}

struct AdamArrays {
  const float* grad;
  float *weight, *m, *v, *v_max;
};

template <int W, bool kAmsgrad, typename Copy>
PANNS_DEVICE void adam_update(const AdamStep& s, float one_minus_beta1, float beta2,
                              float one_minus_beta2, float eps, const AdamArrays& a, int64_t i,
                              Copy* copy) {
  const Pack<W> grad = load<W>(a.grad + i);
  Pack<W> weight = load<W>(a.weight + i), m = load<W>(a.m + i), v = load<W>(a.v + i), v_max{};
  if constexpr (kAmsgrad) v_max = load<W>(a.v_max + i);
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    const float g = grad.v[k] * s.grad_scale + weight.v[k] * s.weight_decay;
    m.v[k] += (g - m.v[k]) * one_minus_beta1;
    v.v[k] = v.v[k] * beta2 + g * g * one_minus_beta2;
    if constexpr (kAmsgrad)
      v_max.v[k] = v.v[k] > v_max.v[k] || is_nan(v.v[k]) ? v.v[k] : v_max.v[k];
    const float root = sqrtf(kAmsgrad ? v_max.v[k] : v.v[k]) * s.inv_root_correction2 + eps;
    weight.v[k] = weight.v[k] * s.weight_factor - m.v[k] * s.step_size / root;
  }
  store<W>(a.weight + i, weight);
  store<W>(a.m + i, m);
  store<W>(a.v + i, v);
  if constexpr (kAmsgrad) store<W>(a.v_max + i, v_max);
  if (copy != nullptr) store<W>(copy + i, weight);
}

// W elements at a time; of the rest, fewer than W, one a thread of the first block.
template <int W, bool kAmsgrad, typename Copy>
__global__ void __launch_bounds__(kThreads)
    adam_kernel(Adam options, const backends::StepState* state, const float* gate, int64_t count,
                AdamArrays a, Copy* copy) {
  if (!updates(state, gate)) return;
  const AdamStep s = step_of(options, state);
  const float one_minus_beta1 = static_cast<float>(1 - options.beta1);
  const float beta2 = static_cast<float>(options.beta2);
  const float one_minus_beta2 = static_cast<float>(1 - options.beta2);
  const float eps = static_cast<float>(options.eps);
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t step = int64_t{gridDim.x} * kThreads, whole = count / W;
  for (int64_t i = first; i < whole; i += step) {
    adam_update<W, kAmsgrad>(s, one_minus_beta1, beta2, one_minus_beta2, eps, a, W * i, copy);
  }
  const int64_t i = W * whole + first;
  if (i < count) {
    adam_update<1, kAmsgrad>(s, one_minus_beta1, beta2, one_minus_beta2, eps, a, i, copy);
  }
}

struct SgdArrays {
  const float* grad;
  float *weight, *buffer;
};
struct SgdStep {
  float grad_scale, lr, momentum, weight_decay;
  bool nesterov;
  double rate;
};

template <int W, bool kMomentum, typename Copy>
PANNS_DEVICE void sgd_update(const SgdStep& s, const SgdArrays& a, int64_t i, Copy* copy) {
  const Pack<W> grad = load<W>(a.grad + i);
  Pack<W> weight = load<W>(a.weight + i), buffer{};
  if constexpr (kMomentum) buffer = load<W>(a.buffer + i);
  PANNS_UNROLL
  for (int k = 0; k < W; ++k) {
    float d = grad.v[k] * s.grad_scale + weight.v[k] * s.weight_decay;
    if constexpr (kMomentum) {
      buffer.v[k] = buffer.v[k] * s.momentum + d;
      d = s.nesterov ? d + buffer.v[k] * s.momentum : buffer.v[k];
    }
    weight.v[k] -= d * s.lr;
  }
  store<W>(a.weight + i, weight);
  if constexpr (kMomentum) store<W>(a.buffer + i, buffer);
  if (copy != nullptr) store<W>(copy + i, weight);
}

template <int W, bool kMomentum, typename Copy>
__global__ void __launch_bounds__(kThreads)
    sgd_kernel(SgdStep s, const backends::StepState* state, const float* gate, int64_t count,
               SgdArrays a, Copy* copy) {
  if (!updates(state, gate)) return;
  s.grad_scale = state->grad_scale;
  s.lr = static_cast<float>(state->lr * s.rate);
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t step = int64_t{gridDim.x} * kThreads, whole = count / W;
  for (int64_t i = first; i < whole; i += step) sgd_update<W, kMomentum>(s, a, W * i, copy);
  const int64_t i = W * whole + first;
  if (i < count) sgd_update<1, kMomentum>(s, a, i, copy);
}

// Elements of a partial sum: with 64 a thread 80 million parameters make 5,000 partial sums.
constexpr int64_t kNormChunk = 64 * kThreads;

// Squares of large gradients overflow a float, so they are taken in double.
__global__ void __launch_bounds__(kThreads)
    sum_of_squares_kernel(const backends::StepState* state, bool always, int64_t count,
                          const float* x, double* partial) {
  if (!always && !(state->max_norm > 0)) return;
  const int64_t begin = blockIdx.x * kNormChunk, end = smaller(begin + kNormChunk, count);
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) sum += double{x[i]} * x[i];
  sum = block_reduce(sum, Add{});
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// min(1, max_norm / (norm + 1e-6)); a NaN stays.
PANNS_DEVICE double clip_scale(double norm, double max_norm) {
  if (!(max_norm > 0)) return 1;
  const double scale = max_norm / (norm + 1e-6);
  return scale > 1 ? 1 : scale;
}

__global__ void __launch_bounds__(kThreads)
    grad_norm_kernel(int64_t partials, backends::StepState* state, LossScale* loss,
                     const double* partial) {
  const bool open = is_finite(state->gate);
  if (!open || (loss == nullptr && !(state->max_norm > 0))) {
    if (threadIdx.x == 0) state->grad_scale = open ? 1 : 0;
    return;
  }
  double sum = 0;
  for (int64_t i = threadIdx.x; i < partials; i += kThreads) sum += partial[i];
  sum = block_reduce(sum, Add{});
  if (threadIdx.x != 0) return;
  const double applied = loss != nullptr ? double{loss->scale} : 1.0, norm = sqrt(sum) / applied;
  double scale = clip_scale(norm, state->max_norm) / applied;
  if (loss != nullptr) {
    const bool finite = norm < INFINITY;  // false of a NaN
    const uint32_t good = finite ? loss->good_steps + 1 : 0;
    const bool grows = good == LossScale::kSteps;
    if (!finite) scale = 0;
    loss->scale *= finite ? (grows ? 2.0f : 1.0f) : 0.5f;
    loss->good_steps = grows ? 0 : good;
  }
  state->grad_norm = static_cast<float>(norm);
  state->grad_scale = static_cast<float>(scale);
  // This update is what it is; what comes behind it is not done. A loss scale goes on with half of
  // it, while there is any sense in that; what is trained after that begins anew, as with so small
  // a scale its gradients would be lost.
  const bool fails = loss != nullptr ? loss->scale < LossScale::kLeast : state->max_norm > 0;
  if (!fails || is_finite(state->grad_norm)) return;
  state->gate = state->grad_norm;
  if (loss != nullptr) loss->scale = LossScale::kFirst;
}

bool aligned(std::initializer_list<const void*> addresses) {
  for (const void* p : addresses) {
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) return false;
  }
  return true;
}

// Calls body(integral constant of 8 or 1, pointer to the copy): 16-byte accesses if all allow them.
template <typename Body>
void with_access(bool wide, const WeightCopy& copy, Body&& body) {
  // Float is only a name for no copy: weights are not copied to their own type.
  with_storage(copy.data == nullptr ? Storage::fp32 : copy.type, [&](auto element) {
    auto* to = static_cast<decltype(element)*>(copy.data);
    if (wide) {
      body(std::integral_constant<int, 8>{}, to);
    } else {
      body(std::integral_constant<int, 1>{}, to);
    }
  });
}

}  // namespace

void adam(const Launch& launch, const Adam& adam, const backends::StepState* state, int64_t count,
          const float* grad, float* weight, float* m, float* v, float* v_max,
          const WeightCopy& copy, const float* gate) {
  const bool wide = aligned({grad, weight, m, v, v_max, copy.data});
  with_access(wide, copy, [&](auto width, auto* to) {
    using Copy = std::remove_pointer_t<decltype(to)>;
    const Grid grid{.x = striding(launch, ceil_div(count, width)).x, .shared = sizeof(AdamStep)};
    const AdamArrays arrays{grad, weight, m, v, v_max};
    if (adam.amsgrad) {
      enqueue(launch, "adam", adam_kernel<width, true, Copy>, grid, adam, state, gate, count,
              arrays, to);
    } else {
      enqueue(launch, "adam", adam_kernel<width, false, Copy>, grid, adam, state, gate, count,
              arrays, to);
    }
  });
}

void sgd(const Launch& launch, const Sgd& sgd, const backends::StepState* state, int64_t count,
         const float* grad, float* weight, float* momentum_buffer, const WeightCopy& copy,
         const float* gate) {
  const SgdStep step{1,
                     0,
                     static_cast<float>(sgd.momentum),
                     static_cast<float>(sgd.weight_decay),
                     sgd.nesterov,
                     sgd.rate};
  const bool wide = aligned({grad, weight, momentum_buffer, copy.data});
  with_access(wide, copy, [&](auto width, auto* to) {
    using Copy = std::remove_pointer_t<decltype(to)>;
    const Grid grid = striding(launch, ceil_div(count, width));
    const SgdArrays arrays{grad, weight, momentum_buffer};
    if (sgd.momentum != 0) {
      enqueue(launch, "sgd", sgd_kernel<width, true, Copy>, grid, step, state, gate, count, arrays,
              to);
    } else {
      enqueue(launch, "sgd", sgd_kernel<width, false, Copy>, grid, step, state, gate, count, arrays,
              to);
    }
  });
}

int64_t grad_norm_partials(int64_t count) { return ceil_div(count, kNormChunk); }

void grad_norm_add(const Launch& launch, const backends::StepState* state, int64_t count,
                   const float* grad, int64_t first, void* workspace, const LossScale* loss) {
  enqueue(launch, "grad_norm", sum_of_squares_kernel,
          {.x = grad_norm_partials(count), .shared = kReduceBytes}, state, loss != nullptr, count,
          grad, static_cast<double*>(workspace) + first);
}

void grad_norm_finish(const Launch& launch, int64_t partials, backends::StepState* state,
                      const void* workspace, LossScale* loss) {
  enqueue(launch, "grad_norm", grad_norm_kernel, {.x = 1, .shared = kReduceBytes}, partials, state,
          loss, static_cast<const double*>(workspace));
}

}  // namespace panns::cuda
