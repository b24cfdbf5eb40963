// Operators that compute every element of the output from one element of each input.

#include <algorithm>
#include <cfloat>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "launch.h"
#include "math.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

template <typename T>
struct UnaryKernel {
  UnaryFunction f;
  const T* x;
  T* y;
  COSETQ_HD void operator()(int i) const { y[i] = Narrow<T>(Apply(f, Wide(x[i]))); }
};

template <typename T>
void LaunchUnary(Call& call, const UnaryFunction& f) {
  const Tensor y = call.Out(0, call.in(0).type, call.in(0).shape);
  ForEach(call.stream, y.count(),
          UnaryKernel<T>{f, call.in(0).data<T>(), y.data<T>()});
}

UnaryFunction FunctionOf(const Node& node, Unary kind) {
  UnaryFunction f{kind, 0, 0};
  switch (kind) {
    case Unary::kElu:
      f.alpha = node.attributes.Float("alpha", 1);
      break;
    case Unary::kHardSigmoid:
      f.alpha = node.attributes.Float("alpha", 0.2f);
      f.beta = node.attributes.Float("beta", 0.5f);
      break;
    case Unary::kLeakyRelu:
      f.alpha = node.attributes.Float("alpha", 0.01f);
      break;
    case Unary::kQuickGelu:
      f.alpha = node.attributes.Float("alpha", 1.702f);
      break;
    case Unary::kGelu:
      if (node.attributes.String("approximate", "none") == "tanh") f.kind = Unary::kFastGelu;
      break;
    default:
      break;
  }
  return f;
}

template <Unary kind>
void RunUnary(Call& call) {
  COSETQ_EP_NUMBERS(call, call.in(0).type, LaunchUnary, call, FunctionOf(call.node, kind))
}

template <Unary kind>
bool StepOfUnary(const Node& node, Instruction* step) {
  const UnaryFunction f = FunctionOf(node, kind);
  *step = {Instruction::kUnary, static_cast<uint8_t>(f.kind), f.alpha, f.beta};
  return true;
}

// A limit of Clip: an attribute until version 10, then a scalar input.
float Limit(const Call& call, size_t input, const char* attribute, float otherwise) {
  if (!call.has(input)) return call.node.attributes.Float(attribute, otherwise);
  const Tensor& t = call.Number(input);
  return t.type == Type::kHalf ? ToFloat(*t.data<Half>()) : *t.data<float>();
}

// A number beyond the limits is the one of them, as of floats; where both exclude each other the upper one.
template <typename T>
struct ClipKernel {
  T low, high;
  const T* x;
  T* y;
  COSETQ_HD void operator()(int i) const {
    const T above = x[i] < low ? low : x[i];
    y[i] = above > high ? high : above;
  }
};

template <typename T>
void LaunchClip(Call& call) {
  const Tensor y = call.Out(0, call.in(0).type, call.in(0).shape);
  const auto limit = [&](size_t input, T otherwise) { return call.has(input) ? *call.Number(input).data<T>() : otherwise; };
  ForEach(call.stream, y.count(),
          ClipKernel<T>{limit(1, std::numeric_limits<T>::lowest()), limit(2, std::numeric_limits<T>::max()), call.in(0).data<T>(), y.data<T>()});
}

void RunClip(Call& call) {
  if (call.in(0).type == Type::kInt32) return LaunchClip<int32_t>(call);
  if (call.in(0).type == Type::kInt64) return LaunchClip<int64_t>(call);
  // Where there is no limit it is the last number of the type, which infinities become.
  const float most = call.in(0).type == Type::kHalf ? 65504.0f : FLT_MAX;
  const UnaryFunction f{Unary::kClip, Limit(call, 1, "min", -most), Limit(call, 2, "max", most)};
  COSETQ_EP_FLOATS(call, call.in(0).type, LaunchUnary, call, f)
}

template <typename T>
struct BinaryKernel {
  Binary kind;
  Layout<2> layout;
  const T* a;
  const T* b;
  T* y;
  COSETQ_HD void operator()(int i) const {
    int at[2];
    layout.At(i, at);
    y[i] = Narrow<T>(Apply(kind, Wide(a[at[0]]), Wide(b[at[1]])));
  }
};

Layout<2> LayoutOf(const Shape& a, const Shape& b, const Shape& y) {
  return MakeLayout<2>(y, {BroadcastStrides(a, y), BroadcastStrides(b, y)});
}

