#include "backends/cpu/device.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "backends/cpu/tier.h"
#include "core/available_memory.h"

namespace panns::cpu {
namespace {

using namespace backends;

constexpr size_t kAlignment = 64;       // a cache line, and the widest vector
constexpr size_t kHugePage = 2u << 20;  // large runs are aligned so that huge pages can back them

// Zeroed memory: padding lanes of weights must start as zeros. Large runs come straight from the
// system, which hands out zero pages as they are touched: clearing gigabytes here would hold up a
// process that wants to leave.
class HostMemory final : public Memory {
 public:
  HostMemory(size_t bytes, HeldBytes held) : bytes_(bytes), held_(std::move(held)) {
    data_ = bytes >= kHugePage ? map_pages() : clear_block();
    PANNS_CHECK(data_ != nullptr, "ERR_PANNS_OUT_OF_MEMORY", "cpu", "expected ", bytes >> 20,
                " MiB of memory, the system refused; a smaller batch needs less");
    *held_ += bytes_;
  }
  ~HostMemory() override {
    *held_ -= bytes_;
#if defined(__linux__)
    if (mapped_ > 0) {
      munmap(base_, mapped_);
      return;
    }
#endif
    std::free(base_);
  }
  std::byte* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  std::byte* clear_block() {
    const size_t padded = (bytes_ / kAlignment + 1) * kAlignment;
    base_ = std::aligned_alloc(kAlignment, padded);
    if (base_ != nullptr) std::memset(base_, 0, padded);
    return static_cast<std::byte*>(base_);
  }
  std::byte* map_pages() {
#if defined(__linux__)
    // One page more, so that a huge-page boundary lies inside.
    const size_t length = bytes_ + kHugePage;
    void* base = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    base_ = base;
    mapped_ = length;
    const auto at = reinterpret_cast<uintptr_t>(base);
    auto* aligned = reinterpret_cast<std::byte*>((at + kHugePage - 1) / kHugePage * kHugePage);
    madvise(aligned, bytes_, MADV_HUGEPAGE);
    return aligned;
#else
    return clear_block();
#endif
  }

  size_t bytes_, mapped_ = 0;
  HeldBytes held_;
  void* base_ = nullptr;
  std::byte* data_ = nullptr;
};

// Made when the work before it is done.
class DoneEvent final : public Event {
 public:
  const std::chrono::steady_clock::time_point at = std::chrono::steady_clock::now();
};

// Everything runs at once on the calling thread, so there is nothing to wait for or to capture.
class HostStream final : public Stream {
 public:
  void upload(void* device, const void* host, size_t bytes) override {
    std::memcpy(device, host, bytes);
  }
  void download(void* host, const void* device, size_t bytes) override {
    std::memcpy(host, device, bytes);
  }
  std::unique_ptr<Event> record() override { return std::make_unique<DoneEvent>(); }
  void wait(const Event&) override {}
  std::unique_ptr<Event> mark() override { return record(); }
  double seconds(const Event& from, const Event& to) override {
    const auto at = [](const Event& e) { return static_cast<const DoneEvent&>(e).at; };
    return std::chrono::duration<double>(at(to) - at(from)).count();
  }
  void synchronize() override {}
  void await(const Event&) override {}
  void begin_capture() override {}
  std::unique_ptr<Recording> end_capture() override { return nullptr; }
  void launch(const Recording&) override {}
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

std::string cpu_model() {
  std::string name = "CPU";
#if defined(__linux__)
  if (FILE* f = std::fopen("/proc/cpuinfo", "r")) {
    char line[256];
    while (std::fgets(line, sizeof(line), f) != nullptr) {
      if (std::strncmp(line, "model name", 10) != 0) continue;
      const char* colon = std::strchr(line, ':');
      if (colon != nullptr) name.assign(colon + 2, std::strcspn(colon + 2, "\n"));
      break;
    }
    std::fclose(f);
  }
#endif
  return name;
}

template <typename Move>
void walk_map(const Map& m, Move&& move) {
  int64_t i = 0;
  for (int64_t n = 0; n < m.n; ++n) {
    for (int64_t c = 0; c < m.c; ++c) {
      for (int64_t t = 0; t < m.t; ++t) {
        for (int64_t f = 0; f < m.f; ++f) move(i++, m.at(n, c, t, f));
      }
    }
  }
}

template <typename Move>
void walk_filter(const Filter& w, Move&& move) {
  int64_t k = 0;
  for (int64_t o = 0; o < w.o; ++o) {
    for (int64_t i = 0; i < w.i; ++i) {
      for (int64_t t = 0; t < w.kt; ++t) {
        for (int64_t f = 0; f < w.kf; ++f) move(k++, w.at(o, i, t, f));
      }
    }
  }
}

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int threads)
      : pool_(threads), context_{pool_, std::make_shared<std::atomic<size_t>>(0)} {
    info_.kind = "cpu";
    info_.name = cpu_model();
    info_.detail = tier_name(tier());
    info_.threads = pool_.size();
#if defined(__linux__)
    info_.memory_bytes =
        static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
#endif
  }

