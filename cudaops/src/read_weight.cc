#include "read_weight.h"

#include <cstring>
#include <string>

#include "custom_op.h"

namespace cosetq {
namespace {

OrtStatus* FloatAttribute(const OrtKernelInfo* info, const char* name, std::vector<int64_t>* shape,
                          std::vector<float>* values) {
  OrtAllocator* allocator = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetAllocatorWithDefaultOptions(&allocator));
  OrtValue* raw = nullptr;
  if (OrtStatus* status = ort->KernelInfoGetAttribute_tensor(info, name, allocator, &raw)) {
    ort->ReleaseStatus(status);
    return Invalid(std::string("attribute ") + name + " is missing or not a tensor");
  }
  OrtOwner<OrtValue> value(raw);
  ONNXTensorElementDataType type;
  COSETQ_RETURN_IF_ERROR(ReadShape(raw, shape, &type));
  if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
    return Invalid(std::string("attribute ") + name + " must hold floats");
  size_t count = 1;
  for (int64_t d : *shape) count *= static_cast<size_t>(d);
  void* data = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(raw, &data));
  values->resize(count);
  if (count > 0) std::memcpy(values->data(), data, count * sizeof(float));
  return nullptr;
}

OrtStatus* IntAttribute(const OrtKernelInfo* info, const char* name, int64_t* value) {
  if (OrtStatus* status = ort->KernelInfoGetAttribute_int64(info, name, value)) {
    ort->ReleaseStatus(status);
    return Invalid(std::string("attribute ") + name + " is missing or not an integer");
  }
  return nullptr;
}

}  // namespace

OrtStatus* ConstantInput(const OrtKernelInfo* info, int index, ONNXTensorElementDataType want,
                         TensorSpec* tensor) {
  const std::string name = schema::kInputNames[index];
  int is_constant = 0;
  const OrtValue* value = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->KernelInfoGetConstantInput_tensor(info, static_cast<size_t>(index),
                                                                &is_constant, &value));
  if (is_constant == 0 || value == nullptr)
    return Invalid("input " + name + " must be a constant initializer");
  ONNXTensorElementDataType type;
  COSETQ_RETURN_IF_ERROR(ReadShape(value, &tensor->shape, &type));
  if (type != want) return Invalid("input " + name + " has the wrong element type");
  void* data = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  tensor->data = data;
  return nullptr;
}

OrtStatus* ListAttribute(const OrtKernelInfo* info, const char* name, std::vector<float>* values) {
  std::vector<int64_t> shape;
  COSETQ_RETURN_IF_ERROR(FloatAttribute(info, name, &shape, values));
  if (shape.size() != 1) return Invalid(std::string("attribute ") + name + " must have rank 1");
  return nullptr;
}

OrtStatus* ReadWeight(const OrtKernelInfo* info, ONNXTensorElementDataType real,
                      ONNXTensorElementDataType code, WeightSpec* spec) {
  int64_t compute_type = 0;
  COSETQ_RETURN_IF_ERROR(IntAttribute(info, schema::kAttrK, &spec->cols));
  COSETQ_RETURN_IF_ERROR(IntAttribute(info, schema::kAttrN, &spec->rows));
  COSETQ_RETURN_IF_ERROR(IntAttribute(info, schema::kAttrComputeType, &compute_type));
  if (compute_type != real) {
    return Invalid("attribute " + std::string(schema::kAttrComputeType) +
                   " differs from the type of the node's floats");
  }
  COSETQ_RETURN_IF_ERROR(
      FloatAttribute(info, schema::kAttrSlots, &spec->slots_shape, &spec->slots));
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrLevelWeights, &spec->level_weights));
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrCentre, &spec->centre));
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrGainValues, &spec->gain_values));
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrGainDivisors, &spec->gain_divisors));
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrScaleDivisors, &spec->scale_divisors));
  spec->code_bytes = code == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16 ? 2 : 1;
  constexpr auto kByte = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  COSETQ_RETURN_IF_ERROR(ConstantInput(info, schema::kInputCodes, code, &spec->codes));
  COSETQ_RETURN_IF_ERROR(ConstantInput(info, schema::kInputScales,
                                       ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, &spec->scales));
  COSETQ_RETURN_IF_ERROR(ConstantInput(info, schema::kInputScaleIndex, kByte, &spec->scale_index));
  COSETQ_RETURN_IF_ERROR(ConstantInput(info, schema::kInputCodebook,
                                       ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, &spec->codebook));
  return ConstantInput(info, schema::kInputGains, kByte, &spec->gains);
}

}  // namespace cosetq