template <typename T>
void LaunchBinary(Call& call, Binary kind, const Tensor& a, const Tensor& b, const Tensor& y) {
  ForEach(call.stream, y.count(),
          BinaryKernel<T>{kind, LayoutOf(a.shape, b.shape, y.shape), a.data<T>(), b.data<T>(),
                          y.data<T>()});
}

void Compute(Call& call, Binary kind, const Tensor& a, const Tensor& b, const Tensor& y) {
  COSETQ_EP_NUMBERS(call, y.type, LaunchBinary, call, kind, a, b, y)
}

template <Binary kind>
void RunBinary(Call& call) {
  const Tensor &a = call.in(0), &b = call.in(1);
  Compute(call, kind, a, b, call.Out(0, a.type, BroadcastShape({a.shape, b.shape})));
}

template <Binary kind>
bool StepOfBinary(const Node& node, Instruction* step) {
  *step = {Instruction::kBinary, static_cast<uint8_t>(kind)};
  return node.inputs.size() == 2;
}

// With a bias or without.
void RunFastGelu(Call& call) { call.has(1) ? RunBinary<Binary::kBiasFastGelu>(call) : RunUnary<Unary::kFastGelu>(call); }

bool StepOfFastGelu(const Node& node, Instruction* step) {
  return node.inputs.size() > 1 ? StepOfBinary<Binary::kBiasFastGelu>(node, step) : StepOfUnary<Unary::kFastGelu>(node, step);
}

// One kernel for each type that is read; which one is written is the same for all threads.
template <typename From>
struct CastKernel {
  const From* x;
  Type to;
  void* y;
  COSETQ_HD void operator()(int i) const {
    const auto value = Wide(x[i]);
    switch (to) {
      case Type::kFloat: return Store<float>(i, value);
      case Type::kHalf: return Store<Half>(i, value);
      case Type::kInt32: return Store<int32_t>(i, value);
      case Type::kInt64: return Store<int64_t>(i, value);
      case Type::kUint8: return Store<uint8_t>(i, value);
      case Type::kInt8: return Store<int8_t>(i, value);
      case Type::kBool: return Store<bool>(i, value);
      default: return;
    }
  }
  template <typename To, typename Wide>
  COSETQ_HD void Store(int i, Wide value) const {
    static_cast<To*>(y)[i] = Narrow<To>(value);
  }
};

template <typename From>
void LaunchCast(Call& call, const Tensor& x, const Tensor& y) {
  ForEach(call.stream, y.count(), CastKernel<From>{x.data<From>(), y.type, y.data()});
}

void Convert(Call& call, const Tensor& x, const Tensor& y) {
  switch (x.type) {
    case Type::kUint8: return LaunchCast<uint8_t>(call, x, y);
    case Type::kInt8: return LaunchCast<int8_t>(call, x, y);
    case Type::kBool: return LaunchCast<bool>(call, x, y);
    default: COSETQ_EP_NUMBERS(call, x.type, LaunchCast, call, x, y)
  }
}

// The exponent may be of another type than the base: then both are numbers of the widest one.
void RunPow(Call& call) {
  const Tensor &a = call.in(0), &b = call.in(1);
  const Tensor y = call.Out(0, a.type, BroadcastShape({a.shape, b.shape}));
  if (b.type == a.type) return Compute(call, Binary::kPow, a, b, y);
  const Type wide = (kFloats & Set(a.type)) != 0 ? Type::kFloat : Type::kInt64;
  const auto widened = [&](const Tensor& x) {
    if (x.type == wide) return x;
    const Tensor copy = call.Scratch(wide, x.shape);
    Convert(call, x, copy);
    return copy;
  };
  const Tensor power = y.type == wide ? y : call.Scratch(wide, y.shape);
  Compute(call, Binary::kPow, widened(a), widened(b), power);
  if (y.type != wide) Convert(call, power, y);
}

// Any number of inputs, two at a time.
template <Binary kind>
void RunVariadic(Call& call) {
  Tensor sum = call.in(0);
  if (call.inputs() == 1) return call.View(0, sum, sum.shape);
  for (size_t i = 1; i < call.inputs(); ++i) {
    const Shape shape = BroadcastShape({sum.shape, call.in(i).shape});
    const Tensor next = i + 1 == call.inputs() ? call.Out(0, sum.type, shape) : call.Scratch(sum.type, shape);
    Compute(call, kind, sum, call.in(i), next);
    sum = next;
  }
}

