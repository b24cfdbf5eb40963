// What the provider knows of an operator, and what an operator sees of a run.

#ifndef COSETQ_EP_OPERATOR_H_
#define COSETQ_EP_OPERATOR_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "chain.h"
#include "graph.h"
#include "strided.h"
#include "tensor.h"

namespace cosetq::ep {

// What a node keeps between runs, such as weights in a layout of their own.
class State {
 public:
  virtual ~State() = default;
};

// One run of one node. Data inputs and outputs are where the node runs: in the stream's memory.
class Call {
 public:
  // What a node is given, as long as it runs. Kept from one to the next, with the memory that its lists have.
  struct Given {
    std::vector<Tensor> tensors;
    std::vector<const Tensor*> data;  // null where left out
    std::vector<std::shared_ptr<const Strided>> lies;
  };
  virtual ~Call() = default;

  const Node& node;
  Stream& stream;
  const State* const state;

  size_t inputs() const { return node.inputs.size(); }
  bool has(size_t i) const { return i < node.inputs.size() && node.inputs[i] >= 0; }
  const Tensor& in(size_t i) const { return *given_.data.at(i); }
  // An input that the operator declares as one for the host.
  const Tensor& host(size_t i) const { return *given_.data.at(i); }
  // One that has a single number.
  const Tensor& Number(size_t i) const;
  // A host input as integers, whatever integer type it has.
  std::vector<int64_t> Integers(size_t i) const;
  // The axes of an operator that has them as an attribute in old versions and as an input in new ones.
  std::vector<int64_t> Axes(size_t input, const char* attribute = "axes") const;

  // How an input that the operator takes as it lies does so: null where as its shape says. Its first number is where its data are.
  const Strided* lies(size_t i) const { return given_.lies.at(i).get(); }
  Strided AsItLies(size_t i) const { return lies(i) != nullptr ? *lies(i) : Strided(in(i).shape); }
  // Such an input, copied to lie as its shape says.
  virtual Tensor Whole(size_t i) = 0;

  // Makes output i.
  virtual Tensor Out(size_t i, Type type, const Shape& shape) = 0;
  // Makes output i of an input with another shape, without a copy where that is possible.
  virtual void View(size_t i, const Tensor& of, const Shape& shape) = 0;
  // Leaves output i where its numbers are, from the data of a tensor on, for others to copy or to read as they lie. False, and nothing is done, where they
  // may not stay there.
  virtual bool Lie(size_t i, const Tensor& of, const Strided& lies) = 0;
  // Memory for the time of the call.
  Tensor Scratch(Type type, const Shape& shape) const;

