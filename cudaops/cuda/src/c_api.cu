// The C interface.

#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cosetq/cuda.h"
#include "decode.h"
#include "device.h"
#include "encode.h"
#include "feedback.h"
#include "gather.h"
#include "linear.h"
#include "vlut.h"
#include "weight.h"

using cosetq::WeightSpec;
using cosetq::cuda::DeviceWeight;

struct cosetq_cuda_weight {
  std::unique_ptr<DeviceWeight> weight;
};

struct cosetq_cuda_encoder {
  cosetq::cuda::DeviceEncoder encoder;
};

struct cosetq_cuda_feedback {
  cosetq::cuda::Feedback feedback;
};

namespace {

std::string& Message() {
  static thread_local std::string message;
  return message;
}

// Runs body; -1 and its message if it throws.
template <typename Body>
int Guard(const Body& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& e) {
    Message() = e.what();
    return -1;
  }
}

cosetq::TensorSpec Tensor(const cosetq_tensor& t) {
  if (t.rank < 0 || t.rank > 4) throw cosetq::cuda::Error("a tensor has rank " + std::to_string(t.rank) + ", want 0 to 4");
  return {t.data, {t.shape, t.shape + t.rank}};
}

std::vector<float> Floats(const cosetq_floats& f) { return {f.values, f.values + f.count}; }

bool IsHalf(int32_t type) {
  if (type != COSETQ_FLOAT && type != COSETQ_FLOAT16)
    throw cosetq::cuda::Error("element type " + std::to_string(type) + ", want 1 (float) or 10 (float16)");
  return type == COSETQ_FLOAT16;
}

WeightSpec Spec(const cosetq_linear_node& n) {
  WeightSpec s;
  s.rows = n.rows;
  s.cols = n.cols;
  if (n.code_bytes != 1 && n.code_bytes != 2) throw cosetq::cuda::Error("code_bytes must be 1 or 2");
  s.code_bytes = n.code_bytes;
  s.half_bias = IsHalf(n.bias_type);
  s.codes = Tensor(n.codes);
  s.scales = Tensor(n.scales);
  s.scale_index = Tensor(n.scale_index);
  s.codebook = Tensor(n.codebook);
  s.gains = Tensor(n.gains);
  s.bias = Tensor(n.bias);
  s.slots = Floats(n.slots);
  s.slots_shape = {cosetq::schema::kSlotFields, n.slots.count / cosetq::schema::kSlotFields};
  s.level_weights = Floats(n.level_weights);
  s.centre = Floats(n.centre);
  s.gain_values = Floats(n.gain_values);
  s.gain_divisors = Floats(n.gain_divisors);
  s.scale_divisors = Floats(n.scale_divisors);
  s.signs = Tensor(n.signs);
  s.rotation = Floats(n.rotation);
  return s;
}

// Whether there are tables of products with codewords: of blocks of columns.
bool HasTables(const DeviceWeight& w) { return w.packed() && !cosetq::cuda::IsColumns(w.packed_view().form); }

}  // namespace

extern "C" const char* cosetq_cuda_error(void) { return Message().c_str(); }

extern "C" int cosetq_cuda_device_count(void) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return count;
  cudaGetLastError();
  if (status == cudaErrorInsufficientDriver)  // CUDA says the same where there is no driver at all
    Message() = "no NVIDIA driver (libcuda.so.1), or one older than 580, which CUDA 13.0 needs";
  else if (status == cudaSuccess || status == cudaErrorNoDevice)
    Message() = "the driver shows no GPU";
  else
    Message() = cudaGetErrorString(status);
  return 0;
}

extern "C" int cosetq_cuda_weight_create(const cosetq_linear_node* node, cosetq_cuda_weight** weight) {
  return Guard([&] { *weight = new cosetq_cuda_weight{DeviceWeight::Create(Spec(*node))}; });
}

extern "C" int cosetq_cuda_weight_join(const cosetq_cuda_weight* first, const cosetq_cuda_weight* second, cosetq_cuda_weight** joined) {
  return Guard([&] {
    auto made = DeviceWeight::Join(*first->weight, *second->weight);
    *joined = made == nullptr ? nullptr : new cosetq_cuda_weight{std::move(made)};
  });
}

extern "C" void cosetq_cuda_weight_free(cosetq_cuda_weight* weight) { delete weight; }

extern "C" int64_t cosetq_cuda_weight_bytes(const cosetq_cuda_weight* weight) {
  return static_cast<int64_t>(weight->weight->bytes());
}

extern "C" int64_t cosetq_cuda_linear_workspace(const cosetq_cuda_weight* weight, int64_t batch, int32_t type,
                                                int32_t accuracy) {
  size_t bytes = 0;
  const int status = Guard([&] {
    bytes = cosetq::cuda::LinearWorkspace(*weight->weight, batch, type == COSETQ_FLOAT16, accuracy == cosetq::schema::kAccuracyFast);
  });
  return status == 0 ? static_cast<int64_t>(bytes) : -1;
}

extern "C" int cosetq_cuda_linear(const cosetq_cuda_weight* weight, const cosetq_linear_call* call, void* stream) {
  return Guard([&] {
    cosetq::cuda::Linear(*weight->weight,
                         {call->a, call->y, call->batch, IsHalf(call->type),
                          call->accuracy == cosetq::schema::kAccuracyFast, call->workspace,
                          static_cast<size_t>(call->workspace_bytes)},
                         static_cast<cudaStream_t>(stream));
  });
}

extern "C" int cosetq_cuda_decode(const cosetq_cuda_weight* weight, void* out, int32_t type, void* stream) {
  return Guard([&] {
    const DeviceWeight& w = *weight->weight;
    const auto on = static_cast<cudaStream_t>(stream);
    w.packed() ? cosetq::cuda::Decode(w.packed_view(), 0, w.rows(), out, IsHalf(type), on)
               : cosetq::cuda::Decode(w.general_view(), 0, w.rows(), out, IsHalf(type), on);
  });
}