template <typename T>
struct RelationKernel {
  Relation relation;
  Layout<2> layout;
  const T* a;
  const T* b;
  bool* y;
  COSETQ_HD void operator()(int i) const {
    int at[2];
    layout.At(i, at);
    y[i] = Holds(relation, Wide(a[at[0]]), Wide(b[at[1]]));
  }
};

template <typename T>
void LaunchRelation(Call& call, Relation relation) {
  const Tensor &a = call.in(0), &b = call.in(1);
  const Tensor y = call.Out(0, Type::kBool, BroadcastShape({a.shape, b.shape}));
  ForEach(call.stream, y.count(),
          RelationKernel<T>{relation, LayoutOf(a.shape, b.shape, y.shape), a.data<T>(), b.data<T>(),
                            y.data<bool>()});
}

template <Relation relation>
void RunRelation(Call& call) {
  if (call.in(0).type == Type::kBool) return LaunchRelation<bool>(call, relation);
  COSETQ_EP_NUMBERS(call, call.in(0).type, LaunchRelation, call, relation)
}

enum class Logic { kAnd, kOr, kXor };

struct LogicKernel {
  Logic kind;
  Layout<2> layout;
  const bool* a;
  const bool* b;
  bool* y;
  COSETQ_HD void operator()(int i) const {
    int at[2];
    layout.At(i, at);
    const bool p = a[at[0]], q = b[at[1]];
    y[i] = kind == Logic::kAnd ? p && q : kind == Logic::kOr ? p || q : p != q;
  }
};

template <Logic kind>
void RunLogic(Call& call) {
  const Tensor &a = call.in(0), &b = call.in(1);
  const Tensor y = call.Out(0, Type::kBool, BroadcastShape({a.shape, b.shape}));
  ForEach(call.stream, y.count(),
          LogicKernel{kind, LayoutOf(a.shape, b.shape, y.shape), a.data<bool>(), b.data<bool>(),
                      y.data<bool>()});
}

struct NotKernel {
  const bool* x;
  bool* y;
  COSETQ_HD void operator()(int i) const { y[i] = !x[i]; }
};

void RunNot(Call& call) {
  const Tensor y = call.Out(0, Type::kBool, call.in(0).shape);
  ForEach(call.stream, y.count(), NotKernel{call.in(0).data<bool>(), y.data<bool>()});
}

template <typename T>
struct IsInfKernel {
  const T* x;
  bool* y;
  bool above, below;
  COSETQ_HD void operator()(int i) const {
    const float value = Wide(x[i]);
    y[i] = (above && value == INFINITY) || (below && value == -INFINITY);
  }
};

template <typename T>
void LaunchIsInf(Call& call) {
  const Tensor y = call.Out(0, Type::kBool, call.in(0).shape);
  const Attributes& attributes = call.node.attributes;
  ForEach(call.stream, y.count(),
          IsInfKernel<T>{call.in(0).data<T>(), y.data<bool>(), attributes.Int("detect_positive", 1) != 0, attributes.Int("detect_negative", 1) != 0});
}

void RunIsInf(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, LaunchIsInf, call) }

template <typename T>
struct IsNaNKernel {
  const T* x;
  bool* y;
  COSETQ_HD void operator()(int i) const {
    const float value = Wide(x[i]);
    y[i] = value != value;
  }
};

template <typename T>
void LaunchIsNaN(Call& call) {
  const Tensor y = call.Out(0, Type::kBool, call.in(0).shape);
  ForEach(call.stream, y.count(), IsNaNKernel<T>{call.in(0).data<T>(), y.data<bool>()});
}

bool StepOfIsNaN(const Node&, Instruction* step) {
  *step = {Instruction::kIsNaN};
  return true;
}

bool StepOfWhere(const Node&, Instruction* step) {
  *step = {Instruction::kSelect};
  return true;
}

void RunIsNaN(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, LaunchIsNaN, call) }

template <typename T>
struct WhereKernel {
  Layout<3> layout;
  const bool* condition;
  const T* a;
  const T* b;
  T* y;
  COSETQ_HD void operator()(int i) const {
    int at[3];
    layout.At(i, at);
    y[i] = condition[at[0]] ? a[at[1]] : b[at[2]];
  }
};

