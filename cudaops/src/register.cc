// The entry point that ONNX Runtime calls, and the table of callbacks of every variant of the
// operator.

#include <cstring>

#include "cosetq/cosetq.h"
#include "cpu/dispatch.h"
#include "gather_op.h"
#include "linear_op.h"
#include "observe_op.h"

namespace cosetq {

const OrtApi* ort = nullptr;

namespace {

const LinearOp& Self(const OrtCustomOp* op) { return *static_cast<const LinearOp*>(op); }

ONNXTensorElementDataType InputType(const LinearOp& op, size_t index) {
  switch (index) {
    case schema::kInputA:
    case schema::kInputBias:
      return op.activation;
    case schema::kInputCodes:
      return op.code;
    case schema::kInputScales:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case schema::kInputCodebook:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
    default:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  }
}

// ORT calls most entries without looking, so all but the version-1 twins of the V2 callbacks are
// filled.
LinearOp MakeOp(ONNXTensorElementDataType activation, ONNXTensorElementDataType code) {
  LinearOp op = {};
  op.activation = activation;
  op.code = code;
  op.version = schema::kApiVersion;
  op.GetName = [](const OrtCustomOp*) { return schema::kOpName; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
  op.GetInputTypeCount = [](const OrtCustomOp*) { return size_t{schema::kInputCount}; };
  op.GetInputType = [](const OrtCustomOp* self, size_t index) {
    return InputType(Self(self), index);
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  op.GetOutputType = [](const OrtCustomOp* self, size_t) { return Self(self).activation; };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index < schema::kPlainInputs ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetStartVersion = [](const OrtCustomOp*) { return schema::kOpVersion; };
  op.GetEndVersion = [](const OrtCustomOp*) { return schema::kOpVersion; };
  op.CreateKernelV2 = [](const OrtCustomOp* self, const OrtApi* api, const OrtKernelInfo* info,
                         void** kernel) {
    return Guard([&] { return CreateLinear(Self(self), *api, info, kernel); });
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return Guard([&] { return ComputeLinear(kernel, context); });
  };
  op.KernelDestroy = [](void* kernel) { DestroyLinear(kernel); };
  op.InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
    return Guard([&] { return InferLinearShape(context); });
  };
  return op;
}

OrtStatus* Register(OrtSessionOptions* options) {
  std::string error;
  if (!SelectIsaFromEnvironment(&error)) return Invalid(error);
  // ORT keeps pointers to the variants and the domain for as long as any session lives.
  static LinearOp ops[] = {
      MakeOp(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8),
      MakeOp(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16),
      MakeOp(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8),
      MakeOp(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16),
  };
  static OrtCustomOpDomain* domain = nullptr;
  static OrtStatus* (*make_domain)() = []() -> OrtStatus* {
    COSETQ_RETURN_IF_ERROR(ort->CreateCustomOpDomain(schema::kDomain, &domain));
    for (LinearOp& op : ops) COSETQ_RETURN_IF_ERROR(ort->CustomOpDomain_Add(domain, &op));
    for (int i = 0; i < kGatherOps; ++i)
      COSETQ_RETURN_IF_ERROR(ort->CustomOpDomain_Add(domain, GatherOpAt(i)));
    for (auto type : {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16})
      COSETQ_RETURN_IF_ERROR(ort->CustomOpDomain_Add(domain, ObserveOpFor(type)));
    return nullptr;
  };
  static OrtStatus* failure = make_domain();
  if (failure != nullptr) return Invalid(ort->GetErrorMessage(failure));
  return ort->AddCustomOpDomain(options, domain);
}

}  // namespace
}  // namespace cosetq

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace cosetq;
  const OrtApi* api = base->GetApi(schema::kApiVersion);
  if (api == nullptr) {
    const std::string message = std::string("libcosetq needs ONNX Runtime ") +
                                schema::kMinOrtVersion + " or later; this is " +
                                base->GetVersionString();
    // Creating a status is the second function of every version of the table.
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  ort = api;
  return Guard([&] { return Register(options); });
}
