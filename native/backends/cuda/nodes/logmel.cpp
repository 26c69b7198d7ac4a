#include "backends/cuda/logmel.h"

#include "backends/cuda/nodes/adapter.h"

namespace panns::cuda {
namespace {

// Keeps the tables of the front-end on the device; they are uploaded with the first preparation.
class LogmelKernel final : public Kernel {
 public:
  LogmelKernel(const NodeSpec& node, Context& context)
      : context_(context),
        plan_(frontend::config_of(ops::as<ops::LogmelAttrs>(node.attrs))),
        n_(node.in[0].shape[0]),
        samples_(node.in[0].shape[1]) {}

  size_t workspace() const override { return static_cast<size_t>(plan_.workspace()); }

  size_t keeps() const override { return plan_.tables().size() * sizeof(float); }

  void prepare(Stream& stream, const Args&) override {
    if (tables_ != nullptr) return;
    tables_ = allocate_device_memory(context_.ordinal, keeps());
    stream.upload(tables_->data(), plan_.tables().data(), tables_->bytes());
  }

  void enqueue(Stream& stream, const Args& a) override {
    logmel(launch_on(stream, context_), plan_, reinterpret_cast<const float*>(tables_->data()),
           floats_in(a, 0), n_, samples_, floats_out(a, 0), a.workspace);
  }

 private:
  Context& context_;
  LogmelPlan plan_;
  int64_t n_, samples_;
  std::unique_ptr<backends::Memory> tables_;
};

}  // namespace

std::unique_ptr<Kernel> make_logmel(const NodeSpec& node, Context& context) {
  return std::make_unique<LogmelKernel>(node, context);
}

}  // namespace panns::cuda
