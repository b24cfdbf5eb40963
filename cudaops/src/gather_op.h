// The operator that takes rows out of a coded weight, such as an embedding.

#ifndef COSETQ_GATHER_OP_H_
#define COSETQ_GATHER_OP_H_

#include <array>
#include <cstdint>

#include "ort_api.h"

namespace cosetq {

// One registered variant of the operator.
struct GatherOp : OrtCustomOp {
  ONNXTensorElementDataType index;  // int32 or int64
  ONNXTensorElementDataType real;   // of Y: float or float16
  ONNXTensorElementDataType code;   // uint8 or uint16
};

// All variants, complete but for their kernels: two types of indices, two of Y, two of codes.
std::array<GatherOp, 8> GatherOps();

// The indices and Y of one call, and how many indices there are.
struct GatherTensors {
  const OrtValue* indices = nullptr;
  OrtValue* y = nullptr;
  int64_t count = 0;
};

// Reads the indices and makes Y, which has one more dimension, cols.
OrtStatus* OpenGather(OrtKernelContext* context, int64_t cols, GatherTensors* tensors);

// The kernel on the CPU.
OrtStatus* CreateGather(const GatherOp& op, const OrtKernelInfo* info, void** kernel);
OrtStatus* ComputeGather(void* kernel, OrtKernelContext* context);
void DestroyGather(void* kernel);

}  // namespace cosetq

#endif  // COSETQ_GATHER_OP_H_