extern "C" int cosetq_cuda_gather(const cosetq_cuda_weight* weight, const void* indices, int32_t index_bytes, int64_t count,
                                  void* out, int32_t type, void* stream) {
  return Guard([&] {
    if (index_bytes != 4 && index_bytes != 8) throw cosetq::cuda::Error("indices must have 4 or 8 bytes");
    if (count == 0) return;
    const DeviceWeight& w = *weight->weight;
    const cosetq::cuda::Indices of = {indices, index_bytes == 8, count};
    const auto on = static_cast<cudaStream_t>(stream);
    w.packed() ? cosetq::cuda::Gather(w.packed_view(), of, out, IsHalf(type), on)
               : cosetq::cuda::Gather(w.general_view(), of, out, IsHalf(type), on);
    ++cosetq::cuda::Calls(cosetq::cuda::kGather);
  });
}

extern "C" int64_t cosetq_cuda_vlut_workspace(const cosetq_cuda_weight* weight) {
  const DeviceWeight& w = *weight->weight;
  return HasTables(w) ? static_cast<int64_t>(sizeof(float)) * w.packed_view().chunks * w.rows() : 0;
}

extern "C" int cosetq_cuda_vlut(const cosetq_cuda_weight* weight, const float* query, float* y, void* workspace, void* stream) {
  return Guard([&] {
    const DeviceWeight& w = *weight->weight;
    if (!HasTables(w)) throw cosetq::cuda::Error("no look-up tables for this codec");
    cosetq::cuda::OneSided(w.packed_view(), query, static_cast<float*>(workspace), y, static_cast<cudaStream_t>(stream));
  });
}

extern "C" int cosetq_cuda_vlut_pairs(const cosetq_cuda_weight* a, const cosetq_cuda_weight* b, float* y, void* stream) {
  return Guard([&] {
    const DeviceWeight &wa = *a->weight, &wb = *b->weight;
    if (!HasTables(wa) || !HasTables(wb) || wa.packed_view().form != wb.packed_view().form)
      throw cosetq::cuda::Error("no two-sided look-up tables for these codecs");
    if (wa.cols() != wb.cols()) throw cosetq::cuda::Error("the rows of the two weights differ in length");
    cosetq::cuda::TwoSided(wa.packed_view(), wb.packed_view(), y, static_cast<cudaStream_t>(stream));
  });
}

extern "C" cosetq_cuda_encoder* cosetq_cuda_encoder_create(const cosetq_codec* codec, const int32_t* leaders) {
  cosetq_cuda_encoder* made = nullptr;
  Guard([&] { made = new cosetq_cuda_encoder{{*codec, leaders}}; });
  return made;
}

extern "C" void cosetq_cuda_encoder_free(cosetq_cuda_encoder* encoder) { delete encoder; }

extern "C" int64_t cosetq_cuda_encode(cosetq_cuda_encoder* encoder, const float* rows, int64_t groups, const int32_t* at,
                                      const float* steps, int64_t count, double* sse, uint16_t* indices, uint8_t* gains) {
  return cosetq_cuda_encode_again(encoder, 0, rows, groups, at, steps, count, sse, indices, gains);
}

extern "C" int64_t cosetq_cuda_encode_again(cosetq_cuda_encoder* encoder, int64_t id, const float* rows, int64_t groups, const int32_t* at,
                                            const float* steps, int64_t count, double* sse, uint16_t* indices, uint8_t* gains) {
  int64_t refused = 0;
  const int status = Guard([&] { refused = encoder->encoder.EncodeHost({rows, groups, at, steps, count, sse, indices, gains}, id); });
  return status == 0 ? refused : -1;
}

extern "C" int cosetq_cuda_encode_device(const cosetq_cuda_encoder* encoder, const float* rows, int64_t groups,
                                         const float* steps, int64_t count, double* sse, uint16_t* indices, uint8_t* gains,
                                         float* errors, void* stream) {
  return Guard([&] {
    if (reinterpret_cast<uintptr_t>(rows) % 16 != 0 || reinterpret_cast<uintptr_t>(indices) % 4 != 0)
      throw cosetq::cuda::Error("rows to encode must begin at a multiple of 16 bytes, and their indices of 4");
    encoder->encoder.Encode({rows, groups, nullptr, steps, count, sse, indices, gains}, errors,
                            static_cast<cudaStream_t>(stream));
  });
}

extern "C" cosetq_cuda_feedback* cosetq_cuda_feedback_create(const cosetq_codec* codec, const int32_t* leaders, int64_t groups,
                                                             const float* lower, const float* metrics) {
  cosetq_cuda_feedback* made = nullptr;
  Guard([&] { made = new cosetq_cuda_feedback{{*codec, leaders, groups, lower, metrics}}; });
  return made;
}

extern "C" void cosetq_cuda_feedback_free(cosetq_cuda_feedback* feedback) { delete feedback; }

extern "C" int cosetq_cuda_feedback_run(const cosetq_cuda_feedback* feedback, const float* rows, const float* steps,
                                        int64_t count, uint16_t* indices, uint8_t* gains, float* errors, double* losses) {
  return Guard([&] { feedback->feedback.Run({rows, steps, count, indices, gains, errors, losses}); });
}

extern "C" int64_t cosetq_cuda_calls(const char* path) {
  for (int i = 0; i < cosetq::cuda::kPaths; ++i) {
    if (std::strcmp(path, cosetq::cuda::kPathNames[i]) == 0)
      return cosetq::cuda::Calls(static_cast<cosetq::cuda::Path>(i));
  }
  return -1;
}
