// The operator as ONNX Runtime sees it, on whatever device it runs.

#include "gather_op.h"

#include <utility>
#include <vector>

#include "custom_op.h"

namespace cosetq {
namespace {

const GatherOp& Self(const OrtCustomOp* op) { return *static_cast<const GatherOp*>(op); }

// Y has the shape of the indices and one more dimension, K.
OrtStatus* InferShape(OrtShapeInferContext* context) {
  InferredShape shape;
  COSETQ_RETURN_IF_ERROR(InferredInput(context, 0, &shape));
  if (shape.dims.empty()) return nullptr;  // a scalar, or unknown: leave Y unknown as well
  int64_t k = 0, type = 0;
  COSETQ_RETURN_IF_ERROR(InferredInt(context, schema::kAttrK, &k));
  COSETQ_RETURN_IF_ERROR(InferredInt(context, schema::kAttrComputeType, &type));
  shape.dims.push_back(k);
  shape.names.emplace_back();
  shape.type = static_cast<ONNXTensorElementDataType>(type);
  return InferOutput(context, std::move(shape));
}

GatherOp MakeOp(int variant) {
  GatherOp op = {};
  op.index = variant & 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  op.real = variant & 2 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  op.code = variant & 4 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16 : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  SetCommon(&op);
  op.GetName = [](const OrtCustomOp*) { return schema::kGatherName; };
  op.GetInputTypeCount = [](const OrtCustomOp*) { return size_t{schema::kGatherInputs}; };
  op.GetInputType = [](const OrtCustomOp* self, size_t index) {
    return index == 0 ? Self(self).index : WeightInputType(index, Self(self).code);
  };
  op.GetOutputType = [](const OrtCustomOp* self, size_t) { return Self(self).real; };
  op.InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
    return Guard([&] { return InferShape(context); });
  };
  return op;
}

}  // namespace

OrtStatus* OpenGather(OrtKernelContext* context, int64_t cols, GatherTensors* tensors) {
  COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetInput(context, 0, &tensors->indices));
  std::vector<int64_t> shape;
  COSETQ_RETURN_IF_ERROR(ReadShape(tensors->indices, &shape));
  tensors->count = 1;
  for (int64_t d : shape) tensors->count *= d;
  shape.push_back(cols);
  return ort->KernelContext_GetOutput(context, 0, shape.data(), shape.size(), &tensors->y);
}

std::array<GatherOp, 8> GatherOps() { return {MakeOp(0), MakeOp(1), MakeOp(2), MakeOp(3), MakeOp(4), MakeOp(5), MakeOp(6), MakeOp(7)}; }

}  // namespace cosetq
