// The entry point that ONNX Runtime calls.

#include <array>

#include "cosetq/cosetq.h"
#include "cpu/dispatch.h"
#include "gather_op.h"
#include "linear_op.h"
#include "observe_op.h"

namespace cosetq {

const OrtApi* ort = nullptr;

namespace {

std::array<LinearOp, 4> CpuOps() {
  std::array<LinearOp, 4> ops = LinearOps();
  for (LinearOp& op : ops) {
    op.CreateKernelV2 = [](const OrtCustomOp* self, const OrtApi* api, const OrtKernelInfo* info,
                           void** kernel) {
      return Guard([&] {
        return CreateLinear(*static_cast<const LinearOp*>(self), *api, info, kernel);
      });
    };
    op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return Guard([&] { return ComputeLinear(kernel, context); });
    };
    op.KernelDestroy = [](void* kernel) { DestroyLinear(kernel); };
  }
  return ops;
}

std::array<GatherOp, 8> CpuGatherOps() {
  std::array<GatherOp, 8> ops = GatherOps();
  for (GatherOp& op : ops) {
    op.CreateKernelV2 = [](const OrtCustomOp* self, const OrtApi*, const OrtKernelInfo* info, void** kernel) {
      return Guard([&] { return CreateGather(*static_cast<const GatherOp*>(self), info, kernel); });
    };
    op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return Guard([&] { return ComputeGather(kernel, context); });
    };
    op.KernelDestroy = [](void* kernel) { DestroyGather(kernel); };
  }
  return ops;
}

OrtStatus* Register(OrtSessionOptions* options) {
  std::string error;
  if (!SelectIsaFromEnvironment(&error)) return Invalid(error);
  // ORT keeps pointers to the variants and the domain for as long as any session lives.
  static std::array<LinearOp, 4> ops = CpuOps();
  static std::array<GatherOp, 8> gathers = CpuGatherOps();
  static OrtCustomOpDomain* domain = nullptr;
  static OrtStatus* (*make_domain)() = []() -> OrtStatus* {
    COSETQ_RETURN_IF_ERROR(ort->CreateCustomOpDomain(schema::kDomain, &domain));
    for (LinearOp& op : ops) COSETQ_RETURN_IF_ERROR(ort->CustomOpDomain_Add(domain, &op));
    for (GatherOp& op : gathers) COSETQ_RETURN_IF_ERROR(ort->CustomOpDomain_Add(domain, &op));
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
