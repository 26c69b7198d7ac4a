#include "backends/cuda/device.h"

#include <algorithm>

#include "backends/cuda/convert.h"
#include "backends/cuda/make_device.h"
#include "backends/cuda/measure.h"

namespace panns::cuda {
namespace {

using backends::DeviceInfo;
using backends::Memory;

constexpr size_t kAlignment = 256;  // what cudaMalloc gives

// What the pool keeps when all of it is free: the temporary rows of some weights.
constexpr uint64_t kPoolKeeps = 64u << 20;

// Scratch memory that an engine may take: of a large device a GiB, which cuDNN's fastest engines
// stay below, of a small one an eighth.
constexpr size_t kMostWorkspace = size_t{1} << 30;

Math math_of(const std::string& precision) {
  for (const Math m : {Math::fp32, Math::tf32, Math::bf16, Math::fp16}) {
    if (precision == math_name(m)) return m;
  }
  throw Error("ERR_PANNS_OPTION", "precision",
              cat("expected 'fp32', 'tf32', 'bf16' or 'fp16', got '", precision, "'"));
}

PairBins pair_bins_of(const std::string& name) {
  if (name == "measured") return PairBins::measured;
  PANNS_CHECK(name == "always" || name == "never", "ERR_PANNS_OPTION", "pairBins",
              "expected 'measured', 'always' or 'never', got '", name, "'");
  return name == "always" ? PairBins::always : PairBins::never;
}

// cuDNN's handle, made on the current device, and given back on it.
class Handle {
 public:
  Handle(const CudnnApi& api, int ordinal) : api_(api), ordinal_(ordinal) {
    api.check(api.create(&raw_), "cudnnCreate");
  }
  ~Handle() {
    cudaSetDevice(ordinal_);
    api_.destroy(raw_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  cudnnHandle_t raw() const { return raw_; }

 private:
  const CudnnApi& api_;
  int ordinal_;
  cudnnHandle_t raw_ = nullptr;
};

using Factory = std::unique_ptr<Kernel> (*)(const NodeSpec&, Context&);

Factory factory(ops::Op op) {
  switch (op) {
#define PANNS_OP(name, Attrs) \
  case ops::Op::name:         \
    return make_##name;
#include "ops/list.inc"
#undef PANNS_OP
  }
  return nullptr;
}

// Sets the device before the handle is made on it.
int select_device(int index) {
  int count = 0;
  PANNS_CUDA(cudaGetDeviceCount(&count));
  PANNS_CHECK(index >= 0 && index < count, "ERR_PANNS_OPTION", "device", "expected a device of 0..",
              count - 1, ", got ", index);
  PANNS_CUDA(cudaSetDevice(index));
  return index;
}

class CudaDevice final : public backends::Device {
 public:
  explicit CudaDevice(const backends::CudaOptions& options)
      : math_(math_of(options.precision)),
        ordinal_(select_device(options.index)),
        api_(cudnn()),
        handle_(api_, ordinal_) {
    cudaDeviceProp properties;
    PANNS_CUDA(cudaGetDeviceProperties(&properties, ordinal_));
    int driver = 0;
    PANNS_CUDA(cudaDriverGetVersion(&driver));
    const int architecture = properties.major * 10 + properties.minor;
    info_.kind = "cuda";
    info_.name = properties.name;
    info_.detail = cat("sm_", architecture, ", ", math_name(math_), ", driver ", driver / 1000, ".",
                       driver % 1000 / 10, ", cuDNN ", api_.version_text());
    info_.memory_bytes = properties.totalGlobalMem;
    cudaMemPool_t pool = nullptr;
    PANNS_CUDA(cudaDeviceGetDefaultMemPool(&pool, ordinal_));
    uint64_t keeps = kPoolKeeps;
    PANNS_CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keeps));

    const Target target{&api_, handle_.raw(), nullptr};
    PlanOptions plans;
    plans.deterministic = options.deterministic;
    plans.measure = options.measure_plans;
    plans.pair_bins = pair_bins_of(options.pair_bins);
    plans.folder = default_plan_folder();
    plans.workspace_limit = std::min(kMostWorkspace, info_.memory_bytes / 8);
    plans_ = std::make_unique<Plans>(
        target,
        cat(properties.name, " sm_", architecture, " ", properties.multiProcessorCount,
            " multiprocessors, driver ", driver),
        plans,
        [target, ordinal = ordinal_](const ConvGraph& graph, const Plan& plan,
                                     std::string* reason) {
          return measure_plan(target, ordinal, graph, plan, reason);
        });
    context_ = {ordinal_, properties.multiProcessorCount, math_, plans_.get()};
    if (math_ != Math::fp16) return;
    const LossScale first;
    loss_scale_ = allocate_device_memory(ordinal_, sizeof(first));
    PANNS_CUDA(cudaMemcpyAsync(loss_scale_->data(), &first, sizeof(first), cudaMemcpyHostToDevice,
                               cudaStreamPerThread));
    PANNS_CUDA(cudaStreamSynchronize(cudaStreamPerThread));
    context_.loss_scale = reinterpret_cast<LossScale*>(loss_scale_->data());
  }

  const DeviceInfo& info() const override { return info_; }
  bool uploads() const override { return true; }
  bool queues() const override { return true; }
  bool scales_loss() const override { return context_.loss_scale != nullptr; }
  size_t alignment() const override { return kAlignment; }

