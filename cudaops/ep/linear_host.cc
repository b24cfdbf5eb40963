// The kernels behind cosetq/cuda.h as the host has them, for tests without a GPU: those of the CPU
// library.

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cosetq/cuda.h"
#include "cpu/dispatch.h"
#include "cpu/gather.h"
#include "cpu/half.h"
#include "cpu/linear.h"
#include "cpu/weight.h"

namespace {

thread_local std::string last_error;

class SerialHost : public cosetq::Host {
 public:
  bool ParallelFor(void (*body)(void*, size_t), size_t total, void* data) override {
    for (size_t i = 0; i < total; ++i) body(data, i);
    return true;
  }
  void* Allocate(size_t bytes) override {
    blocks_.emplace_back(std::aligned_alloc(64, (bytes + 63) / 64 * 64), std::free);
    return blocks_.back().get();
  }

 private:
  std::vector<std::unique_ptr<void, void (*)(void*)>> blocks_;
};

}  // namespace

// A weight, with copies of what it points at; or several, of which each has a part of the rows.
struct HostWeight {
  std::vector<std::vector<char>> copies;
  std::unique_ptr<cosetq::Weight> weight;
};
struct cosetq_cuda_weight {
  std::vector<std::shared_ptr<HostWeight>> parts;
};

extern "C" {

const char* cosetq_cuda_error(void) { return last_error.c_str(); }

int cosetq_cuda_weight_create(const struct cosetq_linear_node* node, struct cosetq_cuda_weight** out) {
  if (node->code_bytes != 1 && node->code_bytes != 2) {
    last_error = "code_bytes must be 1 or 2";
    return -1;
  }
  auto made = std::make_shared<HostWeight>();
  const auto tensor = [&](const cosetq_tensor& t, size_t size) {
    cosetq::TensorSpec spec;
    if (t.data == nullptr) return spec;
    spec.shape.assign(t.shape, t.shape + t.rank);
    for (int64_t d : spec.shape) size *= static_cast<size_t>(d);
    const char* bytes = static_cast<const char*>(t.data);
    made->copies.emplace_back(bytes, bytes + size);
    spec.data = made->copies.back().data();
    return spec;
  };
  const auto list = [](const cosetq_floats& f) { return std::vector<float>(f.values, f.values + f.count); };
  cosetq::WeightSpec spec;
  spec.rows = node->rows;
  spec.cols = node->cols;
  spec.code_bytes = node->code_bytes;
  spec.half_bias = node->bias_type == COSETQ_FLOAT16;
  spec.codes = tensor(node->codes, static_cast<size_t>(node->code_bytes));
  spec.scales = tensor(node->scales, 2);
  spec.scale_index = tensor(node->scale_index, 1);
  spec.codebook = tensor(node->codebook, 1);
  spec.gains = tensor(node->gains, 1);
  spec.bias = tensor(node->bias, spec.half_bias ? 2 : 4);
  spec.slots = list(node->slots);
  spec.slots_shape = {cosetq::schema::kSlotFields, node->slots.count / cosetq::schema::kSlotFields};
  spec.level_weights = list(node->level_weights);
  spec.centre = list(node->centre);
  spec.gain_values = list(node->gain_values);
  spec.gain_divisors = list(node->gain_divisors);
  spec.scale_divisors = list(node->scale_divisors);
  spec.signs = tensor(node->signs, 1);
  spec.rotation = list(node->rotation);
  made->weight = cosetq::Weight::Create(spec, &last_error);
  if (made->weight == nullptr) return -1;
  *out = new cosetq_cuda_weight{{std::move(made)}};
  return 0;
}

int cosetq_cuda_weight_join(const struct cosetq_cuda_weight* first, const struct cosetq_cuda_weight* second, struct cosetq_cuda_weight** joined) {
  const cosetq::WeightView &a = first->parts[0]->weight->view(), &b = second->parts[0]->weight->view();
  *joined = nullptr;
  if (a.form != b.form || a.cols != b.cols || a.rows % 16 != 0) return 0;
  *joined = new cosetq_cuda_weight{first->parts};
  (*joined)->parts.insert((*joined)->parts.end(), second->parts.begin(), second->parts.end());
  return 0;
}

void cosetq_cuda_weight_free(struct cosetq_cuda_weight* weight) { delete weight; }

// A weight that has the rows of several takes the memory of all, as it does on a GPU.
int64_t cosetq_cuda_weight_bytes(const struct cosetq_cuda_weight* weight) {
  size_t bytes = 0;
  for (const auto& part : weight->parts) {
    for (const std::vector<char>& copy : part->copies) bytes += copy.size();
  }
  return static_cast<int64_t>(bytes);
}

int cosetq_cuda_gather(const struct cosetq_cuda_weight* weight, const void* indices, int32_t index_bytes, int64_t count,
                       void* out, int32_t type, void*) {
  const cosetq::WeightView& w = weight->parts[0]->weight->view();
  std::vector<float> values(static_cast<size_t>(w.cols));
  for (int64_t i = 0; i < count; ++i) {
    int64_t row = index_bytes == 8 ? static_cast<const int64_t*>(indices)[i] : static_cast<const int32_t*>(indices)[i];
    if (row < 0) row += w.rows;
    values.assign(values.size(), 0.0f);
    if (row >= 0 && row < w.rows) cosetq::DecodeRow(w, row, values.data());
    for (int64_t k = 0; k < w.cols; ++k) {
      const float value = values[static_cast<size_t>(k)];
      if (type == COSETQ_FLOAT16) {
        static_cast<uint16_t*>(out)[i * w.cols + k] = cosetq::FloatToHalf(value);
      } else {
        static_cast<float*>(out)[i * w.cols + k] = value;
      }
    }
  }
  return 0;
}

int64_t cosetq_cuda_linear_workspace(const struct cosetq_cuda_weight*, int64_t, int32_t, int32_t) { return 0; }

int cosetq_cuda_linear(const struct cosetq_cuda_weight* weight, const struct cosetq_linear_call* request, void*) {
  const auto bytes = static_cast<size_t>(request->type == COSETQ_FLOAT16 ? 2 : 4);
  size_t rows = 0, first = 0;
  for (const auto& part : weight->parts) rows += static_cast<size_t>(part->weight->view().rows);
  for (const auto& part : weight->parts) {
    const auto own = static_cast<size_t>(part->weight->view().rows);
    std::vector<char> y(own * static_cast<size_t>(request->batch) * bytes);
    cosetq::LinearCall call;
    call.batch = request->batch;
    if (request->type == COSETQ_FLOAT16) {
      call.a_half = static_cast<const uint16_t*>(request->a);
      call.y_half = reinterpret_cast<uint16_t*>(y.data());
    } else {
      call.a = static_cast<const float*>(request->a);
      call.y = reinterpret_cast<float*>(y.data());
    }
    if (request->accuracy == cosetq::schema::kAccuracyFast) call.accuracy = cosetq::Accuracy::kFast;
    SerialHost host;
    if (cosetq::RunLinear(*part->weight, cosetq::ActiveKernels(), call, &host) != cosetq::Outcome::kDone) {
      last_error = "out of memory";
      return -1;
    }
    for (size_t i = 0; i < static_cast<size_t>(request->batch); ++i)
      std::memcpy(static_cast<char*>(request->y) + (i * rows + first) * bytes, y.data() + i * own * bytes, own * bytes);
    first += own;
  }
  return 0;
}

}  // extern "C"