template <typename T>
void LaunchWhere(Call& call) {
  const Tensor &c = call.in(0), &a = call.in(1), &b = call.in(2);
  const Tensor y = call.Out(0, a.type, BroadcastShape({c.shape, a.shape, b.shape}));
  const auto layout = MakeLayout<3>(y.shape, {BroadcastStrides(c.shape, y.shape),
                                              BroadcastStrides(a.shape, y.shape),
                                              BroadcastStrides(b.shape, y.shape)});
  ForEach(call.stream, y.count(),
          WhereKernel<T>{layout, c.data<bool>(), a.data<T>(), b.data<T>(), y.data<T>()});
}

void RunWhere(Call& call) { COSETQ_EP_SIZES(call, call.in(1).type, LaunchWhere, call) }

void RunCast(Call& call) {
  const auto to = static_cast<Type>(call.node.attributes.Int("to", 0));
  const Tensor& x = call.in(0);
  if (to == x.type) return call.View(0, x, x.shape);
  Convert(call, x, call.Out(0, to, x.shape));
}

std::string CheckCast(const Graph&, const Node& node) {
  const int64_t to = node.attributes.Int("to", 0);
  const TypeSet known = kAny & ~Set(Type::kUint16);
  return to > 0 && to < 32 && (known >> to & 1) != 0 ? "" : "a cast to a type that is not supported";
}

std::string CheckMod(const Graph& graph, const Node& node) {
  const bool floats = (kFloats & Set(graph.values[static_cast<size_t>(node.inputs[0])].type)) != 0;
  return floats == (node.attributes.Int("fmod", 0) != 0) ? "" : "fmod of integers";
}

// Before version 7 shapes were aligned by an attribute, if at all.
std::string CheckBroadcast(const Graph&, const Node& node) {
  return node.attributes.Has("axis") || node.attributes.Has("broadcast") ? "broadcasting of opset 6" : "";
}

std::string CheckPow(const Graph& graph, const Node& node) {
  const auto floats = [&](size_t i) { return (kFloats & Set(graph.values[static_cast<size_t>(node.inputs[i])].type)) != 0; };
  return floats(1) && !floats(0) ? "an integer to the power of a float" : CheckBroadcast(graph, node);
}

}  // namespace

