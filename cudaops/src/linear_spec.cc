// What ONNX Runtime tells a kernel about its node.

#include <cstdlib>
#include <string>

#include "linear_op.h"
#include "read_weight.h"

namespace cosetq {

// The bias, the type of the activations and the rotation, which only this operator has.
OrtStatus* ReadSpec(const LinearOp& op, const OrtKernelInfo* info, WeightSpec* spec) {
  COSETQ_RETURN_IF_ERROR(ReadWeight(info, op.activation, op.code, spec));
  spec->half_bias = op.activation == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  COSETQ_RETURN_IF_ERROR(ConstantInput(info, schema::kInputBias, op.activation, &spec->bias));
  size_t inputs = 0;
  COSETQ_RETURN_IF_ERROR(ort->KernelInfo_GetInputCount(info, &inputs));
  if (inputs <= schema::kInputSigns) return nullptr;
  COSETQ_RETURN_IF_ERROR(ListAttribute(info, schema::kAttrRotation, &spec->rotation));
  return ConstantInput(info, schema::kInputSigns, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &spec->signs);
}

bool ChooseAccuracy(const char* entry, const int64_t* attribute, int32_t* accuracy, std::string* error) {
  const char* variable = std::getenv(schema::kEnvAccuracy);
  std::string source, value = std::to_string(schema::kAccuracyDefault);
  if (entry != nullptr) {
    source = std::string("session entry ") + schema::kConfigAccuracy;
    value = entry;
  } else if (attribute != nullptr) {
    source = std::string("attribute ") + schema::kAttrAccuracy;
    value = std::to_string(*attribute);
  } else {
    source = std::string("environment variable ") + schema::kEnvAccuracy;
    if (variable != nullptr && *variable != 0) value = variable;
  }
  for (const int32_t known :
       {schema::kAccuracyDefault, schema::kAccuracyAccurate, schema::kAccuracyFast}) {
    if (value != std::to_string(known)) continue;
    *accuracy = known;
    return true;
  }
  *error = source + " is " + value + ", want 0 (default), 1 (accurate) or 4 (fast)";
  return false;
}

OrtStatus* ReadAccuracy(const OrtKernelInfo* info, int32_t* accuracy) {
  OrtKeyValuePairs* raw = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->KernelInfo_GetConfigEntries(info, &raw));
  OrtOwner<OrtKeyValuePairs> entries(raw);
  int64_t value = 0;
  const int64_t* attribute = &value;
  if (OrtStatus* status = ort->KernelInfoGetAttribute_int64(info, schema::kAttrAccuracy, &value)) {
    ort->ReleaseStatus(status);  // the attribute is optional
    attribute = nullptr;
  }
  std::string error;
  return ChooseAccuracy(ort->GetKeyValue(raw, schema::kConfigAccuracy), attribute, accuracy, &error) ? nullptr : Invalid(error);
}

}  // namespace cosetq
