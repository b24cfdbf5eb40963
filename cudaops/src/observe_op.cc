#include "observe_op.h"

#include <cmath>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/observe_staging.h"
#include "custom_op.h"

namespace cosetq {
namespace {

struct ObserveKernel {
  std::string tag;
  bool full = true;
  bool off = false;
  bool alike = false;
};

OrtStatus* Refuse(const std::string& message) {
  return ort->CreateStatus(
      ORT_INVALID_ARGUMENT,
      (std::string(schema::kDomain) + "::" + schema::kObserveName + ": " + message).c_str());
}

OrtStatus* StringAttribute(const OrtKernelInfo* info, const char* name, std::string* value) {
  size_t size = 0;
  if (OrtStatus* status = ort->KernelInfoGetAttribute_string(info, name, nullptr, &size)) {
    ort->ReleaseStatus(status);
    return Refuse(std::string("attribute ") + name + " is missing or not a string");
  }
  value->resize(size);
  COSETQ_RETURN_IF_ERROR(ort->KernelInfoGetAttribute_string(info, name, value->data(), &size));
  value->resize(size - 1);  // size counts the closing NUL
  return nullptr;
}

OrtStatus* CreateObserve(const OrtKernelInfo* info, void** kernel) {
  auto made = std::make_unique<ObserveKernel>();
  std::string mode;
  COSETQ_RETURN_IF_ERROR(StringAttribute(info, schema::kAttrTag, &made->tag));
  COSETQ_RETURN_IF_ERROR(StringAttribute(info, schema::kAttrMode, &mode));
  if (mode != schema::kModeFull && mode != schema::kModeDiagonal && mode != schema::kModeOff)
    return Refuse("attribute mode is " + mode + ", neither full nor diagonal nor off");
  made->full = mode == schema::kModeFull;
  made->off = mode == schema::kModeOff;
  int64_t alike = 0;
  if (OrtStatus* status = ort->KernelInfoGetAttribute_int64(info, schema::kAttrAlike, &alike)) {
    ort->ReleaseStatus(status);
    alike = 0;
  }
  made->alike = alike != 0;
  *kernel = made.release();
  return nullptr;
}

// Adds Σ v² of every row.
template <typename T>
void AddSquares(const T* values, int64_t columns, std::vector<double>* sums);

template <>
void AddSquares(const float* values, int64_t columns, std::vector<double>* sums) {
  for (double& sum : *sums) {
    sum += ActiveKernels().moments.sum_squares(values, columns);
    values += columns;
  }
}

template <>
void AddSquares(const uint16_t* values, int64_t columns, std::vector<double>* sums) {
  std::vector<float> row(static_cast<size_t>(columns));
  for (double& sum : *sums) {
    ActiveKernels().to_float(values, row.data(), columns);
    values += columns;
    sum += ActiveKernels().moments.sum_squares(row.data(), columns);
  }
}

// Less energy counts as none: the root of what a row weighs is taken in single precision.
constexpr double kLeastEnergy = 1e-60;

// What each row of A weighs, see cudaops/observe.go.
OrtStatus* RowWeights(const ObserveKernel& k, OrtKernelContext* context, const ObservedRows& rows,
                      int64_t columns, std::vector<double>* weights) {
  const auto count = static_cast<size_t>(rows.rows);
  weights->assign(count, 1);
  size_t inputs = 0;
  COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetInputCount(context, &inputs));
  if ((inputs == 1 && !k.alike) || count <= 1) return nullptr;
  std::vector<double> energy(count), importance(count, inputs == 1 ? 1 : 0);
  if (rows.a != nullptr) {
    AddSquares(rows.a, columns, &energy);
  } else {
    AddSquares(rows.a_half, columns, &energy);
  }
  for (size_t i = 1; i < inputs; ++i) {
    const OrtValue* gradient = nullptr;
    COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetInput(context, i, &gradient));
    OrtTensorTypeAndShapeInfo* raw = nullptr;
    COSETQ_RETURN_IF_ERROR(ort->GetTensorTypeAndShape(gradient, &raw));
    OrtOwner<OrtTensorTypeAndShapeInfo> info(raw);
    size_t numbers = 0;
    COSETQ_RETURN_IF_ERROR(ort->GetTensorShapeElementCount(raw, &numbers));
    if (numbers % count != 0)
      return Refuse("a gradient of " + k.tag + " has other rows than the activation");
    void* data = nullptr;
    COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(const_cast<OrtValue*>(gradient), &data));
    const auto width = static_cast<int64_t>(numbers / count);
    if (rows.a != nullptr) {
      AddSquares(static_cast<const float*>(data), width, &importance);
    } else {
      AddSquares(static_cast<const uint16_t*>(data), width, &importance);
    }
  }
  double total = 0;
  for (size_t r = 0; r < count; ++r) {
    if (energy[r] < kLeastEnergy) energy[r] = 0;
    if (std::isfinite(energy[r] * importance[r])) total += energy[r] * importance[r];
  }
  const double even = total > 0 ? schema::kEvenShare : 1;
  for (size_t r = 0; r < count; ++r) {
    double w = energy[r] > 0 ? even / (static_cast<double>(count) * energy[r]) : 0;
    if (total > 0) w += (1 - even) * importance[r] / total;
    (*weights)[r] = w;
  }
  return nullptr;
}

