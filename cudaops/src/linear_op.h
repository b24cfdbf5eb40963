// The operator's kernel in ONNX Runtime: state made once per node, and the computation.

#ifndef COSETQ_LINEAR_OP_H_
#define COSETQ_LINEAR_OP_H_

#include <array>
#include <cstdint>
#include <string>

#include "cpu/weight.h"
#include "ort_api.h"

namespace cosetq {

// One registered variant of the operator. ORT hands the struct back as a pointer to its base.
struct LinearOp : OrtCustomOp {
  ONNXTensorElementDataType activation;  // of A, bias and Y: float or float16
  ONNXTensorElementDataType code;        // uint8 or uint16
};

// All variants, complete but for their kernels.
std::array<LinearOp, 4> LinearOps();

// A and Y of one call; batch is the number of rows of both.
struct LinearTensors {
  const OrtValue* a = nullptr;
  OrtValue* y = nullptr;
  int64_t batch = 0;
};

// Reads A [..., cols] and makes Y [..., rows].
OrtStatus* OpenLinear(OrtKernelContext* context, int64_t rows, int64_t cols, LinearTensors* tensors);

// The constant inputs and attributes of a node. The tensors stay ONNX Runtime's.
OrtStatus* ReadSpec(const LinearOp& op, const OrtKernelInfo* info, WeightSpec* spec);

// How closely the kernel keeps activations, a constant of the schema: from the session's entry, else the node's attribute, which
// are null where they are not given, else the environment. False, and error says why, where that is no such constant.
bool ChooseAccuracy(const char* entry, const int64_t* attribute, int32_t* accuracy, std::string* error);
OrtStatus* ReadAccuracy(const OrtKernelInfo* info, int32_t* accuracy);

// The kernel on the CPU.
OrtStatus* CreateLinear(const LinearOp& op, const OrtApi& api, const OrtKernelInfo* info,
                        void** kernel);
OrtStatus* ComputeLinear(void* kernel, OrtKernelContext* context);
void DestroyLinear(void* kernel);

}  // namespace cosetq

#endif  // COSETQ_LINEAR_OP_H_
