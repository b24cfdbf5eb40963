// A node that lies about its weight in any way is refused, or runs inside its memory.
//
// The bytes choose a sound weight, spoil attributes, shapes and tensors of it, and give the
// activations. ONNX Runtime vouches for one thing alone: that a tensor's memory is as large as its
// shape says. So every tensor here lies in a block of exactly that size, and the address sanitizer
// sees the first byte read past it.

#include <cstdlib>
#include <iterator>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/gather.h"
#include "cpu/linear.h"
#include "cpu/weight.h"
#include "input.h"
#include "sample.h"

namespace cosetq::fuzz {
namespace {

using test::Codecs;
using test::Options;
using test::Sample;
using test::TestHost;

constexpr int64_t kMaxElements = 1 << 16;

// A float that is often a small integer, sometimes any bit pattern.
float Number(Input* in) {
  return in->Below(4) != 0 ? static_cast<float>(in->Take<int16_t>()) / 2 : in->Take<float>();
}

int64_t Integer(Input* in) {
  return in->Below(8) != 0 ? in->Take<int16_t>() : in->Take<int64_t>();
}

// Spoils a list of numbers: one of them, or the length.
void Spoil(Input* in, std::vector<float>* list) {
  const size_t at = static_cast<size_t>(in->Below(64));
  switch (in->Below(4)) {
    case 0:
      list->resize(at);
      break;
    case 1:
      list->push_back(Number(in));
      break;
    default:
      if (!list->empty()) (*list)[at % list->size()] = Number(in);
  }
}

class Tensors {
 public:
  // Gives a tensor a shape of its own, and exactly as much memory as that needs, filled from the
  // input. A shape that no memory can hold stays out.
  void Spoil(Input* in, TensorSpec* tensor, size_t element) {
    std::vector<int64_t> shape = tensor->shape;
    const size_t at = static_cast<size_t>(in->Below(5));
    switch (in->Below(4)) {
      case 0:
        shape.resize(at, 1);
        break;
      case 1:
        if (!shape.empty()) shape[at % shape.size()] += in->Take<int8_t>();
        break;
      case 2:
        if (!shape.empty()) shape[at % shape.size()] = in->Below(600);
        break;
      default:
        break;  // the shape stays, the content changes
    }
    int64_t count = 1;
    for (int64_t d : shape) {
      if (d < 0 || d > kMaxElements) return;
      count *= d;
      if (count > kMaxElements) return;
    }
    const size_t bytes = static_cast<size_t>(count) * element;
    blocks_.emplace_back(std::malloc(bytes == 0 ? 1 : bytes), &std::free);
    in->Fill(blocks_.back().get(), bytes);
    tensor->data = blocks_.back().get();
    tensor->shape = shape;
  }

 private:
  std::list<std::unique_ptr<void, void (*)(void*)>> blocks_;
};

void SpoilSpec(Input* in, Tensors* tensors, WeightSpec* s) {
  const size_t code = static_cast<size_t>(s->code_bytes), bias = s->half_bias ? 2 : 4;
  switch (in->Below(16)) {
    case 0: s->rows = Integer(in); break;
    case 1: s->cols = Integer(in); break;
    case 2: tensors->Spoil(in, &s->codes, code); break;
    case 3: tensors->Spoil(in, &s->scales, 2); break;
    case 4: tensors->Spoil(in, &s->scale_index, 1); break;
    case 5: tensors->Spoil(in, &s->codebook, 1); break;
    case 6: tensors->Spoil(in, &s->gains, 1); break;
    case 7: tensors->Spoil(in, &s->bias, bias); break;
    case 8: Spoil(in, &s->slots); break;
    case 9: Spoil(in, &s->level_weights); break;
    case 10: Spoil(in, &s->centre); break;
    case 11: Spoil(in, &s->gain_values); break;
    case 12: Spoil(in, &s->gain_divisors); break;
    case 13: Spoil(in, &s->scale_divisors); break;
    case 14: s->slots_shape = {in->Below(8), in->Below(64)}; break;
    default:
      // A codebook of the size that the slots ask for, with coordinates of any size.
      tensors->Spoil(in, &s->codebook, 1);
      Spoil(in, &s->slots);
  }
}

// Takes single rows, as an embedding does.
void Gather(Input* in, const WeightView& w) {
  if (w.cols > kMaxElements) return;
  std::vector<float> row(static_cast<size_t>(w.cols));
  for (int64_t at : {int64_t{0}, in->Below(w.rows), w.rows - 1}) DecodeRow(w, at, row.data());
}

// Runs a batch, of which each size meets another path, with one instruction set.
void Run(Input* in, const Weight& weight, bool half) {
  const WeightView& w = weight.view();
  if (w.rows * w.cols > kMaxElements) return;
  const int64_t batches[] = {1, 2, 3, 7};
  const int64_t batch = batches[in->Below(std::size(batches))];
  const size_t inputs = static_cast<size_t>(batch * w.cols), outputs = static_cast<size_t>(batch * w.rows);
  std::vector<float> a(half ? 0 : inputs), y(half ? 0 : outputs);
  std::vector<uint16_t> a_half(half ? inputs : 0), y_half(half ? outputs : 0);
  for (float& v : a) v = Number(in);
  if (half) in->Fill(a_half.data(), inputs * sizeof(uint16_t));
  int isas = 0;
  const char* const* names = AvailableIsas(&isas);
  std::string error;
  if (!SelectIsa(names[in->Below(isas)], &error)) std::abort();
  LinearCall call;
  call.batch = batch;
  call.accuracy = in->Below(2) != 0 ? Accuracy::kAccurate : Accuracy::kFast;
  call.a = half ? nullptr : a.data();
  call.a_half = half ? a_half.data() : nullptr;
  call.y = half ? nullptr : y.data();
  call.y_half = half ? y_half.data() : nullptr;
  TestHost host(batch % 2 == 0);
  if (RunLinear(weight, ActiveKernels(), call, &host) != Outcome::kDone) std::abort();
}

}  // namespace
}  // namespace cosetq::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cosetq;
  using namespace cosetq::fuzz;
  Input in(data, size);
  const std::vector<std::vector<float>> gains = {
      {2, 3, 4, 6}, {1}, {1.5, 2.25}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
  const test::Codec& codec = Codecs()[static_cast<size_t>(in.Below(static_cast<int64_t>(Codecs().size())))];
  Options options;
  options.gains = gains[static_cast<size_t>(in.Below(static_cast<int64_t>(gains.size())))];
  options.direct_scales = in.Below(2) != 0;
  options.bias = in.Below(2) != 0;
  options.half = in.Below(2) != 0;
  // Many tiles in one input of eight: look-up tables are for those.
  const int64_t rows = 1 + in.Below(130) + (in.Below(8) == 0 ? 448 : 0), cols = 1 + in.Below(100);
  Sample sample(codec, rows, cols, options, in.Take<uint8_t>());
  WeightSpec& spec = sample.spec();
  Tensors tensors;
  for (int64_t edits = in.Below(4); edits > 0 && !in.empty(); --edits) SpoilSpec(&in, &tensors, &spec);
  std::string error;
  const std::unique_ptr<Weight> weight = Weight::Create(spec, &error);
  if (weight == nullptr) {
    if (error.empty()) std::abort();  // a refusal says why
    return 0;
  }
  Gather(&in, weight->view());
  Run(&in, *weight, spec.half_bias);
  return 0;
}
