// Device memory with an owner.

#ifndef COSETQ_CUDA_MEMORY_H_
#define COSETQ_CUDA_MEMORY_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "errors.h"

namespace cosetq::cuda {

template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count) : count_(count) {
    if (count > 0) Check(cudaMalloc(&data_, count * sizeof(T)), "allocate device memory");
  }
  // What is copied there when it is made, for any stream.
  Buffer(const T* host, size_t count) : Buffer(count) {
    if (count == 0) return;
    Check(cudaMemcpyAsync(data_, host, count * sizeof(T), cudaMemcpyHostToDevice, cudaStreamPerThread), "copy to the device");
    Check(cudaStreamSynchronize(cudaStreamPerThread), "copy to the device");
  }
  explicit Buffer(const std::vector<T>& host) : Buffer(host.data(), host.size()) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() { cudaFree(data_); }

  // A copy, with what the other one holds behind it.
  Buffer And(const Buffer& other) const {
    Buffer all(count_ + other.count_);
    all.Take(data_, count_, 0);
    all.Take(other.data_, other.count_, count_);
    return all;
  }
  // Whether both hold the same.
  bool Holds(const Buffer& other) const { return count_ == other.count_ && Read() == other.Read(); }

  T* get() const { return data_; }
  size_t bytes() const { return count_ * sizeof(T); }

 private:
  void Take(const T* from, size_t count, size_t at) {
    if (count == 0) return;
    Check(cudaMemcpyAsync(data_ + at, from, count * sizeof(T), cudaMemcpyDeviceToDevice, cudaStreamPerThread), "copy on the device");
    Check(cudaStreamSynchronize(cudaStreamPerThread), "copy on the device");
  }
  std::vector<T> Read() const {
    std::vector<T> host(count_);
    if (count_ == 0) return host;
    Check(cudaMemcpyAsync(host.data(), data_, bytes(), cudaMemcpyDeviceToHost, cudaStreamPerThread), "copy from the device");
    Check(cudaStreamSynchronize(cudaStreamPerThread), "copy from the device");
    return host;
  }
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }

  T* data_ = nullptr;
  size_t count_ = 0;
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_MEMORY_H_
