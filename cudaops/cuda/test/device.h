// What the tests and the workbench need of a device: memory that arrives poisoned, nodes from samples.

#ifndef COSETQ_CUDA_TEST_DEVICE_H_
#define COSETQ_CUDA_TEST_DEVICE_H_

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "cosetq/cuda.h"
#include "sample.h"

namespace cosetq::test {

inline void Must(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "%s failed: %s, %s\n", what, cosetq_cuda_error(), cudaGetErrorString(cudaGetLastError()));
  std::exit(1);
}

// Device memory whose every byte is 0xff, NaN in every float type, until it is written.
class DeviceBytes {
 public:
  explicit DeviceBytes(size_t bytes) : bytes_(bytes) {
    Must(cudaMalloc(&data_, bytes + 1) == cudaSuccess, "cudaMalloc");
    Must(cudaMemset(data_, 0xff, bytes) == cudaSuccess, "cudaMemset");
  }
  template <typename T>
  explicit DeviceBytes(const std::vector<T>& host) : DeviceBytes(host.size() * sizeof(T)) {
    Must(cudaMemcpy(data_, host.data(), bytes_, cudaMemcpyHostToDevice) == cudaSuccess, "cudaMemcpy");
  }
  DeviceBytes(const DeviceBytes&) = delete;
  ~DeviceBytes() { cudaFree(data_); }

  template <typename T>
  std::vector<T> Read() const {
    std::vector<T> host(bytes_ / sizeof(T));
    Must(cudaMemcpy(host.data(), data_, bytes_, cudaMemcpyDeviceToHost) == cudaSuccess, "cudaMemcpy");
    return host;
  }

  void* get() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

// Gives the weight of a sample a rotation with signs from its memory.
inline void SetRotation(int block, std::vector<uint8_t>* signs, WeightSpec* spec) {
  std::mt19937 random(2);
  signs->resize(static_cast<size_t>((spec->cols + 7) / 8));
  for (uint8_t& byte : *signs) byte = static_cast<uint8_t>(random());
  spec->signs = {signs->data(), {static_cast<int64_t>(signs->size())}};
  spec->rotation = {static_cast<float>(block)};
}

// The node of a sample; it points into the sample.
inline cosetq_linear_node Node(const WeightSpec& s) {
  cosetq_linear_node n = {};
  n.rows = s.rows;
  n.cols = s.cols;
  n.code_bytes = s.code_bytes;
  n.bias_type = s.half_bias ? COSETQ_FLOAT16 : COSETQ_FLOAT;
  const auto tensor = [](const TensorSpec& t) {
    cosetq_tensor out = {t.data, static_cast<int32_t>(t.shape.size()), {}};
    for (size_t i = 0; i < t.shape.size(); ++i) out.shape[i] = t.shape[i];
    return out;
  };
  const auto floats = [](const std::vector<float>& v) {
    return cosetq_floats{v.data(), static_cast<int64_t>(v.size())};
  };
  n.codes = tensor(s.codes);
  n.scales = tensor(s.scales);
  n.scale_index = tensor(s.scale_index);
  n.codebook = tensor(s.codebook);
  n.gains = tensor(s.gains);
  n.bias = tensor(s.bias);
  n.slots = floats(s.slots);
  n.level_weights = floats(s.level_weights);
  n.centre = floats(s.centre);
  n.gain_values = floats(s.gain_values);
  n.gain_divisors = floats(s.gain_divisors);
  n.scale_divisors = floats(s.scale_divisors);
  n.signs = tensor(s.signs);
  n.rotation = floats(s.rotation);
  return n;
}

// A weight on the device.
class DeviceSample {
 public:
  explicit DeviceSample(const WeightSpec& spec) {
    const cosetq_linear_node node = Node(spec);
    Must(cosetq_cuda_weight_create(&node, &weight_) == 0, "cosetq_cuda_weight_create");
  }
  DeviceSample(const DeviceSample&) = delete;
  ~DeviceSample() { cosetq_cuda_weight_free(weight_); }
  const cosetq_cuda_weight* get() const { return weight_; }

 private:
  cosetq_cuda_weight* weight_ = nullptr;
};

}  // namespace cosetq::test

#endif  // COSETQ_CUDA_TEST_DEVICE_H_
