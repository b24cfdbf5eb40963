// Checks the tensors and attributes of a node and turns them into a WeightView.

#ifndef COSETQ_CPU_WEIGHT_H_
#define COSETQ_CPU_WEIGHT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rotation.h"
#include "weight_view.h"

namespace cosetq {

// A tensor as the model gave it: the memory holds as many elements as the shape says.
struct TensorSpec {
  const void* data = nullptr;
  std::vector<int64_t> shape;
};

// Everything that describes a weight, unchecked.
struct WeightSpec {
  int64_t rows = 0;  // attribute N
  int64_t cols = 0;  // attribute K
  int code_bytes = 1;
  bool half_bias = false;
  TensorSpec codes;
  TensorSpec scales;  // float16
  TensorSpec scale_index;
  TensorSpec codebook;
  TensorSpec gains;
  TensorSpec bias;
  TensorSpec signs;             // without data where the node has no rotation
  std::vector<float> rotation;  // B
  std::vector<int64_t> slots_shape;
  std::vector<float> slots;
  std::vector<float> level_weights;
  std::vector<float> centre;
  std::vector<float> gain_values;
  std::vector<float> gain_divisors;
  std::vector<float> scale_divisors;
};

// A checked weight. Once made, no byte of codes or gains can lead a kernel out of bounds. Codes,
// gains and most codebooks stay where they are and must outlive the Weight; everything small is
// copied.
class Weight {
 public:
  // Returns null and says in error what is wrong, naming the attribute or tensor.
  static std::unique_ptr<Weight> Create(const WeightSpec& spec, std::string* error);

  const WeightView& view() const { return view_; }
  // What the activations are turned by before they meet the codes.
  const Rotation& rotation() const { return rotation_; }

 private:
  Weight() = default;

  bool SetShape(const WeightSpec& spec, std::string* error);
  bool SetSlots(const WeightSpec& spec, std::string* error);
  bool SetCodebook(const WeightSpec& spec, std::string* error);
  bool SetGains(const WeightSpec& spec, std::string* error);
  bool SetScales(const WeightSpec& spec, std::string* error);
  bool SetBias(const WeightSpec& spec, std::string* error);
  bool SetRotation(const WeightSpec& spec, std::string* error);

  WeightView view_ = {};
  std::vector<Slot> slots_;
  std::vector<float> level_weights_;
  std::vector<int32_t> words_;
  std::vector<float> row_scales_;
  std::vector<float> bias_;
  Rotation rotation_;
  std::unique_ptr<FormTables> tables_;
};

// Recognises the forms with kernels of their own; kGeneral leaves tables as it was.
Form RecogniseForm(const WeightView& view, FormTables* tables);

}  // namespace cosetq

#endif  // COSETQ_CPU_WEIGHT_H_
