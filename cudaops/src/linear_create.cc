#include <cstdlib>
#include <memory>
#include <string>

#include "cpu/weight.h"
#include "linear_kernel.h"
#include "linear_op.h"
#include "read_weight.h"

namespace cosetq {
namespace {

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
