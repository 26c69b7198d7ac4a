// Elementwise ops.  relu: max(x, 0); relu6: min(max(x, 0), 6); hard_swish: x min(max(x + 3, 0), 6)
// / 6; sigmoid: 1 / (1 + exp(-x)); add: a + b; cast.
// Layout: runs of stored elements, 16-byte accesses. Bytes an element of b bytes: 2 b forward, 3 b
// backward and add.
// measured: never run on a GPU yet
#include "backends/cuda/activation.h"
#include "backends/cuda/device/divisor.cuh"
#include "backends/cuda/device/elementwise.cuh"

namespace panns::cuda {
namespace {

struct Relu {
  PANNS_DEVICE float operator()(float x) const { return x < 0 ? 0.0f : x; }
};
struct ReluBackward {
  PANNS_DEVICE float operator()(float y, float dy) const { return y <= 0 ? 0.0f : dy; }
};
struct Relu6 {
  PANNS_DEVICE float operator()(float x) const { return x < 0 ? 0.0f : x > 6 ? 6.0f : x; }
};
struct Relu6Backward {
  PANNS_DEVICE float operator()(float y, float dy) const { return y <= 0 || y >= 6 ? 0.0f : dy; }
};
struct HardSwish {
  PANNS_DEVICE float operator()(float x) const {
    const float gate = x < -3 ? 0.0f : x > 3 ? 6.0f : x + 3;
    return x * gate * (1.0f / 6);
  }
};
struct HardSwishBackward {
  PANNS_DEVICE float operator()(float x, float dy) const {
    return x <= -3 ? 0.0f : x < 3 ? dy * (x * (1.0f / 3) + 0.5f) : dy;
  }
};
struct Sigmoid {
  PANNS_DEVICE float operator()(float x) const {
    // exp of a negative number only: no overflow, and small results keep their relative accuracy.
    // A quick division is exact enough, as its divisor lies in 1 ... 2.
    const float e = expf(-fabsf(x)), s = __fdividef(1, 1 + e);
    return x < 0 ? e * s : s;
  }
};
struct SigmoidBackward {
  PANNS_DEVICE float operator()(float y, float dy) const { return dy * ((1 - y) * y); }
};
struct Sum {
  PANNS_DEVICE float operator()(float a, float b) const { return a + b; }
};
struct Same {
  PANNS_DEVICE float operator()(float x) const { return x; }
};

template <typename F>
void forward(const Launch& launch, const char* name, const F& f, const Run& run, const void* x,
             void* y) {
  with_storage(run.type, [&](auto element) {
    using T = decltype(element);
    elementwise(launch, name, f, run.count, static_cast<T*>(y), static_cast<const T*>(x));
  });
}

template <typename F>
void of_two(const Launch& launch, const char* name, const F& f, const Run& run, const void* a,
            const void* b, void* y) {
  with_storage(run.type, [&](auto element) {
    using T = decltype(element);
    elementwise(launch, name, f, run.count, static_cast<T*>(y), static_cast<const T*>(a),
                static_cast<const T*>(b));
  });
}

// Padding holds zeros, and sigmoid(0) is not 0. `vectors` are those of one pixel, `used` the
// channels in its last.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    sigmoid_padded_kernel(int64_t count, Divisor vectors, int used, const T* x, T* y) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    Pack<8> out = each_lane<8>(Sigmoid{}, load<8>(x + 8 * i));
    const uint32_t place = divide(static_cast<uint32_t>(i), vectors).rest;
    const bool last = place + 1 == vectors.divisor();
    PANNS_UNROLL
    for (int lane = 0; lane < 8; ++lane) {
      if (last && lane >= used) out.v[lane] = 0;
    }
    store<8>(y + 8 * i, out);
  }
}

}  // namespace

void relu(const Launch& launch, const Run& run, const void* x, void* y) {
  forward(launch, "relu", Relu{}, run, x, y);
}
void relu_backward(const Launch& launch, const Run& run, const void* y, const void* dy, void* dx) {
  of_two(launch, "relu_backward", ReluBackward{}, run, y, dy, dx);
}
void relu6(const Launch& launch, const Run& run, const void* x, void* y) {
  forward(launch, "relu6", Relu6{}, run, x, y);
}
void relu6_backward(const Launch& launch, const Run& run, const void* y, const void* dy, void* dx) {
  of_two(launch, "relu6_backward", Relu6Backward{}, run, y, dy, dx);
}
void hard_swish(const Launch& launch, const Run& run, const void* x, void* y) {
  forward(launch, "hard_swish", HardSwish{}, run, x, y);
}
void hard_swish_backward(const Launch& launch, const Run& run, const void* x, const void* dy,
                         void* dx) {
  of_two(launch, "hard_swish_backward", HardSwishBackward{}, run, x, dy, dx);
}

void sigmoid(const Launch& launch, int64_t count, const float* x, float* y) {
  forward(launch, "sigmoid", Sigmoid{}, count, x, y);
}
void sigmoid(const Launch& launch, const Map& map, const void* x, void* y) {
  const int used = static_cast<int>(map.c % kChannelBlock);
  if (map.c == 1 || used == 0) {
    forward(launch, "sigmoid", Sigmoid{}, map, x, y);
    return;
  }
  const int64_t vectors = map.size() / kChannelBlock;
  expect_indexable(vectors, "sigmoid");
  with_storage(map.storage(), [&](auto element) {
    using T = decltype(element);
    enqueue(launch, "sigmoid", sigmoid_padded_kernel<T>, striding(launch, vectors), vectors,
            Divisor(map.channels() / kChannelBlock), used, static_cast<const T*>(x),
            static_cast<T*>(y));
  });
}
void sigmoid_backward(const Launch& launch, const Run& run, const void* y, const void* dy,
                      void* dx) {
  of_two(launch, "sigmoid_backward", SigmoidBackward{}, run, y, dy, dx);
}

void add(const Launch& launch, const Run& run, const void* a, const void* b, void* y) {
  of_two(launch, "add", Sum{}, run, a, b, y);
}

void cast(const Launch& launch, int64_t count, Storage from, const void* x, Storage to, void* y) {
  with_storage(from, [&](auto in) {
    with_storage(to, [&](auto out) {
      elementwise(launch, "cast", Same{}, count, static_cast<decltype(out)*>(y),
                  static_cast<const decltype(in)*>(x));
    });
  });
}

}  // namespace panns::cuda
