// The bytes of a fuzzer taken as numbers and buffers. When they run out, zeros follow.

#ifndef COSETQ_FUZZ_INPUT_H_
#define COSETQ_FUZZ_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cosetq::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return size_ == 0; }

  template <typename T>
  T Take() {
    T value{};
    Fill(&value, sizeof value);
    return value;
  }

  // 0 to below - 1.
  int64_t Below(int64_t below) { return Take<uint16_t>() % below; }

  void Fill(void* to, size_t bytes) {
    if (bytes == 0) return;  // a buffer of nothing may be null
    const size_t n = bytes < size_ ? bytes : size_;
    std::memset(to, 0, bytes);
    if (n > 0) std::memcpy(to, data_, n);
    data_ += n;
    size_ -= n;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

}  // namespace cosetq::fuzz

#endif  // COSETQ_FUZZ_INPUT_H_
