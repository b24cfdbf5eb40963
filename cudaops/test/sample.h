// Random weights of any codec for tests and benchmarks, and their decoding in double precision.

#ifndef COSETQ_TEST_SAMPLE_H_
#define COSETQ_TEST_SAMPLE_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "cpu/linear.h"
#include "cpu/weight.h"

namespace cosetq::test {

// A codec as the format stores it. slots holds one row per field, see schema::SlotField.
struct Codec {
  const char* name;
  int dim;
  int elements;
  int code_bytes;
  int entries;
  std::vector<float> level_weights;
  std::vector<std::vector<float>> slots;
};

const std::vector<Codec>& Codecs();
const Codec& CodecNamed(const std::string& name);

// What differs between weights of one codec and shape.
struct Options {
  std::vector<float> gains = {2, 3, 4, 6};
  bool direct_scales = false;
  bool bias = true;
  bool half = false;  // activations, bias and output
  float centre = 0.5f;  // largest coordinate of it, in units of the codebook
  float centre_step = 0;     // which it is a multiple of; 0 for any number
  bool consecutive = false;  // codewords of single columns are integers that follow each other, in any order
};

// A spec together with the memory it points to. Every tensor ends where its memory ends, so that
// the address sanitizer sees a read past it.
class Sample {
 public:
  Sample(const Codec& codec, int64_t rows, int64_t cols, const Options& options, uint64_t seed);
  Sample(const Sample&) = delete;

  WeightSpec& spec() { return spec_; }
  // Takes the codebook and the centre of another sample of the same codec, which must live on.
  void SetCodebook(const Sample& other) {
    spec_.codebook = other.spec_.codebook;
    spec_.centre = other.spec_.centre;
  }
  const Codec& codec() const { return codec_; }
  // The weights with their scales, row after row.
  std::vector<double> Decode() const;
  double Bias(int64_t row) const;

 private:
  template <typename T>
  const T* Fill(TensorSpec* tensor, std::vector<int64_t> shape, int64_t low, int64_t high);

  const Codec& codec_;
  Options options_;
  std::mt19937_64 random_;
  std::vector<std::vector<unsigned char>> memory_;
  WeightSpec spec_;
};

// Threads and memory for tests: pieces run in reverse order and on two threads when that is asked
// for.
class TestHost : public Host {
 public:
  explicit TestHost(bool reverse = false) : reverse_(reverse) {}
  ~TestHost() override;
  bool ParallelFor(void (*body)(void*, size_t), size_t total, void* data) override;
  void* Allocate(size_t bytes) override;

 private:
  bool reverse_;
  std::vector<void*> blocks_;
};

}  // namespace cosetq::test

#endif  // COSETQ_TEST_SAMPLE_H_
