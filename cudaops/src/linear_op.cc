// The operator as ONNX Runtime sees it, on whatever device it runs.

#include "linear_op.h"

#include <string>
#include <utility>
#include <vector>

#include "custom_op.h"

namespace cosetq {
namespace {

// Y has A's shape with N in the last place; symbolic dimensions keep their names.
OrtStatus* InferLinearShape(OrtShapeInferContext* context) {
  InferredShape shape;
  COSETQ_RETURN_IF_ERROR(InferredInput(context, schema::kInputA, &shape));
  if (shape.dims.empty()) return nullptr;  // unknown: leave Y unknown as well
  shape.names.back().clear();
  COSETQ_RETURN_IF_ERROR(InferredInt(context, schema::kAttrN, &shape.dims.back()));
  return InferOutput(context, std::move(shape));
}

const LinearOp& Self(const OrtCustomOp* op) { return *static_cast<const LinearOp*>(op); }

ONNXTensorElementDataType InputType(const LinearOp& op, size_t index) {
  switch (index) {
    case schema::kInputA:
    case schema::kInputBias:
      return op.activation;
    default:
      return WeightInputType(index, op.code);
  }
}

LinearOp MakeOp(ONNXTensorElementDataType activation, ONNXTensorElementDataType code) {
  LinearOp op = {};
  op.activation = activation;
  op.code = code;
  SetCommon(&op);
  op.GetName = [](const OrtCustomOp*) { return schema::kOpName; };
  op.GetInputTypeCount = [](const OrtCustomOp*) { return size_t{schema::kInputCount}; };
  op.GetInputType = [](const OrtCustomOp* self, size_t index) {
    return InputType(Self(self), index);
  };
  op.GetOutputType = [](const OrtCustomOp* self, size_t) { return Self(self).activation; };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index < schema::kPlainInputs ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  };
  op.InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
    return Guard([&] { return InferLinearShape(context); });
  };
  return op;
}

}  // namespace

OrtStatus* OpenLinear(OrtKernelContext* context, int64_t rows, int64_t cols, LinearTensors* tensors) {
  COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetInput(context, schema::kInputA, &tensors->a));
  std::vector<int64_t> shape;
  COSETQ_RETURN_IF_ERROR(ReadShape(tensors->a, &shape));
  if (shape.empty() || shape.back() != cols) {
    return Invalid("input A must have " + std::to_string(cols) + " (K) as its last dimension, has " +
                   (shape.empty() ? "none" : std::to_string(shape.back())));
  }
  tensors->batch = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) tensors->batch *= shape[i];
  shape.back() = rows;
  return ort->KernelContext_GetOutput(context, 0, shape.data(), shape.size(), &tensors->y);
}

std::array<LinearOp, 4> LinearOps() {
  return {
      MakeOp(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8),
      MakeOp(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16),
      MakeOp(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8),
      MakeOp(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16),
  };
}

}  // namespace cosetq
