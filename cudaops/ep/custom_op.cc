// The operator alone, for sessions on ONNX Runtime's own CUDA provider: a custom operator, registered as libcosetq registers the
// one for the CPU. Constants are read on the host; A, Y and the workspace are on the device, in the order of the session's
// stream.

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "cosetq/cuda.h"
#include "cosetq/schema.h"
#include "linear_op.h"

namespace cosetq {

const OrtApi* ort = nullptr;

namespace {

struct DeviceKernel {
  int64_t rows = 0, cols = 0;
  int32_t type = 0, accuracy = 0;
  cosetq_cuda_weight* weight = nullptr;

  ~DeviceKernel() { cosetq_cuda_weight_free(weight); }
};

cosetq_tensor View(const TensorSpec& tensor) {
  cosetq_tensor view = {};
  view.data = tensor.data;
  view.rank = static_cast<int32_t>(tensor.shape.size());
  if (tensor.shape.size() > std::size(view.shape)) throw std::invalid_argument("a constant of more than 4 dimensions");
  std::copy(tensor.shape.begin(), tensor.shape.end(), view.shape);
  return view;
}

cosetq_floats View(const std::vector<float>& list) { return {list.data(), static_cast<int64_t>(list.size())}; }

OrtStatus* Create(const LinearOp& op, const OrtKernelInfo* info, void** kernel) {
  WeightSpec spec;
  auto made = std::make_unique<DeviceKernel>();
  COSETQ_RETURN_IF_ERROR(ReadSpec(op, info, &spec));
  COSETQ_RETURN_IF_ERROR(ReadAccuracy(info, &made->accuracy));
  cosetq_linear_node node = {};
  node.rows = made->rows = spec.rows;
  node.cols = made->cols = spec.cols;
  node.code_bytes = spec.code_bytes;
  node.bias_type = made->type = spec.half_bias ? COSETQ_FLOAT16 : COSETQ_FLOAT;
  node.codes = View(spec.codes);
  node.scales = View(spec.scales);
  node.scale_index = View(spec.scale_index);
  node.codebook = View(spec.codebook);
  node.gains = View(spec.gains);
  node.bias = View(spec.bias);
  node.signs = View(spec.signs);
  node.slots = View(spec.slots);
  node.level_weights = View(spec.level_weights);
  node.centre = View(spec.centre);
  node.gain_values = View(spec.gain_values);
  node.gain_divisors = View(spec.gain_divisors);
  node.scale_divisors = View(spec.scale_divisors);
  node.rotation = View(spec.rotation);
  if (cosetq_cuda_weight_create(&node, &made->weight) != 0) return Invalid(cosetq_cuda_error());
  *kernel = made.release();
  return nullptr;
}

OrtStatus* Compute(const DeviceKernel& k, OrtKernelContext* context) {
  LinearTensors tensors;
  COSETQ_RETURN_IF_ERROR(OpenLinear(context, k.rows, k.cols, &tensors));
  if (tensors.batch == 0) return nullptr;
  cosetq_linear_call call = {};
  call.batch = tensors.batch;
  void *in = nullptr, *stream = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(const_cast<OrtValue*>(tensors.a), &in));
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(tensors.y, &call.y));
  COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetGPUComputeStream(context, &stream));
  call.a = in;
  call.type = k.type;
  call.accuracy = k.accuracy;
  call.workspace_bytes = cosetq_cuda_linear_workspace(k.weight, call.batch, call.type, call.accuracy);
  if (call.workspace_bytes < 0) return Invalid(cosetq_cuda_error());
  if (call.workspace_bytes > 0) {
    // Where A is: the memory of the session's provider.
    const OrtMemoryInfo* memory = nullptr;
    COSETQ_RETURN_IF_ERROR(ort->GetTensorMemoryInfo(tensors.a, &memory));
    COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetScratchBuffer(context, memory, static_cast<size_t>(call.workspace_bytes),
                                                               &call.workspace));
  }
  if (cosetq_cuda_linear(k.weight, &call, stream) != 0) return Invalid(cosetq_cuda_error());
  return nullptr;
}

std::array<LinearOp, 4> DeviceOps() {
  std::array<LinearOp, 4> ops = LinearOps();
  for (LinearOp& op : ops) {
    op.GetExecutionProviderType = [](const OrtCustomOp*) { return ep::backend::kCustomOpProvider; };
    op.GetInputMemoryType = [](const OrtCustomOp*, size_t input) {
      return input == schema::kInputA ? OrtMemTypeDefault : OrtMemTypeCPUInput;
    };
    op.CreateKernelV2 = [](const OrtCustomOp* self, const OrtApi*, const OrtKernelInfo* info, void** kernel) {
      return Guard([&] { return Create(*static_cast<const LinearOp*>(self), info, kernel); });
    };
    op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return Guard([&] { return Compute(*static_cast<const DeviceKernel*>(kernel), context); });
    };
    op.KernelDestroy = [](void* kernel) { delete static_cast<DeviceKernel*>(kernel); };
  }
  return ops;
}

OrtStatus* Register(OrtSessionOptions* options) {
  // ONNX Runtime keeps pointers to the variants and the domain for as long as any session lives.
  static std::array<LinearOp, 4> ops = DeviceOps();
  static OrtCustomOpDomain* domain = nullptr;
  static OrtStatus* failure = []() -> OrtStatus* {
    COSETQ_RETURN_IF_ERROR(ort->CreateCustomOpDomain(schema::kDomain, &domain));
    for (LinearOp& op : ops) COSETQ_RETURN_IF_ERROR(ort->CustomOpDomain_Add(domain, &op));
    return nullptr;
  }();
  if (failure != nullptr) return Invalid(ort->GetErrorMessage(failure));
  return ort->AddCustomOpDomain(options, domain);
}

}  // namespace
}  // namespace cosetq

extern "C" COSETQ_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(cosetq::schema::kApiVersion);
  if (api == nullptr) {
    const std::string message = std::string("libcosetq_cuda needs ONNX Runtime ") + cosetq::schema::kMinOrtVersion + " or later";
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  cosetq::ort = api;
  return cosetq::Guard([&] { return cosetq::Register(options); });
}