  const DeviceInfo& info() const override { return info_; }
  size_t alignment() const override { return kAlignment; }

  std::unique_ptr<Memory> allocate(size_t bytes) override {
    // Linux promises memory it does not have and kills later: refuse what cannot be there at all.
    PANNS_CHECK(info_.memory_bytes == 0 || bytes < info_.memory_bytes, "ERR_PANNS_OUT_OF_MEMORY",
                "cpu", "expected ", bytes >> 20, " MiB of memory, the machine has ",
                info_.memory_bytes >> 20, " MiB; a smaller batch or shorter clips need less");
    return make_cpu_memory(bytes, context_);
  }

  MemoryState memory() const override { return {*context_.held, available_memory()}; }

  std::unique_ptr<Stream> stream() override { return std::make_unique<HostStream>(); }

  size_t bytes(const ops::TensorSpec& v) const override {
    return static_cast<size_t>(floats(v)) * sizeof(float);
  }

  void import_value(Stream&, const ops::TensorSpec& v, const float* host, void* device) override {
    auto* d = static_cast<float*>(device);
    if (v.form == ops::Form::dense) {
      std::memcpy(d, host, bytes(v));
      return;
    }
    std::memset(d, 0, bytes(v));
    const auto move = [&](int64_t i, int64_t at) { d[at] = host[i]; };
    v.form == ops::Form::map ? walk_map(map_of(v), move) : walk_filter(filter_of(v), move);
  }

  void import_samples(Stream& s, int64_t count, const int16_t* host, float* device) override {
    widen_samples(s, count, host, device);
  }

  void widen_samples(Stream&, int64_t count, const int16_t* samples, float* values) override {
    std::transform(samples, samples + count, values, sample_of);
  }

  void export_value(Stream&, const ops::TensorSpec& v, const void* device, float* host) override {
    const auto* d = static_cast<const float*>(device);
    if (v.form == ops::Form::dense) {
      std::memcpy(host, d, bytes(v));
      return;
    }
    const auto move = [&](int64_t i, int64_t at) { host[i] = d[at]; };
    v.form == ops::Form::map ? walk_map(map_of(v), move) : walk_filter(filter_of(v), move);
  }

  void set_cancel(const std::atomic<bool>* flag) override { pool_.set_cancel(flag); }

  bool supports(const NodeSpec& node) const override {
    switch (node.op) {
      case ops::Op::conv:  // whose sums would come in another order than the norm's own
        return !ops::as<ops::ConvAttrs>(node.attrs).statistics;
      case ops::Op::batch_norm:
        return supports_batch_norm(node);
      default:
        return true;
    }
  }

  std::unique_ptr<Kernel> kernel(const NodeSpec& node) override {
    return factory(node.op)(node, context_);
  }

 private:
  static Filter filter_of(const ops::TensorSpec& v) {
    return {v.shape[0], v.shape[1], v.shape[2], v.shape[3]};
  }

  ThreadPool pool_;
  Context context_;
  DeviceInfo info_;
};

}  // namespace

std::unique_ptr<backends::Memory> make_cpu_memory(size_t bytes, const Context& context) {
  return std::make_unique<HostMemory>(bytes, context.held);
}

int64_t floats(const ops::TensorSpec& v) {
  // Also the check that the size is one that memory can hold: padding adds a factor of 256 at most.
  const int64_t logical = v.shape.size();
  switch (v.form) {
    case ops::Form::map:
      return map_of(v).size();
    case ops::Form::filter:
      return Filter{v.shape[0], v.shape[1], v.shape[2], v.shape[3]}.size();
    default:
      return logical;
  }
}

}  // namespace panns::cpu

namespace panns::backends {

std::unique_ptr<Device> make_cpu_device(int threads) {
  return std::make_unique<cpu::CpuDevice>(threads);
}

}  // namespace panns::backends
