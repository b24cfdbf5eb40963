#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "custom_op.h"

namespace cosetq {

OrtStatus* InferredInput(OrtShapeInferContext* context, size_t index, InferredShape* shape) {
  OrtTensorTypeAndShapeInfo* in = nullptr;  // belongs to the context
  COSETQ_RETURN_IF_ERROR(ort->ShapeInferContext_GetInputTypeShape(context, index, &in));
  size_t rank = 0;
  COSETQ_RETURN_IF_ERROR(ort->GetDimensionsCount(in, &rank));
  shape->dims.resize(rank);
  std::vector<const char*> names(rank);
  COSETQ_RETURN_IF_ERROR(ort->GetDimensions(in, shape->dims.data(), rank));
  COSETQ_RETURN_IF_ERROR(ort->GetSymbolicDimensions(in, names.data(), rank));
  shape->names.assign(names.begin(), names.end());
  return ort->GetTensorElementType(in, &shape->type);
}

OrtStatus* InferOutput(OrtShapeInferContext* context, InferredShape shape) {
  static std::atomic<uint64_t> unknown{0};
  std::vector<const char*> names;
  for (size_t i = 0; i < shape.dims.size(); ++i) {
    if (shape.dims[i] < 0 && shape.names[i].empty())
      shape.names[i] = std::string(schema::kDomain) + ".unknown" + std::to_string(unknown++);
    names.push_back(shape.names[i].c_str());
  }
  OrtTensorTypeAndShapeInfo* raw = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->CreateTensorTypeAndShapeInfo(&raw));
  OrtOwner<OrtTensorTypeAndShapeInfo> out(raw);
  COSETQ_RETURN_IF_ERROR(ort->SetTensorElementType(raw, shape.type));
  COSETQ_RETURN_IF_ERROR(ort->SetDimensions(raw, shape.dims.data(), shape.dims.size()));
  COSETQ_RETURN_IF_ERROR(ort->SetSymbolicDimensions(raw, names.data(), names.size()));
  return ort->ShapeInferContext_SetOutputTypeShape(context, 0, raw);
}

OrtStatus* InferredInt(OrtShapeInferContext* context, const char* name, int64_t* value) {
  const OrtOpAttr* attribute = nullptr;
  size_t length = 0;
  COSETQ_RETURN_IF_ERROR(ort->ShapeInferContext_GetAttribute(context, name, &attribute));
  return ort->ReadOpAttr(attribute, ORT_OP_ATTR_INT, value, sizeof *value, &length);
}

}  // namespace cosetq
