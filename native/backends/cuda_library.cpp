#include "backends/cuda_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <fstream>
#include <mutex>

#include "core/elf.h"

namespace panns::backends {
namespace {

constexpr const char* kFile = "panns_cuda.so";
// A package from npm brings the file for the platforms it has binaries for; a clone builds it.
constexpr const char* kMend =
    "install the package again (it brings this file for linux-x64), or, in a clone of the sources, "
    "build it: npm run setup:cuda";

// The folder of the shared object (or program) that this code is part of.
std::string own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&cuda_status), &info) == 0) return "";
  if (info.dli_fname == nullptr) return "";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

struct State {
  std::mutex mutex;
  const CudaLibrary* library = nullptr;
  std::string path, problem, reason;
};

State& state() {
  static State* s = new State;  // never destroyed: a job may compute while the process exits
  return *s;
}

// Opens the library once; a failure is not remembered, as the file may be built meanwhile.
void open(State& s) {
  s.problem.clear();
  s.reason.clear();
  const char* chosen = std::getenv("PANNS_CUDA_LIBRARY");
  s.path = chosen != nullptr && chosen[0] != '\0' ? chosen : own_folder() + "/" + kFile;
  if (!std::ifstream(s.path)) {
    s.problem = "backend-missing";
    s.reason = cat("there is no CUDA backend here: ", s.path, " does not exist");
    return;
  }
  if (const std::string fault = elf_fault(s.path); !fault.empty()) {
    s.problem = "backend-damaged";
    s.reason = cat("the CUDA backend does not load: ", s.path, ": ", fault);
    return;
  }
  void* handle = dlopen(s.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* text = dlerror();
    s.problem = "backend-damaged";
    s.reason = cat("the CUDA backend does not load: ", text != nullptr ? text : s.path);
    return;
  }
  using Entry = const CudaLibrary* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(handle, "panns_cuda_library"));
  const CudaLibrary* library = entry != nullptr ? entry() : nullptr;
  const std::string own = cuda_fingerprint();
  if (library == nullptr || own != library->fingerprint) {
    s.problem = "backend-foreign";
    s.reason = cat("the CUDA backend belongs to another build: expected ", own, ", got ",
                   library != nullptr ? library->fingerprint : "a library without its entry");
    dlclose(handle);
    return;
  }
  s.library = library;  // open for the life of the process
}

// Runs body inside the library's guard, and throws here what was thrown there.
template <typename Body>
void guarded(const CudaLibrary& library, Body&& body) {
  std::string code, where, what;
  const auto call = [](void* argument) {
    (*static_cast<std::remove_reference_t<Body>*>(argument))();
  };
  if (library.guard(call, &body, code, where, what)) return;
  throw Error(code, where, what);
}

// ---- the library's objects, each call guarded. Destructors throw nothing, and need no guard.

class GuardedStream final : public Stream {
 public:
  GuardedStream(const CudaLibrary& library, std::unique_ptr<Stream> stream)
      : library_(library), stream_(std::move(stream)) {}
  Stream& inner() { return *stream_; }
  void upload(void* device, const void* host, size_t bytes) override {
    guarded(library_, [&] { stream_->upload(device, host, bytes); });
  }
  void download(void* host, const void* device, size_t bytes) override {
    guarded(library_, [&] { stream_->download(host, device, bytes); });
  }
  std::unique_ptr<Event> record() override {
    std::unique_ptr<Event> event;
    guarded(library_, [&] { event = stream_->record(); });
    return event;
  }
  void wait(const Event& event) override {
    guarded(library_, [&] { stream_->wait(event); });
  }
  std::unique_ptr<Event> mark() override {
    std::unique_ptr<Event> event;
    guarded(library_, [&] { event = stream_->mark(); });
    return event;
  }
  double seconds(const Event& from, const Event& to) override {
    double between = 0;
    guarded(library_, [&] { between = stream_->seconds(from, to); });
    return between;
  }
  void synchronize() override {
    guarded(library_, [&] { stream_->synchronize(); });
  }
  void await(const Event& event) override {
    guarded(library_, [&] { stream_->await(event); });
  }
  void begin_capture() override {
    guarded(library_, [&] { stream_->begin_capture(); });
  }
  std::unique_ptr<Recording> end_capture() override {
    std::unique_ptr<Recording> recording;
    guarded(library_, [&] { recording = stream_->end_capture(); });
    return recording;
  }
  void drop_capture() override { stream_->drop_capture(); }
  void launch(const Recording& recording) override {
    guarded(library_, [&] { stream_->launch(recording); });
  }