OrtStatus* ComputeObserve(const ObserveKernel& k, OrtKernelContext* context) {
  const OrtValue* a = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetInput(context, 0, &a));
  ONNXTensorElementDataType type;
  std::vector<int64_t> shape;
  COSETQ_RETURN_IF_ERROR(ReadShape(a, &shape, &type));
  if (shape.empty() || shape.back() <= 0) return Refuse("input A of " + k.tag + " has no columns");
  ObservedRows rows;
  rows.rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows.rows *= shape[i];
  void* data = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(const_cast<OrtValue*>(a), &data));
  if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16) {
    rows.a_half = static_cast<const uint16_t*>(data);
  } else {
    rows.a = static_cast<const float*>(data);
  }

  std::vector<double> weights;
  COSETQ_RETURN_IF_ERROR(RowWeights(k, context, rows, shape.back(), &weights));
  rows.weights = weights.data();

  const int64_t one = 1;
  OrtValue* y = nullptr;
  void* out = nullptr;
  COSETQ_RETURN_IF_ERROR(ort->KernelContext_GetOutput(context, 0, &one, 1, &y));
  COSETQ_RETURN_IF_ERROR(ort->GetTensorMutableData(y, &out));

  if (k.off) {
    *static_cast<float*>(out) = 0;
    return nullptr;
  }
  std::string error;
  std::shared_ptr<TaggedObservation> tagged;
  try {
    tagged = ObservationFor(k.tag, shape.back(), k.full, &error);
  } catch (const std::bad_alloc&) {
    error = "out of memory for the second moments of " + k.tag + ", " +
            std::to_string(shape.back()) + " columns";
  }
  if (tagged == nullptr) return Refuse(error);
  *static_cast<float*>(out) = static_cast<float>(rows.rows);
  if (ObserveStaging* staging = ThreadStaging()) {
    staging->Put(tagged, rows);
    return nullptr;
  }
  OrtStatus* failure = nullptr;
  const ParallelFor parallel = [&](void (*body)(void*, size_t), size_t total, void* argument) {
    failure = ort->KernelContext_ParallelFor(context, body, total, total, argument);
    return failure == nullptr;
  };
  std::lock_guard<std::mutex> lock(tagged->mutex);
  return tagged->observation.Add(ActiveKernels(), rows, parallel) ? nullptr : failure;
}

struct ObserveOp : OrtCustomOp {
  ONNXTensorElementDataType input;
};

}  // namespace

OrtCustomOp* ObserveOpFor(ONNXTensorElementDataType input) {
  static ObserveOp single = {}, half = {};
  ObserveOp& op = input == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 ? half : single;
  if (op.version != 0) return &op;
  op.input = input;
  SetCommon(&op);
  op.GetName = [](const OrtCustomOp*) { return schema::kObserveName; };
  op.GetInputTypeCount = [](const OrtCustomOp*) { return size_t{2}; };
  op.GetInputType = [](const OrtCustomOp* self, size_t) {
    return static_cast<const ObserveOp*>(self)->input;
  };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index == 0 ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_VARIADIC;
  };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info,
                         void** kernel) {
    return Guard([&] { return CreateObserve(info, kernel); });
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return Guard([&] { return ComputeObserve(*static_cast<ObserveKernel*>(kernel), context); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<ObserveKernel*>(kernel); };
  return &op;
}

}  // namespace cosetq
