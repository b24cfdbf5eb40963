#include "operator.h"

#include <map>
#include <stdexcept>

#include "branches.h"

namespace cosetq::ep {
namespace {

// Of ONNX's operators: those here mean the same since they began, or their checks say what they do not do.
constexpr int kNewestVersion = 28;

const char* TypeName(int number) {
  static const char* const names[] = {"nothing", "float32", "uint8",   "int8",    "uint16",
                                      "int16",   "int32",   "int64",   "string",  "bool",
                                      "float16", "float64", "uint32",  "uint64",  "complex64",
                                      "complex128", "bfloat16"};
  return number >= 0 && number < static_cast<int>(std::size(names)) ? names[number] : "a rare type";
}

using Table = std::map<std::pair<std::string, std::string>, Operator>;

const Table& Operators() {
  static const Table* const table = [] {
    auto* all = new Table;
    for (auto list : {ElementwiseOperators, MovementOperators, PadOperators, IndexOperators, ScatterOperators, ChoiceOperators, ShapeOperators,
                      ReductionOperators, NormalizationOperators, GroupNormOperators, RotaryOperators, MatrixOperators,
                      ConvolutionOperators, PoolingOperators, ResizeOperators, AttentionOperators, MultiHeadOperators, LinearOperators, ObserveOperators}) {
      for (Operator& op : list()) {
        auto key = std::make_pair(std::string(op.domain), std::string(op.name));
        all->emplace(std::move(key), std::move(op));
      }
    }
    return all;
  }();
  return *table;
}

}  // namespace

void ThrowType(const Call& call, Type type) {
  throw std::invalid_argument(call.node.op + " (" + call.node.name + ") of " +
                              TypeName(static_cast<int>(type)));
}

const Operator* FindOperator(const std::string& domain, const std::string& name) {
  const auto found = Operators().find({domain, name});
  return found == Operators().end() ? nullptr : &found->second;
}

std::string Refusal(const Graph& graph, const Node& node) {
  if (IsBranching(node)) return RefusalOfBodies(graph, node);
  const Operator* op = FindOperator(node.domain, node.op);
  if (op == nullptr) return "no GPU kernel for this operator";
  if (node.domain.empty() && node.version > kNewestVersion) return "a later version of this operator than the GPU kernel's";
  if (op->attributes != nullptr) {
    const std::string known = std::string(" ") + op->attributes + " ";
    for (const std::string& name : node.attributes.Names()) {
      if (known.find(" " + name + " ") == std::string::npos) return "the attribute " + name + ", which the GPU kernel does not know";
    }
  }
  if (node.attributes.has_other()) return "an attribute of a kind that is not supported";
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (node.inputs[i] < 0) continue;
    if (i >= op->inputs) return "more inputs than the GPU kernel reads";
    const Value& value = graph.values[static_cast<size_t>(node.inputs[i])];
    const TypeSet types = op->types[std::min(i, op->types.size() - 1)];
    if ((types & Set(value.type)) == 0 || value.type == Type::kNone) {
      return std::string("no GPU kernel for an input of type ") + TypeName(value.type_number);
    }
    if (value.rank > kMaxRank) return "an input of more than 8 dimensions";
    if ((op->constant_inputs >> i & 1) != 0 && value.constant == nullptr) {
      return "input " + std::to_string(i) + " is not a constant";
    }
  }
  size_t outputs = 0;
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] < 0) continue;
    outputs = i + 1;
    if (graph.values[static_cast<size_t>(node.outputs[i])].type == Type::kNone)
      return "an output of a type that is not supported";
  }
  if (outputs > op->outputs) return "more outputs than the GPU kernel makes";
  return op->check == nullptr ? "" : op->check(graph, node);
}

const Tensor& Call::Number(size_t i) const {
  if (host(i).count() != 1) throw std::invalid_argument(node.op + ": input " + std::to_string(i) + " is " + Text(host(i).shape) + ", want a single number");
  return host(i);
}

std::vector<int64_t> Call::Integers(size_t i) const {
  const Tensor& t = host(i);
  std::vector<int64_t> out(static_cast<size_t>(t.count()));
  for (size_t k = 0; k < out.size(); ++k) {
    switch (t.type) {
      case Type::kInt64:
        out[k] = t.data<int64_t>()[k];
        break;
      case Type::kInt32:
        out[k] = t.data<int32_t>()[k];
        break;
      default:
        ThrowType(*this, t.type);
    }
  }
  return out;
}

std::vector<int64_t> Call::Axes(size_t input, const char* attribute) const {
  return has(input) ? Integers(input) : node.attributes.Ints(attribute);
}

Tensor Call::Scratch(Type type, const Shape& shape) const {
  Tensor t{type, shape, nullptr};
  t.buffer = stream.on_host() ? Buffer::OnHost(t.bytes())
                              : Buffer::OnDevice(stream.arena(), t.bytes());
  return t;
}

}  // namespace cosetq::ep
