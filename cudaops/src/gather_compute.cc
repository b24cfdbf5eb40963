// Rows of a coded weight on the CPU.

#include <atomic>
#include <memory>
#include <new>
#include <string>

#include "cpu/counters.h"
#include "cpu/dispatch.h"
#include "cpu/gather.h"
#include "cpu/half.h"
#include "gather_op.h"
#include "read_weight.h"

namespace cosetq {
namespace {

struct GatherKernel {
  bool wide = false;  // indices of 64 bits
  bool half = false;  // Y is float16
  std::unique_ptr<Weight> weight;
};

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

}  // namespace

OrtStatus* CreateGather(const GatherOp& op, const OrtKernelInfo* info, void** kernel) {
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

OrtStatus* ComputeGather(void* kernel, OrtKernelContext* context) {
  const GatherKernel& k = *static_cast<const GatherKernel*>(kernel);
  const WeightView& w = k.weight->view();
  GatherTensors tensors;
  COSETQ_RETURN_IF_ERROR(OpenGather(context, w.cols, &tensors));
  const int64_t count = tensors.count;
  if (count == 0) return nullptr;
  void* in = nullptr;
  void* out = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(const_cast<OrtValue*>(tensors.indices), &in));
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(tensors.y, &out));
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

void DestroyGather(void* kernel) { delete static_cast<GatherKernel*>(kernel); }

}  // namespace cosetq
