// The operators alone, for sessions on ONNX Runtime's own CUDA provider: custom operators, registered as libcosetq registers those
// for the CPU. Constants are read on the host; what is multiplied, indices, results and the workspace are on the device, in the order
// of the session's stream.

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "cosetq/cuda.h"
#include "cosetq/schema.h"
#include "gather_op.h"
#include "linear_op.h"
#include "read_weight.h"

namespace cosetq {

const OrtApi* ort = nullptr;

namespace {

struct DeviceKernel {
  int64_t rows = 0, cols = 0;
  int32_t type = 0, accuracy = 0, index_bytes = 0;
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

// Makes the weight of a kernel.
OrtStatus* Load(const WeightSpec& spec, DeviceKernel* made) {
  cosetq_linear_node node = {};
  node.rows = made->rows = spec.rows;
  node.cols = made->cols = spec.cols;
  node.code_bytes = spec.code_bytes;
  node.bias_type = spec.half_bias ? COSETQ_FLOAT16 : COSETQ_FLOAT;
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
  return cosetq_cuda_weight_create(&node, &made->weight) != 0 ? Invalid(cosetq_cuda_error()) : nullptr;
}

OrtStatus* Create(const LinearOp& op, const OrtKernelInfo* info, void** kernel) {
  WeightSpec spec;
  auto made = std::make_unique<DeviceKernel>();
  COSETQ_RETURN_IF_ERROR(ReadSpec(op, info, &spec));
  COSETQ_RETURN_IF_ERROR(ReadAccuracy(info, &made->accuracy));
  COSETQ_RETURN_IF_ERROR(Load(spec, made.get()));
  made->type = spec.half_bias ? COSETQ_FLOAT16 : COSETQ_FLOAT;
  *kernel = made.release();
  return nullptr;
}

OrtStatus* Create(const GatherOp& op, const OrtKernelInfo* info, void** kernel) {
  static const float kNoBias = 0;
  WeightSpec spec;
  auto made = std::make_unique<DeviceKernel>();
  COSETQ_RETURN_IF_ERROR(ReadWeight(info, op.real, op.code, &spec));
  spec.bias = {&kNoBias, {1}};
  COSETQ_RETURN_IF_ERROR(Load(spec, made.get()));
  made->type = op.real == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 ? COSETQ_FLOAT16 : COSETQ_FLOAT;
  made->index_bytes = op.index == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 ? 8 : 4;
  *kernel = made.release();
  return nullptr;
}

OrtStatus* Gather(const DeviceKernel& k, OrtKernelContext* context) {
  GatherTensors tensors;
  COSETQ_RETURN_IF_ERROR(OpenGather(context, k.cols, &tensors));
  if (tensors.count == 0) return nullptr;
  void *indices = nullptr, *y = nullptr, *stream = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(const_cast<OrtValue*>(tensors.indices), &indices));
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(tensors.y, &y));
  COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetGPUComputeStream(context, &stream));
  if (cosetq_cuda_gather(k.weight, indices, k.index_bytes, tensors.count, y, k.type, stream) != 0) return Invalid(cosetq_cuda_error());
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

// The operators of one kind with kernels on the device, by a function that computes with one.
template <typename Ops, OrtStatus* (*compute)(const DeviceKernel&, OrtKernelContext*)>
Ops DeviceOps(Ops ops) {
  using Op = typename Ops::value_type;
  for (Op& op : ops) {
    op.GetExecutionProviderType = [](const OrtCustomOp*) { return ep::backend::kCustomOpProvider; };
    // What is multiplied, or the indices, is the first input of both.
    op.GetInputMemoryType = [](const OrtCustomOp*, size_t input) { return input == 0 ? OrtMemTypeDefault : OrtMemTypeCPUInput; };
    op.CreateKernelV2 = [](const OrtCustomOp* self, const OrtApi*, const OrtKernelInfo* info, void** kernel) {
      return Guard([&] { return Create(*static_cast<const Op*>(self), info, kernel); });
    };
    op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return Guard([&] { return compute(*static_cast<const DeviceKernel*>(kernel), context); });
    };
    op.KernelDestroy = [](void* kernel) { delete static_cast<DeviceKernel*>(kernel); };
  }
  return ops;
}

OrtStatus* Register(OrtSessionOptions* options) {
  // ONNX Runtime keeps pointers to the variants and the domain for as long as any session lives.
  static auto linears = DeviceOps<decltype(LinearOps()), Compute>(LinearOps());
  static auto gathers = DeviceOps<decltype(GatherOps()), Gather>(GatherOps());
  static OrtCustomOpDomain* domain = nullptr;
  static OrtStatus* failure = []() -> OrtStatus* {
    COSETQ_RETURN_IF_ERROR(ort->CreateCustomOpDomain(schema::kDomain, &domain));
    for (LinearOp& op : linears) COSETQ_RETURN_IF_ERROR(ort->CustomOpDomain_Add(domain, &op));
    for (GatherOp& op : gathers) COSETQ_RETURN_IF_ERROR(ort->CustomOpDomain_Add(domain, &op));
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
