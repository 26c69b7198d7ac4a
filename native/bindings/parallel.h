// Processes that train together, as JavaScript sees them.
#pragma once

#include <napi.h>

#include <memory>

#include "backends/collective.h"
#include "bindings/engine.h"

namespace panns::bindings {

class GroupHandle : public Napi::ObjectWrap<GroupHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit GroupHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<GroupHandle>(info) {}
  // Throws ERR_PANNS_DISPOSED once left.
  std::shared_ptr<backends::Collective> processes() const;
  void adopt(std::shared_ptr<backends::Collective> processes);
  void Finalize(Napi::Env) override;

 private:
  Napi::Value sum(const Napi::CallbackInfo& info);
  Napi::Value broadcast(const Napi::CallbackInfo& info);
  Napi::Value leave(const Napi::CallbackInfo& info);

  std::shared_ptr<backends::Collective> processes_;
  std::weak_ptr<Engine> engine_;
};

// openMpi, ncclId and openNccl.
Napi::Value open_mpi(const Napi::CallbackInfo& info);
Napi::Value nccl_id(const Napi::CallbackInfo& info);
Napi::Value open_nccl(const Napi::CallbackInfo& info);

}  // namespace panns::bindings
