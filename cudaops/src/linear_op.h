// The operator's kernel in ONNX Runtime: state made once per node, and the computation.

#ifndef COSETQ_LINEAR_OP_H_
#define COSETQ_LINEAR_OP_H_

#include "ort_api.h"

namespace cosetq {

// One registered variant of the operator. ORT hands the struct back as a pointer to its base.
struct LinearOp : OrtCustomOp {
  ONNXTensorElementDataType activation;  // of A, bias and Y: float or float16
  ONNXTensorElementDataType code;        // uint8 or uint16
};

// Reads and checks the constant inputs and attributes.
OrtStatus* CreateLinear(const LinearOp& op, const OrtApi& api, const OrtKernelInfo* info,
                        void** kernel);
OrtStatus* ComputeLinear(void* kernel, OrtKernelContext* context);
void DestroyLinear(void* kernel);

// Y has A's shape with N in the last place; symbolic dimensions keep their names.
OrtStatus* InferLinearShape(OrtShapeInferContext* context);

}  // namespace cosetq

#endif  // COSETQ_LINEAR_OP_H_
