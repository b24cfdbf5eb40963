// What the operators have in common in ONNX Runtime's eyes.

#ifndef COSETQ_CUSTOM_OP_H_
#define COSETQ_CUSTOM_OP_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ort_api.h"

namespace cosetq {

// Fills what is the same for all: one output, every input and output there and on the provider's own
// device, one version, any provider. ORT calls most entries without looking, so all but the version-1 twins of the
// V2 callbacks must be filled in the end.
inline void SetCommon(OrtCustomOp* op) {
  op->version = schema::kApiVersion;
  op->GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
  op->GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  op->GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op->GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op->GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op->GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
  op->GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op->GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  op->GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op->GetStartVersion = [](const OrtCustomOp*) { return schema::kOpVersion; };
  op->GetEndVersion = [](const OrtCustomOp*) { return schema::kOpVersion; };
}

// The type of a constant input that makes up a coded weight; code is that of its codes.
inline ONNXTensorElementDataType WeightInputType(size_t index, ONNXTensorElementDataType code) {
  switch (index) {
    case schema::kInputCodes:
      return code;
    case schema::kInputScales:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case schema::kInputCodebook:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
    default:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  }
}

// And the type of the elements, unless that is null.
inline OrtStatus* ReadShape(const OrtValue* value, std::vector<int64_t>* shape, ONNXTensorElementDataType* type = nullptr) {
  OrtTensorTypeAndShapeInfo* raw = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorTypeAndShape(value, &raw));
  OrtOwner<OrtTensorTypeAndShapeInfo> info(raw);
  size_t rank = 0;
  if (type != nullptr) COSETQ_RETURN_IF_ERROR(ort->GetTensorElementType(raw, type));
  COSETQ_RETURN_IF_ERROR(ort->GetDimensionsCount(raw, &rank));
  shape->resize(rank);
  return ort->GetDimensions(raw, shape->data(), rank);
}

// The type and the shape of a value in ORT's shape inference: -1 and no name for a dimension of which nothing is known.
struct InferredShape {
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::vector<int64_t> dims;
  std::vector<std::string> names;
};

// Reads that of an input; no dimensions are those of a scalar, or of a shape that is unknown.
OrtStatus* InferredInput(OrtShapeInferContext* context, size_t index, InferredShape* shape);

// Sets that of the output. ORT would take the -1 for a number and infer nonsense from it, so an unknown dimension gets a name,
// which no other has.
OrtStatus* InferOutput(OrtShapeInferContext* context, InferredShape shape);

// Reads an integer attribute of the node.
OrtStatus* InferredInt(OrtShapeInferContext* context, const char* name, int64_t* value);

}  // namespace cosetq

#endif  // COSETQ_CUSTOM_OP_H_