 private:
  const CudaLibrary& library_;
  std::unique_ptr<Stream> stream_;
};

Stream& inner(Stream& stream) { return static_cast<GuardedStream&>(stream).inner(); }

class GuardedKernel final : public Kernel {
 public:
  GuardedKernel(const CudaLibrary& library, std::unique_ptr<Kernel> kernel)
      : library_(library), kernel_(std::move(kernel)) {}
  size_t workspace() const override { return kernel_->workspace(); }
  size_t keeps() const override { return kernel_->keeps(); }
  void prepare(Stream& stream, const Args& args) override {
    guarded(library_, [&] { kernel_->prepare(inner(stream), args); });
  }
  void enqueue(Stream& stream, const Args& args) override;

 private:
  const CudaLibrary& library_;
  std::unique_ptr<Kernel> kernel_;
};

class GuardedDevice final : public Device {
 public:
  GuardedDevice(const CudaLibrary& library, const CudaOptions& options) : library_(library) {
    guarded(library_, [&] { device_.reset(library_.make_device(options)); });
  }
  const DeviceInfo& info() const override { return device_->info(); }
  size_t alignment() const override { return device_->alignment(); }
  std::unique_ptr<Memory> allocate(size_t bytes) override {
    std::unique_ptr<Memory> memory;
    guarded(library_, [&] { memory = device_->allocate(bytes); });
    return memory;
  }
  std::unique_ptr<Memory> host_memory(size_t bytes) override {
    std::unique_ptr<Memory> memory;
    guarded(library_, [&] { memory = device_->host_memory(bytes); });
    return memory;
  }
  MemoryState memory() const override {
    MemoryState state;
    guarded(library_, [&] { state = device_->memory(); });
    return state;
  }
  size_t bytes_beside(size_t parameters) const override {
    return device_->bytes_beside(parameters);
  }
  bool uploads() const override { return device_->uploads(); }
  bool queues() const override { return device_->queues(); }
  bool scales_loss() const override { return device_->scales_loss(); }
  std::unique_ptr<Stream> stream() override {
    std::unique_ptr<Stream> made;
    guarded(library_, [&] { made = device_->stream(); });
    return std::make_unique<GuardedStream>(library_, std::move(made));
  }
  std::unique_ptr<Stream> stream_beside() override {
    std::unique_ptr<Stream> made;
    guarded(library_, [&] { made = device_->stream_beside(); });
    return std::make_unique<GuardedStream>(library_, std::move(made));
  }
  bool updates_early() const override { return device_->updates_early(); }
  size_t bytes(const ops::TensorSpec& value) const override {
    size_t count = 0;
    guarded(library_, [&] { count = device_->bytes(value); });
    return count;
  }
  void import_value(Stream& stream, const ops::TensorSpec& value, const float* host,
                    void* device) override {
    guarded(library_, [&] { device_->import_value(inner(stream), value, host, device); });
  }
  void import_samples(Stream& stream, int64_t count, const int16_t* host, float* device) override {
    guarded(library_, [&] { device_->import_samples(inner(stream), count, host, device); });
  }
  void widen_samples(Stream& stream, int64_t count, const int16_t* samples,
                     float* values) override {
    guarded(library_, [&] { device_->widen_samples(inner(stream), count, samples, values); });
  }
  void export_value(Stream& stream, const ops::TensorSpec& value, const void* device,
                    float* host) override {
    guarded(library_, [&] { device_->export_value(inner(stream), value, device, host); });
  }
  bool supports(const NodeSpec& node) const override {
    bool yes = false;
    guarded(library_, [&] { yes = device_->supports(node); });
    return yes;
  }
  std::unique_ptr<Kernel> kernel(const NodeSpec& node) override {
    std::unique_ptr<Kernel> made;
    guarded(library_, [&] { made = device_->kernel(node); });
    return std::make_unique<GuardedKernel>(library_, std::move(made));
  }
  bool compiles() const override { return device_->compiles(); }
  void set_cancel(const std::atomic<bool>* flag) override { device_->set_cancel(flag); }

