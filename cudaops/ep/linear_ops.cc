// HNLQLinear, the product with a coded weight, and HNLQGather, rows of one, by the kernels behind cosetq/cuda.h.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "backend.h"
#include "chain.h"
#include "cosetq/cuda.h"
#include "cosetq/schema.h"
#include "custom_op.h"
#include "linear_op.h"
#include "linear_ops.h"
#include "movement.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

void CheckKernel(int result) {
  if (result != 0) throw DeviceError(cosetq_cuda_error());
}

std::atomic<int64_t> weight_bytes;

class CodedWeight : public State {
 public:
  explicit CodedWeight(const cosetq_linear_node& node) : cols(node.cols), rows(node.rows), parts{node.rows} {
    CheckKernel(cosetq_cuda_weight_create(&node, &weight));
    weight_bytes += cosetq_cuda_weight_bytes(weight);
  }
  // Of a weight that is there, which is its from now on, and has the rows of both.
  CodedWeight(const CodedWeight& first, const CodedWeight& second, cosetq_cuda_weight* weight)
      : cols(first.cols), rows(first.rows + second.rows), parts(first.parts), accuracy(first.accuracy), weight(weight) {
    parts.insert(parts.end(), second.parts.begin(), second.parts.end());
    weight_bytes += cosetq_cuda_weight_bytes(weight);
  }
  ~CodedWeight() override {
    weight_bytes -= cosetq_cuda_weight_bytes(weight);
    cosetq_cuda_weight_free(weight);
  }

  const int64_t cols, rows;
  std::vector<int64_t> parts;  // rows of the weights that it is made of
  int32_t accuracy = schema::kAccuracyDefault;  // of products
  cosetq_cuda_weight* weight = nullptr;
};

cosetq_tensor View(const Tensor* tensor) {
  cosetq_tensor view = {};
  if (tensor == nullptr) return view;
  view.data = tensor->data();
  if (tensor->shape.size() > std::size(view.shape)) throw std::invalid_argument("a constant of more than 4 dimensions");
  view.rank = static_cast<int32_t>(tensor->shape.size());
  std::copy(tensor->shape.begin(), tensor->shape.end(), view.shape);
  return view;
}

// A list stands in a float tensor.
cosetq_floats Floats(const Tensor& tensor, const char* name) {
  if (!tensor.buffer || tensor.type != Type::kFloat)
    throw std::invalid_argument(std::string("attribute ") + name + " is missing or not a tensor of floats");
  return {tensor.data<float>(), tensor.count()};
}

// The weight of a node, whose constants go up to the last one but for signs.
std::unique_ptr<CodedWeight> ReadWeight(const Node& node, const std::vector<const Tensor*>& constants, size_t last) {
  const Attributes& attributes = node.attributes;
  const auto constant = [&](size_t i) { return i < constants.size() ? constants[i] : nullptr; };
  for (size_t i = schema::kInputCodes; i <= last; ++i) {
    if (constant(i) == nullptr) throw std::invalid_argument(std::string("input ") + schema::kInputNames[i] + " is missing");
  }
  cosetq_linear_node spec = {};
  spec.rows = attributes.Int(schema::kAttrN, 0);
  spec.cols = attributes.Int(schema::kAttrK, 0);
  spec.code_bytes = static_cast<int32_t>(SizeOf(constants[schema::kInputCodes]->type));
  spec.codes = View(constant(schema::kInputCodes));
  spec.scales = View(constant(schema::kInputScales));
  spec.scale_index = View(constant(schema::kInputScaleIndex));
  spec.codebook = View(constant(schema::kInputCodebook));
  spec.gains = View(constant(schema::kInputGains));
  static const float kNoBias = 0;
  if (last < schema::kInputBias) {
    spec.bias_type = COSETQ_FLOAT;
    spec.bias = {&kNoBias, 1, {1}};
  } else {
    spec.bias_type = static_cast<int32_t>(constants[schema::kInputBias]->type);
    spec.bias = View(constant(schema::kInputBias));
  }
  std::vector<Tensor> lists;  // keeps what spec points at
  const auto list = [&](const char* name) {
    lists.push_back(attributes.Value(name));
    return Floats(lists.back(), name);
  };
  spec.slots = list(schema::kAttrSlots);
  spec.level_weights = list(schema::kAttrLevelWeights);
  spec.centre = list(schema::kAttrCentre);
  spec.gain_values = list(schema::kAttrGainValues);
  spec.gain_divisors = list(schema::kAttrGainDivisors);
  spec.scale_divisors = list(schema::kAttrScaleDivisors);
  if (constant(schema::kInputSigns) != nullptr) {
    spec.signs = View(constant(schema::kInputSigns));
    spec.rotation = list(schema::kAttrRotation);
  }
  return std::make_unique<CodedWeight>(spec);
}

