#include "gather_op.h"

#include <atomic>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "cpu/counters.h"
#include "cpu/dispatch.h"
#include "cpu/gather.h"
#include "cpu/half.h"
#include "custom_op.h"
#include "read_weight.h"

namespace cosetq {
namespace {

struct GatherOp : OrtCustomOp {
  ONNXTensorElementDataType index;  // int32 or int64
  ONNXTensorElementDataType real;   // of Y: float or float16
  ONNXTensorElementDataType code;   // uint8 or uint16
};

const GatherOp& Self(const OrtCustomOp* op) { return *static_cast<const GatherOp*>(op); }

struct GatherKernel {
  bool wide = false;  // indices of 64 bits
  bool half = false;  // Y is float16
  std::unique_ptr<Weight> weight;
};

OrtStatus* Create(const GatherOp& op, const OrtKernelInfo* info, void** kernel) {
  static const float kZero = 0;
  WeightSpec spec;
  COSETQ_RETURN_IF_ERROR(ReadWeight(info, op.real, op.code, &spec));
  spec.bias = {&kZero, {1}};  // there is none
  std::string error;
  auto made = std::make_unique<GatherKernel>();
  made->wide = op.index == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  made->half = op.real == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  made->weight = Weight::Create(spec, &error);
  if (made->weight == nullptr) return Invalid(error);
  *kernel = made.release();
  return nullptr;
}

// The rows of one call: indices are checked before.
struct Job {
  const WeightView* weight;
  const int32_t* narrow;  // one of these two
  const int64_t* wide;
  float* y;  // one of these two
  uint16_t* y_half;
  std::atomic<bool> out_of_memory;  // in some thread of ONNX Runtime's, which no exception may end

  int64_t Row(int64_t i) const {
    const int64_t index = wide != nullptr ? wide[i] : narrow[i];
    return index < 0 ? index + weight->rows : index;
  }
};

void Take(void* data, size_t i) noexcept {
  Job& job = *static_cast<Job*>(data);
  const int64_t cols = job.weight->cols, at = static_cast<int64_t>(i) * cols;
  if (job.y != nullptr) {
    DecodeRow(*job.weight, job.Row(static_cast<int64_t>(i)), job.y + at);
    return;
  }
  const std::unique_ptr<float[]> row(new (std::nothrow) float[static_cast<size_t>(cols)]);
  if (row == nullptr) {
    job.out_of_memory = true;
    return;
  }
  DecodeRow(*job.weight, job.Row(static_cast<int64_t>(i)), row.get());
  for (int64_t k = 0; k < cols; ++k) job.y_half[at + k] = FloatToHalf(row[static_cast<size_t>(k)]);
}

OrtStatus* Compute(const GatherKernel& k, OrtKernelContext* context) {
  const WeightView& w = k.weight->view();
  const OrtValue* indices = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetInput(context, 0, &indices));
  std::vector<int64_t> shape;
  COSETQ_RETURN_IF_ERROR(ReadShape(indices, &shape));
  int64_t count = 1;
  for (int64_t d : shape) count *= d;
  shape.push_back(w.cols);
  OrtValue* y = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetOutput(context, 0, shape.data(), shape.size(), &y));
  if (count == 0) return nullptr;
  void* in = nullptr;
  void* out = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(const_cast<OrtValue*>(indices), &in));
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(y, &out));
  Job job = {};
  job.weight = &w;
  if (k.wide) {
    job.wide = static_cast<const int64_t*>(in);
  } else {
    job.narrow = static_cast<const int32_t*>(in);
  }
  if (k.half) {
    job.y_half = static_cast<uint16_t*>(out);
  } else {
    job.y = static_cast<float*>(out);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (const int64_t row = job.Row(i); row < 0 || row >= w.rows) {
      return Invalid("index " + std::to_string(k.wide ? job.wide[i] : job.narrow[i]) +
                     " names no row of " + std::to_string(w.rows));
    }
  }
  CountCall(ActiveKernels().name, Path::kGather);
  COSETQ_RETURN_IF_ERROR(ort->KernelContext_ParallelFor(context, Take, static_cast<size_t>(count), 0, &job));
  return job.out_of_memory ? Invalid("out of memory for a row of " + std::to_string(w.cols) + " floats") : nullptr;
}

// Y has the shape of the indices and one more dimension, K.
OrtStatus* InferShape(OrtShapeInferContext* context) {
  InferredShape shape;
  COSETQ_RETURN_IF_ERROR(InferredInput(context, 0, &shape));
  if (shape.dims.empty()) return nullptr;  // a scalar, or unknown: leave Y unknown as well
  int64_t k = 0, type = 0;
  COSETQ_RETURN_IF_ERROR(InferredInt(context, schema::kAttrK, &k));
  COSETQ_RETURN_IF_ERROR(InferredInt(context, schema::kAttrComputeType, &type));
  shape.dims.push_back(k);
  shape.names.emplace_back();
  shape.type = static_cast<ONNXTensorElementDataType>(type);
  return InferOutput(context, std::move(shape));
}

GatherOp MakeOp(int variant) {
  GatherOp op = {};
  op.index = variant & 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  op.real = variant & 2 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  op.code = variant & 4 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16 : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  SetCommon(&op);
  op.GetName = [](const OrtCustomOp*) { return schema::kGatherName; };
  op.GetInputTypeCount = [](const OrtCustomOp*) { return size_t{schema::kGatherInputs}; };
  op.GetInputType = [](const OrtCustomOp* self, size_t index) {
    return index == 0 ? Self(self).index : WeightInputType(index, Self(self).code);
  };
  op.GetOutputType = [](const OrtCustomOp* self, size_t) { return Self(self).real; };
  op.CreateKernelV2 = [](const OrtCustomOp* self, const OrtApi*, const OrtKernelInfo* info,
                         void** kernel) {
    return Guard([&] { return Create(Self(self), info, kernel); });
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return Guard([&] { return Compute(*static_cast<GatherKernel*>(kernel), context); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<GatherKernel*>(kernel); };
  op.InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
    return Guard([&] { return InferShape(context); });
  };
  return op;
}

}  // namespace

OrtCustomOp* GatherOpAt(int variant) {
  static GatherOp ops[kGatherOps] = {MakeOp(0), MakeOp(1), MakeOp(2), MakeOp(3),
                                     MakeOp(4), MakeOp(5), MakeOp(6), MakeOp(7)};
  return &ops[variant];
}

}  // namespace cosetq