 private:
  const CudaLibrary& library_;
  std::unique_ptr<Device> device_;
};

class GuardedCollective final : public Collective {
 public:
  GuardedCollective(const CudaLibrary& library, const NcclOptions& options) : library_(library) {
    guarded(library_, [&] { processes_.reset(library_.join_processes(options)); });
  }
  int rank() const override { return processes_->rank(); }
  int size() const override { return processes_->size(); }
  std::string device() const override { return processes_->device(); }
  std::string engine() const override { return processes_->engine(); }
  Collective& inner() { return *processes_; }
  void set_cancel(const std::atomic<bool>* flag) override { processes_->set_cancel(flag); }
  void sum(double* values, int64_t count) override {
    guarded(library_, [&] { processes_->sum(values, count); });
  }
  void broadcast(void* bytes, int64_t count, int root) override {
    guarded(library_, [&] { processes_->broadcast(bytes, count, root); });
  }
  void share(Stream& stream, void* bytes, int64_t count) override {
    guarded(library_, [&] { processes_->share(backends::inner(stream), bytes, count); });
  }
  void sum(Stream& stream, double* values, int64_t count) override {
    guarded(library_, [&] { processes_->sum(backends::inner(stream), values, count); });
  }
  void begin_average(Stream& stream, float* values, int64_t count) override {
    guarded(library_, [&] { processes_->begin_average(backends::inner(stream), values, count); });
  }
  void end_averages(Stream& stream) override {
    guarded(library_, [&] { processes_->end_averages(backends::inner(stream)); });
  }
  void wait(Stream& stream) override {
    guarded(library_, [&] { processes_->wait(backends::inner(stream)); });
  }
  std::shared_ptr<void> before_end(std::function<void()> drop) override {
    std::shared_ptr<void> kept;
    guarded(library_, [&] { kept = processes_->before_end(std::move(drop)); });
    return kept;
  }
  void abandon() override { processes_->abandon(); }
  void leave() override {
    guarded(library_, [&] { processes_->leave(); });
  }

 private:
  const CudaLibrary& library_;
  std::unique_ptr<Collective> processes_;
};

void GuardedKernel::enqueue(Stream& stream, const Args& args) {
  if (args.processes == nullptr) {
    guarded(library_, [&] { kernel_->enqueue(inner(stream), args); });
    return;
  }
  Args inside = args;
  inside.processes = &static_cast<GuardedCollective*>(args.processes)->inner();
  guarded(library_, [&] { kernel_->enqueue(inner(stream), inside); });
}

// The library, for whoever needs a GPU. Throws ERR_PANNS_CUDA_UNAVAILABLE.
const CudaLibrary& available_library() {
  const CudaStatus status = cuda_status();
  PANNS_CHECK(status.available, "ERR_PANNS_CUDA_UNAVAILABLE", "cuda", status.reason,
              status.mend.empty() ? "" : "; ", status.mend);
  return *state().library;
}

}  // namespace

CudaStatus cuda_status() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  CudaStatus status;
  if (s.library == nullptr) open(s);
  status.libraries.push_back({kFile, s.path, "", s.reason});
  if (s.library == nullptr) {
    status.problem = s.problem;
    status.reason = s.reason;
    status.mend = kMend;
    return status;
  }
  try {
    guarded(*s.library, [&] { s.library->status(status); });
  } catch (const Error& e) {
    status.available = false;
    status.problem = "driver-failed";
    status.reason = e.what();
  }
  return status;
}

std::unique_ptr<Device> make_cuda_device(const CudaOptions& options) {
  return std::make_unique<GuardedDevice>(available_library(), options);
}

std::string cuda_nccl_id(bool make) {
  const CudaLibrary& library = available_library();
  std::string id;
  guarded(library, [&] { library.nccl_id(id, make); });
  return id;
}

std::unique_ptr<Collective> join_cuda_processes(const NcclOptions& options) {
  return std::make_unique<GuardedCollective>(available_library(), options);
}

}  // namespace panns::backends