std::unique_ptr<State> PrepareLinear(const Node& node, const std::vector<const Tensor*>& constants,
                                     const Settings& settings) {
  auto linear = ReadWeight(node, constants, schema::kInputBias);
  const int64_t attribute = node.attributes.Int(schema::kAttrAccuracy, 0);
  std::string error;
  if (!ChooseAccuracy(settings.accuracy.empty() ? nullptr : settings.accuracy.c_str(),
                      node.attributes.Has(schema::kAttrAccuracy) ? &attribute : nullptr, &linear->accuracy, &error))
    throw std::invalid_argument(error);
  return linear;
}

std::unique_ptr<State> PrepareGather(const Node& node, const std::vector<const Tensor*>& constants, const Settings&) {
  return ReadWeight(node, constants, schema::kInputGains);
}

// The shape of a product.
Shape ProductShape(const CodedWeight& linear, const Tensor& a, int64_t rows) {
  if (a.shape.empty() || a.shape.back() != linear.cols)
    throw std::invalid_argument("A of " + Text(a.shape) + " for a weight of " + std::to_string(linear.cols) + " columns");
  Shape shape = a.shape;
  shape.back() = rows;
  return shape;
}

void Multiply(Call& call, const CodedWeight& linear, const Tensor& a, const Tensor& y) {
  if (y.count() == 0) return;
  cosetq_linear_call request = {};
  request.a = a.data();
  request.y = y.data();
  request.batch = a.count() / linear.cols;
  request.type = static_cast<int32_t>(a.type);
  request.accuracy = linear.accuracy;
  request.workspace_bytes = cosetq_cuda_linear_workspace(linear.weight, request.batch, request.type, request.accuracy);
  CheckKernel(request.workspace_bytes < 0);
  const Tensor workspace = call.Scratch(Type::kUint8, {request.workspace_bytes});
  request.workspace = workspace.data();
  CheckKernel(cosetq_cuda_linear(linear.weight, &request, call.stream.handle()));
}

void RunLinear(Call& call) {
  const auto& linear = static_cast<const CodedWeight&>(*call.state);
  const Tensor& a = call.in(0);
  const Shape shape = ProductShape(linear, a, linear.rows);
  Multiply(call, linear, a, call.Out(0, a.type, shape));
}

class JoinedProducts : public State {
 public:
  JoinedProducts(std::shared_ptr<const State> both, std::shared_ptr<const State> chain) : both(std::move(both)), chain(std::move(chain)) {}

  const std::shared_ptr<const State> both;  // a CodedWeight
  const std::shared_ptr<const State> chain;
};

// Rows from one on, of a matrix of such a width.
Tensor Rows(const Tensor& of, int64_t width, int64_t first, int64_t count) {
  return {of.type, {count, width}, Buffer::Part(of.buffer, static_cast<size_t>(first * width) * SizeOf(of.type))};
}

// Gives the products of all parts of a weight to use(products, first, count), in runs of as many rows as leave the numbers of all within what a kernel
// counts, which those of each are.
template <typename Use>
void MultiplyParts(Call& call, const CodedWeight& all, const Tensor& a, const Use& use) {
  const int64_t most = std::max<int64_t>(1, INT32_MAX / all.rows / 64 * 64);  // runs begin as aligned as the whole
  const int64_t rows = a.count() / all.cols;
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t count = std::min(most, rows - first);
    const Tensor products = call.Scratch(a.type, {count, all.rows});
    Multiply(call, all, Rows(a, all.cols, first, count), products);
    use(products, first, count);
  }
}

void RunJoined(Call& call) {
  const auto& joined = static_cast<const JoinedProducts&>(*call.state);
  const auto& both = static_cast<const CodedWeight&>(*joined.both);
  const Tensor& a = call.in(0);
  const int64_t each = both.rows / 2;
  const Tensor y = call.Out(0, a.type, ProductShape(both, a, each));
  MultiplyParts(call, both, a, [&](const Tensor& products, int64_t first, int64_t count) {
    const Shape strides = {both.rows, 1};
    RunChain(call.stream, *joined.chain,
             {{products.data(), false, strides}, {products.data<char>() + static_cast<size_t>(each) * SizeOf(a.type), false, strides}},
             Rows(y, each, first, count));
  });
}

