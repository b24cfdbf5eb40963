#include <memory>
#include <string>

#include "cpu/dispatch.h"
#include "linear_kernel.h"
#include "linear_op.h"

namespace cosetq {

OrtStatus* CreateLinear(const LinearOp& op, const OrtApi&, const OrtKernelInfo* info,
                        void** kernel) {
  WeightSpec spec;
  COSETQ_RETURN_IF_ERROR(ReadSpec(op, info, &spec));
  std::string error;
  auto made = std::make_unique<LinearKernel>();
  made->half = spec.half_bias;
  int32_t accuracy = schema::kAccuracyDefault;
  COSETQ_RETURN_IF_ERROR(ReadAccuracy(info, &accuracy));
  const bool fast = accuracy == schema::kAccuracyDefault ? ActiveKernels().fast_by_default
                                                         : accuracy == schema::kAccuracyFast;
  if (fast) made->accuracy = Accuracy::kFast;
  made->weight = Weight::Create(spec, &error);
  if (made->weight == nullptr) return Invalid(error);
  *kernel = made.release();
  return nullptr;
}

void DestroyLinear(void* kernel) { delete static_cast<LinearKernel*>(kernel); }

}  // namespace cosetq