std::vector<Operator> ElementwiseOperators() {
  std::vector<Operator> all = {{"Clip", RunClip, {kNumbers}, 6}, {"Not", RunNot, {kBool}}};
  const auto add = [&](Operator op, const char* domain = "", decltype(Operator::check) check = nullptr) {
    op.domain = domain;
    op.check = check;
    all.push_back(op);
  };
  const auto unary = [&](const char* name, auto kind, TypeSet types, const char* domain = "", const char* attributes = nullptr) {
    Operator op{name, RunUnary<decltype(kind)::value>, {types}};
    op.inputs = 1;
    op.attributes = attributes;
    op.step = StepOfUnary<decltype(kind)::value>;
    add(op, domain);
  };
  const auto binary = [&](const char* name, auto kind, auto run, TypeSet types, decltype(Operator::check) check, const char* domain = "") {
    Operator op{name, run, {types}};
    op.step = StepOfBinary<decltype(kind)::value>;
    add(op, domain, check);
  };
#define COSETQ_EP_UNARY(kind) std::integral_constant<Unary, Unary::kind>()
#define COSETQ_EP_BINARY(kind) std::integral_constant<Binary, Binary::kind>()
  unary("Abs", COSETQ_EP_UNARY(kAbs), kNumbers);
  unary("Neg", COSETQ_EP_UNARY(kNeg), kNumbers);
  unary("Relu", COSETQ_EP_UNARY(kRelu), kNumbers);
  unary("Sign", COSETQ_EP_UNARY(kSign), kNumbers);
  unary("Ceil", COSETQ_EP_UNARY(kCeil), kFloats);
  unary("Cos", COSETQ_EP_UNARY(kCos), kFloats);
  unary("Elu", COSETQ_EP_UNARY(kElu), kFloats);
  unary("Erf", COSETQ_EP_UNARY(kErf), kFloats);
  unary("Exp", COSETQ_EP_UNARY(kExp), kFloats);
  unary("Floor", COSETQ_EP_UNARY(kFloor), kFloats);
  unary("Gelu", COSETQ_EP_UNARY(kGelu), kFloats);
  unary("HardSigmoid", COSETQ_EP_UNARY(kHardSigmoid), kFloats);
  unary("HardSwish", COSETQ_EP_UNARY(kHardSwish), kFloats);
  unary("LeakyRelu", COSETQ_EP_UNARY(kLeakyRelu), kFloats);
  unary("Log", COSETQ_EP_UNARY(kLog), kFloats);
  unary("Reciprocal", COSETQ_EP_UNARY(kReciprocal), kFloats);
  unary("Round", COSETQ_EP_UNARY(kRound), kFloats);
  unary("Sigmoid", COSETQ_EP_UNARY(kSigmoid), kFloats);
  unary("Sin", COSETQ_EP_UNARY(kSin), kFloats);
  unary("Softplus", COSETQ_EP_UNARY(kSoftplus), kFloats);
  unary("Sqrt", COSETQ_EP_UNARY(kSqrt), kFloats);
  unary("Tanh", COSETQ_EP_UNARY(kTanh), kFloats);
  unary("Gelu", COSETQ_EP_UNARY(kGelu), kFloats, "com.microsoft", "");
  unary("QuickGelu", COSETQ_EP_UNARY(kQuickGelu), kFloats, "com.microsoft", "alpha");
  binary("Add", COSETQ_EP_BINARY(kAdd), RunBinary<Binary::kAdd>, kNumbers, CheckBroadcast);
  binary("Sub", COSETQ_EP_BINARY(kSub), RunBinary<Binary::kSub>, kNumbers, CheckBroadcast);
  binary("Mul", COSETQ_EP_BINARY(kMul), RunBinary<Binary::kMul>, kNumbers, CheckBroadcast);
  binary("Div", COSETQ_EP_BINARY(kDiv), RunBinary<Binary::kDiv>, kNumbers, CheckBroadcast);
  binary("Pow", COSETQ_EP_BINARY(kPow), RunPow, kNumbers, CheckPow);
  binary("Mod", COSETQ_EP_BINARY(kMod), RunBinary<Binary::kMod>, kNumbers, CheckMod);
  binary("PRelu", COSETQ_EP_BINARY(kPRelu), RunBinary<Binary::kPRelu>, kFloats, nullptr);
  binary("Max", COSETQ_EP_BINARY(kMax), RunVariadic<Binary::kMax>, kNumbers, nullptr);
  binary("Min", COSETQ_EP_BINARY(kMin), RunVariadic<Binary::kMin>, kNumbers, nullptr);
  binary("Sum", COSETQ_EP_BINARY(kAdd), RunVariadic<Binary::kAdd>, kFloats, nullptr);
  binary("BiasGelu", COSETQ_EP_BINARY(kBiasGelu), RunBinary<Binary::kBiasGelu>, kFloats, nullptr, "com.microsoft");
  all.back().attributes = "";
#undef COSETQ_EP_UNARY
#undef COSETQ_EP_BINARY
  Operator fast_gelu{"FastGelu", RunFastGelu, {kFloats}};
  fast_gelu.step = StepOfFastGelu;
  fast_gelu.attributes = "";
  add(fast_gelu, "com.microsoft");
  Operator where{"Where", RunWhere, {kBool, kAny}}, is_nan{"IsNaN", RunIsNaN, {kFloats}};
  where.step = StepOfWhere;
  is_nan.step = StepOfIsNaN;
  add(where);
  add(is_nan);
  add({"IsInf", RunIsInf, {kFloats}});
  add({"Cast", RunCast, {kAny & ~Set(Type::kUint16)}}, "", CheckCast);
  add({"Equal", RunRelation<Relation::kEqual>, {kNumbers | kBool}}, "", CheckBroadcast);
  add({"Less", RunRelation<Relation::kLess>, {kNumbers}}, "", CheckBroadcast);
  add({"Greater", RunRelation<Relation::kGreater>, {kNumbers}}, "", CheckBroadcast);
  add({"LessOrEqual", RunRelation<Relation::kLessOrEqual>, {kNumbers}}, "", CheckBroadcast);
  add({"GreaterOrEqual", RunRelation<Relation::kGreaterOrEqual>, {kNumbers}}, "", CheckBroadcast);
  add({"And", RunLogic<Logic::kAnd>, {kBool}}, "", CheckBroadcast);
  add({"Or", RunLogic<Logic::kOr>, {kBool}}, "", CheckBroadcast);
  add({"Xor", RunLogic<Logic::kXor>, {kBool}}, "", CheckBroadcast);
  return all;
}

}  // namespace cosetq::ep
