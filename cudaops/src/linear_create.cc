#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cpu/weight.h"
#include "linear_kernel.h"
#include "linear_op.h"

namespace cosetq {
namespace {

OrtStatus* TensorShape(const OrtValue* value, ONNXTensorElementDataType* type,
                       std::vector<int64_t>* shape) {
  OrtTensorTypeAndShapeInfo* raw = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorTypeAndShape(value, &raw));
  OrtOwner<OrtTensorTypeAndShapeInfo> info(raw);
  size_t rank = 0;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorElementType(raw, type));
  COSETQ_RETURN_IF_ERROR(ort->GetDimensionsCount(raw, &rank));
  shape->resize(rank);
  return ort->GetDimensions(raw, shape->data(), rank);
}

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
  COSETQ_RETURN_IF_ERROR(TensorShape(value, &type, &tensor->shape));
  if (type != want) return Invalid("input " + name + " has the wrong element type");
  void* data = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  tensor->data = data;
  return nullptr;
}

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
  COSETQ_RETURN_IF_ERROR(TensorShape(raw, &type, shape));
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

// A list is a tensor of rank 1.
OrtStatus* ListAttribute(const OrtKernelInfo* info, const char* name, std::vector<float>* values) {
  std::vector<int64_t> shape;
  COSETQ_RETURN_IF_ERROR(FloatAttribute(info, name, &shape, values));
  if (shape.size() != 1) return Invalid(std::string("attribute ") + name + " must have rank 1");
  return nullptr;
}

OrtStatus* IntAttribute(const OrtKernelInfo* info, const char* name, int64_t* value) {
  if (OrtStatus* status = ort->KernelInfoGetAttribute_int64(info, name, value)) {
    ort->ReleaseStatus(status);
    return Invalid(std::string("attribute ") + name + " is missing or not an integer");
  }
  return nullptr;
}

OrtStatus* ReadSpec(const LinearOp& op, const OrtKernelInfo* info, WeightSpec* spec) {
  int64_t compute_type = 0;
  COSETQ_RETURN_IF_ERROR(IntAttribute(info, schema::kAttrK, &spec->cols));
  COSETQ_RETURN_IF_ERROR(IntAttribute(info, schema::kAttrN, &spec->rows));
  COSETQ_RETURN_IF_ERROR(IntAttribute(info, schema::kAttrComputeType, &compute_type));
  if (compute_type != op.activation) {
    return Invalid("attribute " + std::string(schema::kAttrComputeType) +
                   " differs from the type of input A");
  }
  COSETQ_RETURN_IF_ERROR(
      FloatAttribute(info, schema::kAttrSlots, &spec->slots_shape, &spec->slots));
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrLevelWeights, &spec->level_weights));
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrCentre, &spec->centre));
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrGainValues, &spec->gain_values));
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrGainDivisors, &spec->gain_divisors));
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrScaleDivisors, &spec->scale_divisors));

  spec->code_bytes = op.code == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16 ? 2 : 1;
  spec->half_bias = op.activation == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  constexpr auto kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  constexpr auto kByte = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  COSETQ_RETURN_IF_ERROR(ConstantInput(info, schema::kInputCodes, op.code, &spec->codes));
  COSETQ_RETURN_IF_ERROR(ConstantInput(info, schema::kInputScales, kHalf, &spec->scales));
  COSETQ_RETURN_IF_ERROR(ConstantInput(info, schema::kInputScaleIndex, kByte, &spec->scale_index));
  COSETQ_RETURN_IF_ERROR(ConstantInput(info, schema::kInputCodebook,
                                       ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, &spec->codebook));
  COSETQ_RETURN_IF_ERROR(ConstantInput(info, schema::kInputGains, kByte, &spec->gains));
  COSETQ_RETURN_IF_ERROR(ConstantInput(info, schema::kInputBias, op.activation, &spec->bias));
  size_t inputs = 0;
  COSETQ_RETURN_IF_ERROR(ort->KernelInfo_GetInputCount(info, &inputs));
  if (inputs <= schema::kInputSigns) return nullptr;
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrRotation, &spec->rotation));
  return ConstantInput(info, schema::kInputSigns, kByte, &spec->signs);
}

// From the session, else the node, else the environment.
OrtStatus* ReadAccuracy(const OrtKernelInfo* info, Accuracy* accuracy) {
  OrtKeyValuePairs* raw = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->KernelInfo_GetConfigEntries(info, &raw));
  OrtOwner<OrtKeyValuePairs> entries(raw);
  const char* entry = ort->GetKeyValue(raw, schema::kConfigAccuracy);
  const char* variable = std::getenv(schema::kEnvAccuracy);
  std::string source, value = std::to_string(schema::kAccuracyDefault);
  int64_t attribute = 0;
  if (entry != nullptr) {
    source = std::string("session entry ") + schema::kConfigAccuracy;
    value = entry;
  } else if (OrtStatus* status =
                 ort->KernelInfoGetAttribute_int64(info, schema::kAttrAccuracy, &attribute)) {
    ort->ReleaseStatus(status);  // the attribute is optional
    source = std::string("environment variable ") + schema::kEnvAccuracy;
    if (variable != nullptr && *variable != 0) value = variable;
  } else {
    source = std::string("attribute ") + schema::kAttrAccuracy;
    value = std::to_string(attribute);
  }
  if (value == std::to_string(schema::kAccuracyFast)) {
    *accuracy = Accuracy::kFast;
  } else if (value == std::to_string(schema::kAccuracyAccurate) ||
             value == std::to_string(schema::kAccuracyDefault)) {
    *accuracy = Accuracy::kAccurate;
  } else {
    return Invalid(source + " is " + value + ", want 0 (default), 1 (accurate) or 4 (fast)");
  }
  return nullptr;
}

}  // namespace

OrtStatus* CreateLinear(const LinearOp& op, const OrtApi&, const OrtKernelInfo* info,
                        void** kernel) {
  WeightSpec spec;
  COSETQ_RETURN_IF_ERROR(ReadSpec(op, info, &spec));
  std::string error;
  auto made = std::make_unique<LinearKernel>();
  made->half = spec.half_bias;
  COSETQ_RETURN_IF_ERROR(ReadAccuracy(info, &made->accuracy));
  made->weight = Weight::Create(spec, &error);
  if (made->weight == nullptr) return Invalid(error);
  *kernel = made.release();
  return nullptr;
}

void DestroyLinear(void* kernel) { delete static_cast<LinearKernel*>(kernel); }

}  // namespace cosetq