  std::unique_ptr<Memory> allocate(size_t bytes) override {
    return allocate_device_memory(ordinal_, std::max(bytes, kAlignment));
  }

  std::unique_ptr<Memory> host_memory(size_t bytes) override {
    PANNS_CUDA(cudaSetDevice(ordinal_));
    return std::make_unique<PinnedMemory>(bytes);
  }

  // The copy in the maps' type that convolutions read.
  size_t bytes_beside(size_t parameters) const override {
    return context_.storage() == Storage::fp32 ? 0 : parameters / 2;
  }

  backends::MemoryState memory() const override { return device_memory(ordinal_); }

  std::unique_ptr<Stream> stream() override { return std::make_unique<CudaStream>(ordinal_); }

  std::unique_ptr<Stream> stream_beside() override {
    return std::make_unique<CudaStream>(ordinal_, CudaStream::Priority::low);
  }

  bool updates_early() const override { return context_.loss_scale == nullptr; }

  size_t bytes(const ops::TensorSpec& v) const override { return bytes_of(v, context_); }

  void import_value(Stream& stream, const ops::TensorSpec& v, const float* host,
                    void* device) override {
    const size_t rows = row_major_bytes(v);
    if (is_row_major(v)) {
      stream.upload(device, host, rows);
      return;
    }
    const StreamMemory temporary(cuda_stream(stream).raw(), rows);
    stream.upload(temporary.data(), host, rows);
    const auto* from = static_cast<const float*>(temporary.data());
    const Launch launch = launch_on(stream, context_);
    if (v.form == ops::Form::map) {
      import_map(launch, map_of(v, context_), from, device);
    } else {
      import_filter(launch, filter_of(v), from, static_cast<float*>(device));
    }
  }

  // Piece by piece: the cache still has one when the kernel reads it.
  void import_samples(Stream& stream, int64_t count, const int16_t* host, float* device) override {
    constexpr auto kPiece = static_cast<int64_t>(CudaStream::kStageBytes / sizeof(int16_t));
    const StreamMemory piece(cuda_stream(stream).raw(),
                             static_cast<size_t>(std::min(count, kPiece)) * sizeof(int16_t));
    for (int64_t done = 0; done < count; done += kPiece) {
      const int64_t size = std::min(count - done, kPiece);
      stream.upload(piece.data(), host + done, static_cast<size_t>(size) * sizeof(int16_t));
      widen_samples(stream, size, static_cast<const int16_t*>(piece.data()), device + done);
    }
  }

  void widen_samples(Stream& stream, int64_t count, const int16_t* samples,
                     float* values) override {
    panns::cuda::widen_samples(launch_on(stream, context_), count, samples, values);
  }

  void export_value(Stream& stream, const ops::TensorSpec& v, const void* device,
                    float* host) override {
    const size_t rows = row_major_bytes(v);
    if (is_row_major(v)) {
      stream.download(host, device, rows);
      return;
    }
    const StreamMemory temporary(cuda_stream(stream).raw(), rows);
    auto* to = static_cast<float*>(temporary.data());
    const Launch launch = launch_on(stream, context_);
    if (v.form == ops::Form::map) {
      export_map(launch, map_of(v, context_), device, to);
    } else {
      export_filter(launch, filter_of(v), static_cast<const float*>(device), to);
    }
    stream.download(host, to, rows);
  }

  bool supports(const NodeSpec& node) const override {
    switch (node.op) {
      case ops::Op::conv:
        return supports_conv(node, context_);
      case ops::Op::batch_norm:
        return supports_batch_norm(node);
      default:
        return true;
    }
  }

  std::unique_ptr<Kernel> kernel(const NodeSpec& node) override {
    PANNS_CUDA(cudaSetDevice(ordinal_));
    PANNS_CHECK(supports(node), "ERR_PANNS_UNSUPPORTED", node.path, "CUDA has no kernel for ",
                ops::def(node.op).name, " with this epilogue");
    return factory(node.op)(node, context_);
  }

  bool compiles() const override { return true; }
  void set_cancel(const std::atomic<bool>* flag) override { plans_->set_cancel(flag); }

 private:
  static size_t row_major_bytes(const ops::TensorSpec& v) {
    return static_cast<size_t>(v.shape.size()) * sizeof(float);
  }
  // A map of one channel is (N, T, F) in float, as on the host.
  static bool is_row_major(const ops::TensorSpec& v) {
    return v.form == ops::Form::dense || (v.form == ops::Form::map && v.shape[1] == 1);
  }

  Math math_;
  int ordinal_;
  const CudnnApi& api_;
  Handle handle_;
  std::unique_ptr<Plans> plans_;
  std::unique_ptr<Memory> loss_scale_;
  Context context_;
  DeviceInfo info_;
};

}  // namespace

Run run_of(const ops::TensorSpec& v, const Context& context) {
  if (v.form == ops::Form::map) return Run(map_of(v, context));
  return Run(v.form == ops::Form::filter ? filter_of(v).size() : v.shape.size());
}

size_t bytes_of(const ops::TensorSpec& v, const Context& context) {
  // The logical size first: it throws where memory cannot hold the value, and what padding and
  // storage make of it is then far from overflow.
  v.shape.size();
  const Run run = run_of(v, context);
  return static_cast<size_t>(run.count * storage_bytes(run.type));
}

std::unique_ptr<backends::Device> make_device(const backends::CudaOptions& options) {
  return std::make_unique<CudaDevice>(options);
}

}  // namespace panns::cuda