void RunParts(Call& call) {
  const auto& all = static_cast<const CodedWeight&>(*call.state);
  const Tensor& a = call.in(0);
  const Shape shape = ProductShape(all, a, all.rows);
  if (Count(shape) > INT32_MAX) {
    std::vector<Tensor> to;
    for (size_t i = 0; i < all.parts.size(); ++i) to.push_back(call.Out(i, a.type, ProductShape(all, a, all.parts[i])));
    MultiplyParts(call, all, a, [&](const Tensor& products, int64_t first, int64_t count) {
      int64_t column = 0;
      for (size_t i = 0; i < to.size(); ++i) {
        const Tensor own = Rows(to[i], all.parts[i], first, count);
        Move(call.stream, own.shape, products, column, {all.rows, 1}, own, 0, Strides(own.shape));
        column += all.parts[i];
      }
    });
    return;
  }
  const Tensor products = call.Scratch(a.type, shape);
  Multiply(call, all, a, products);
  int64_t first = 0;
  for (size_t i = 0; i < all.parts.size(); ++i) {
    int64_t begin = 0;
    const Strided part = *Strided(shape).Cut(shape.size() - 1, first, all.parts[i], 1, &begin);
    Rearrange(call, i, From(products, begin), part);
    first += all.parts[i];
  }
}

void RunGather(Call& call) {
  const auto& table = static_cast<const CodedWeight&>(*call.state);
  const Tensor& indices = call.in(0);
  Shape shape = indices.shape;
  shape.push_back(table.cols);
  const Tensor y = call.Out(0, static_cast<Type>(call.node.attributes.Int(schema::kAttrComputeType, 0)), shape);
  CheckKernel(cosetq_cuda_gather(table.weight, indices.data(), static_cast<int32_t>(SizeOf(indices.type)), indices.count(),
                                 y.data(), static_cast<int32_t>(y.type), call.stream.handle()));
}

// The constants have the types of the format, where the size of an element alone would read others for them.
std::string CheckWeight(const Graph& graph, const Node& node) {
  const auto type = [&](size_t i) { return graph.values[static_cast<size_t>(node.inputs[i])].type; };
  for (size_t i = schema::kInputCodes; i < node.inputs.size(); ++i) {
    if (node.inputs[i] < 0) continue;
    const auto want = i == schema::kInputBias ? node.attributes.Int(schema::kAttrComputeType, 0)
                                              : int64_t{WeightInputType(i, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8)};
    if (static_cast<int64_t>(type(i)) != want && !(i == schema::kInputCodes && type(i) == Type::kUint16))
      return std::string("input ") + schema::kInputNames[i] + " of another type than the format has";
  }
  return "";
}

std::string CheckLinear(const Graph& graph, const Node& node) {
  const Type type = graph.values[static_cast<size_t>(node.inputs[0])].type;
  return node.attributes.Int(schema::kAttrComputeType, 0) == static_cast<int>(type) ? CheckWeight(graph, node) : "a compute_type other than A's";
}

}  // namespace

int64_t WeightBytes() { return weight_bytes; }

const std::vector<int64_t>& PartsOf(const State& product) { return static_cast<const CodedWeight&>(product).parts; }

std::unique_ptr<State> JoinProducts(const State& first, const State& second) {
  const auto &a = static_cast<const CodedWeight&>(first), &b = static_cast<const CodedWeight&>(second);
  if (a.accuracy != b.accuracy) return nullptr;
  cosetq_cuda_weight* joined = nullptr;
  // Without memory for a copy of both they stay what they are; whatever else fails here fails in what follows, too.
  if (cosetq_cuda_weight_join(a.weight, b.weight, &joined) != 0 || joined == nullptr) return nullptr;
  return std::make_unique<CodedWeight>(a, b, joined);
}

std::unique_ptr<State> WithChain(std::shared_ptr<const State> both, std::shared_ptr<const State> chain) {
  return std::make_unique<JoinedProducts>(std::move(both), std::move(chain));
}

const Operator& JoinedOperator() {
  static const Operator* joined = new Operator{"", RunJoined, {kFloats}};
  return *joined;
}

const Operator& PartsOperator() {
  static const Operator* parts = new Operator{"", RunParts, {kFloats}};
  return *parts;
}

std::vector<Operator> LinearOperators() {
  Operator linear{schema::kOpName, RunLinear, {kFloats, kAny}};
  linear.check = CheckLinear;
  linear.prepare = PrepareLinear;
  Operator gather{schema::kGatherName, RunGather, {kIndices, kAny}};
  gather.check = CheckWeight;
  gather.prepare = PrepareGather;
  for (Operator* op : {&linear, &gather}) {
    op->domain = schema::kDomain;
    op->constant_inputs = ~1u;
    op->heavy = true;
  }
  return {linear, gather};
}

}  // namespace cosetq::ep
