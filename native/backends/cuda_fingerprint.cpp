// Compiled into both sides of the boundary.
#include "backends/cuda_library.h"

namespace panns::backends {

std::string cuda_fingerprint() {
  int ops = 0;
#define PANNS_OP(name, Attrs) ++ops;
#include "ops/list.inc"
#undef PANNS_OP
  return cat("panns ", PANNS_CUDA_ABI, ", compiler " __VERSION__, ", ", ops, " ops, sizes ",
             sizeof(ops::Attrs), " ", sizeof(NodeSpec), " ", sizeof(Args), " ", sizeof(StepState),
             " ", sizeof(DeviceInfo), " ", sizeof(CudaOptions), " ", sizeof(CudaStatus), " ",
             sizeof(NcclOptions), " ", sizeof(CudaLibrary));
}

}  // namespace panns::backends
