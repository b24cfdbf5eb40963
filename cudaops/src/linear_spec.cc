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

OrtStatus* ReadAccuracy(const OrtKernelInfo* info, int32_t* accuracy) {
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
  for (const int32_t known :
       {schema::kAccuracyDefault, schema::kAccuracyAccurate, schema::kAccuracyFast}) {
    if (value != std::to_string(known)) continue;
    *accuracy = known;
    return nullptr;
  }
  return Invalid(source + " is " + value + ", want 0 (default), 1 (accurate) or 4 (fast)");
}

}  // namespace cosetq