 protected:
  Call(const Node& node, Stream& stream, const State* state, Given& given)
      : node(node), stream(stream), state(state), given_(given) {}
  Given& given_;
};

using TypeSet = uint32_t;
constexpr TypeSet Set(Type type) { return 1u << static_cast<int>(type); }
constexpr TypeSet kFloats = Set(Type::kFloat) | Set(Type::kHalf);
constexpr TypeSet kIndices = Set(Type::kInt32) | Set(Type::kInt64);
constexpr TypeSet kNumbers = kFloats | kIndices;
constexpr TypeSet kBool = Set(Type::kBool);
constexpr TypeSet kAny = kNumbers | kBool | Set(Type::kUint8) | Set(Type::kInt8) | Set(Type::kUint16);

// What the entries of the session's configuration say.
struct Settings {
  bool all_nodes = false;  // ai.coset.gpu_nodes is "all": also nodes that are not worth the way to the device
  std::string accuracy;    // ai.coset.accuracy, "" where it is not given
};

struct Operator {
  const char* name;
  void (*run)(Call& call);
  // Types of the inputs; the last entry stands for all that follow.
  std::vector<TypeSet> types;
  uint32_t host_inputs = 0;      // bit i: input i is read on the host, which must know it before the launch
  uint32_t constant_inputs = 0;  // bit i: input i must be a constant, which only prepare sees
  size_t outputs = 1;            // at most so many
  const char* domain = "";
  // Names of the attributes that the kernel knows, of an operator that gets new ones without a new version; null for any.
  const char* attributes = nullptr;
  size_t inputs = SIZE_MAX;  // at most so many that the kernel looks at
  // What it does to one element of each of its inputs, where those are floats; false if it is more than that.
  bool (*step)(const Node& node, Instruction* step) = nullptr;
  // A product of matrices or rows of a coded one, worth the way to the GPU, and never run on the host.
  bool heavy = false;
  // Why a node is not supported, "" if it is. The types are checked already.
  std::string (*check)(const Graph& graph, const Node& node) = nullptr;
  // Makes the state, given the constants by input on the host, null where there are none.
  std::unique_ptr<State> (*prepare)(const Node& node, const std::vector<const Tensor*>& constants,
                                    const Settings& settings) = nullptr;
  uint32_t strided_inputs = 0;  // bit i: input i is taken as it lies
  bool remembers = false;       // what it adds up outlives the run, and may lie elsewhere in the next: to be done in each
};

// Null when there is no such operator here.
const Operator* FindOperator(const std::string& domain, const std::string& name);

// Why the provider cannot run the node, "" if it can.
std::string Refusal(const Graph& graph, const Node& node);

// The operators by kind, each list in its own file.
std::vector<Operator> ElementwiseOperators();
std::vector<Operator> MovementOperators();
std::vector<Operator> PadOperators();
std::vector<Operator> IndexOperators();
std::vector<Operator> ScatterOperators();
std::vector<Operator> ChoiceOperators();
std::vector<Operator> ShapeOperators();
std::vector<Operator> ReductionOperators();
std::vector<Operator> NormalizationOperators();
std::vector<Operator> GroupNormOperators();
std::vector<Operator> RotaryOperators();
std::vector<Operator> MatrixOperators();
std::vector<Operator> ConvolutionOperators();
std::vector<Operator> PoolingOperators();
std::vector<Operator> ResizeOperators();
std::vector<Operator> AttentionOperators();
std::vector<Operator> MultiHeadOperators();
std::vector<Operator> LinearOperators();
std::vector<Operator> ObserveOperators();

// A sum and its norm (normalization.cu).
const Operator& SumNormOperator();

[[noreturn]] void ThrowType(const Call& call, Type type);

}  // namespace cosetq::ep

// Runs function<T>(arguments...) for the C++ type of an element type.
#define COSETQ_EP_FLOATS(call, type, function, ...) \
  switch (type) {                                   \
    case ::cosetq::ep::Type::kFloat:                \
      function<float>(__VA_ARGS__);                 \
      break;                                        \
    case ::cosetq::ep::Type::kHalf:                 \
      function<::cosetq::ep::Half>(__VA_ARGS__);    \
      break;                                        \
    default:                                        \
      ::cosetq::ep::ThrowType(call, type);          \
  }

#define COSETQ_EP_NUMBERS(call, type, function, ...) \
  switch (type) {                                    \
    case ::cosetq::ep::Type::kInt32:                 \
      function<int32_t>(__VA_ARGS__);                \
      break;                                         \
    case ::cosetq::ep::Type::kInt64:                 \
      function<int64_t>(__VA_ARGS__);                \
      break;                                         \
    default:                                         \
      COSETQ_EP_FLOATS(call, type, function, __VA_ARGS__) \
  }

// By size alone, for operators that only move elements.
#define COSETQ_EP_SIZES(call, type, function, ...) \
  switch (::cosetq::ep::SizeOf(type)) {            \
    case 1:                                        \
      function<uint8_t>(__VA_ARGS__);              \
      break;                                       \
    case 2:                                        \
      function<uint16_t>(__VA_ARGS__);             \
      break;                                       \
    case 4:                                        \
      function<uint32_t>(__VA_ARGS__);             \
      break;                                       \
    case 8:                                        \
      function<uint64_t>(__VA_ARGS__);             \
      break;                                       \
    default:                                       \
      ::cosetq::ep::ThrowType(call, type);         \
  }

#endif  // COSETQ_EP_OPERATOR_H_
