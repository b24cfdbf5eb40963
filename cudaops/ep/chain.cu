#include "chain.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "launch.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

constexpr int kOperands = static_cast<int>(Chain::kMaxOperands), kDepth = Chain::kMaxDepth, kRunLength = 4;

// How the elements of an operand that follow each other in the result lie.
enum class Run : uint8_t { kStrided, kRepeated, kVector };

// Steps of a chain that models often have, as numbers: nobody asks for the next one of it. None has parameters.
constexpr int kFirstUnary = 100, kFirstBinary = 200;
constexpr int Operand(int i) { return i; }
constexpr int Does(Unary which) { return kFirstUnary + static_cast<int>(which); }
constexpr int Does(Binary which) { return kFirstBinary + static_cast<int>(which); }

template <int kInputs, int... kCodes>
struct KnownChain {
  static bool Is(const std::vector<Instruction>& steps) {
    constexpr int kOwn[] = {kCodes...};
    return std::equal(steps.begin(), steps.end(), std::begin(kOwn), std::end(kOwn), [](const Instruction& step, int code) {
      return (step.kind == Instruction::kLoad && step.which == code) || (step.kind == Instruction::kUnary && kFirstUnary + step.which == code) ||
             (step.kind == Instruction::kBinary && kFirstBinary + step.which == code);
    });
  }
};

// A sum; a product; gate * sigmoid(gate) * up of language models; turned queries, alone and scaled; x * (1 + erf(x * a)) * b.
using Sum = KnownChain<2, Operand(0), Operand(1), Does(Binary::kAdd)>;
using Product = KnownChain<2, Operand(0), Operand(1), Does(Binary::kMul)>;
using Gated = KnownChain<2, Operand(0), Operand(0), Does(Unary::kSigmoid), Does(Binary::kMul), Operand(1), Does(Binary::kMul)>;
using Rotary = KnownChain<4, Operand(0), Operand(1), Does(Binary::kMul), Operand(2), Operand(3), Does(Binary::kMul), Does(Binary::kAdd)>;
using ScaledRotary =
    KnownChain<5, Operand(0), Operand(1), Does(Binary::kMul), Operand(2), Operand(3), Does(Binary::kMul), Does(Binary::kAdd), Operand(4), Does(Binary::kMul)>;
using ErfGelu = KnownChain<4, Operand(0), Operand(0), Operand(1), Does(Binary::kMul), Does(Unary::kErf), Operand(2), Does(Binary::kAdd), Does(Binary::kMul),
                      Operand(3), Does(Binary::kMul)>;

template <typename T>
struct ChainKernel {
  // As they lie in memory.
  template <int kRun>
  struct alignas(sizeof(T) * kRun) Vector {
    T of[kRun];
  };

  int count, inputs, rank;
  Instruction steps[Chain::kMaxSteps];
  const void* operands[kOperands];
  bool truths[kOperands];  // operands of bool
  Run runs[kOperands];
  Layout<Chain::kMaxOperands> layout;
  T* y;

  // kRun elements from a place on, all within the last dimension.
  template <int kRun>
  COSETQ_HD void Evaluate(int place) const {
    float loaded[kOperands][kRun] = {}, stack[kDepth][kRun] = {};
    LoadAll<kRun, kOperands>(place, inputs, loaded);
    float(&top)[kRun] = stack[0];
    for (int s = 0; s < count; ++s) {
      const Instruction step = steps[s];  // a copy: of a reference the compiler makes an index into loaded, which is memory then
      if (step.kind == Instruction::kLoad) {
        Push<kRun>(stack);
COSETQ_UNROLL
        for (int i = 0; i < kOperands; ++i) Each<kRun>([&](int e) { top[e] = step.which == i ? loaded[i][e] : top[e]; });
      } else if (step.kind == Instruction::kUnary) {
        ApplyUnary<kRun>(step, top);
      } else if (step.kind == Instruction::kBinary) {
        ApplyBinary<kRun>(static_cast<Binary>(step.which), stack[1], top);
        Drop<kRun>(stack);
      } else if (step.kind == Instruction::kIsNaN) {
        Each<kRun>([&](int e) { top[e] = top[e] != top[e] ? 1.0f : 0.0f; });
      } else {
        Each<kRun>([&](int e) { top[e] = stack[2][e] != 0 ? stack[1][e] : top[e]; });
        Drop<kRun>(stack);
        Drop<kRun>(stack);
      }
    }
    StoreRun<kRun>(place, top);
  }

  // The same of steps that are known.
  template <int kRun, int kInputs, int... kCodes>
  COSETQ_HD void EvaluateKnown(KnownChain<kInputs, kCodes...>, int place) const {
    float loaded[kInputs][kRun], stack[kDepth][kRun];
    LoadAll<kRun, kInputs>(place, kInputs, loaded);
    Take<0, kCodes...>(loaded, stack);
    StoreRun<kRun>(place, stack[0]);
  }

  COSETQ_HD void operator()(int place) const { Evaluate<1>(place); }

 private:
  // All operands before the first step, so that none waits for another. They and the stack, of which the first is the top, stay in
  // registers: as places that a step picks at run time a thread would have them in memory.
  template <int kRun, int kMost>
  COSETQ_HD void LoadAll(int place, int there, float (&loaded)[kMost][kRun]) const {
    int index[kMaxRank] = {};
    int rest = place;
COSETQ_UNROLL
    for (int d = 0; d < kMaxRank; ++d) {
      if (d == rank) break;
      const int next = d + 1 == rank ? 0 : layout.by[d].Of(rest);
      index[d] = rest - next * layout.dims[d];
      rest = next;
    }
COSETQ_UNROLL
    for (int i = 0; i < kMost; ++i) {
      if (i == there) break;
      int offset = 0;
COSETQ_UNROLL
      for (int d = 0; d < kMaxRank; ++d) {
        if (d == rank) break;
        offset += index[d] * layout.strides[i][d];
      }
      Load<kRun>(i, offset, loaded[i]);
    }
  }

  // Takes a step, and those behind it, with so many numbers in the stack, of which the last is the top.
  template <int kHeld, int kCode, int... kRest, int kRun, int kInputs>
  COSETQ_HD static void Take(const float (&loaded)[kInputs][kRun], float (&stack)[kDepth][kRun]) {
    constexpr int kLeft = kCode < kFirstUnary ? kHeld + 1 : kCode < kFirstBinary ? kHeld : kHeld - 1;
    static_assert(kLeft > 0 && kLeft <= kDepth);
    float(&to)[kRun] = stack[kLeft - 1];
    if constexpr (kCode < kFirstUnary) {
      Each<kRun>([&](int e) { to[e] = loaded[kCode][e]; });
    } else if constexpr (kCode < kFirstBinary) {
      Each<kRun>([&](int e) { to[e] = Apply(UnaryFunction{static_cast<Unary>(kCode - kFirstUnary), 0, 0}, to[e]); });
    } else {
      Each<kRun>([&](int e) { to[e] = Apply(static_cast<Binary>(kCode - kFirstBinary), to[e], stack[kLeft][e]); });
    }
    if constexpr (sizeof...(kRest) > 0) Take<kLeft, kRest...>(loaded, stack);
  }

  template <int kRun, typename F>
  COSETQ_HD static void Each(const F& f) {
COSETQ_UNROLL
    for (int e = 0; e < kRun; ++e) f(e);
  }

  // Makes room for a top.
  template <int kRun>
  COSETQ_HD static void Push(float (&stack)[kDepth][kRun]) {
COSETQ_UNROLL
    for (int i = kDepth - 1; i > 0; --i) Each<kRun>([&](int e) { stack[i][e] = stack[i - 1][e]; });
  }

  // Takes out what is below the top.
  template <int kRun>
  COSETQ_HD static void Drop(float (&stack)[kDepth][kRun]) {
COSETQ_UNROLL
    for (int i = 1; i + 1 < kDepth; ++i) Each<kRun>([&](int e) { stack[i][e] = stack[i + 1][e]; });
  }

  // Applies one of the commonest functions as a constant, so that not every element looks for it. False if it is another.
  template <typename Kind, Kind... kinds, typename F>
  COSETQ_HD static bool Known(Kind kind, const F& apply) {
    return ((kind == kinds && (apply(kinds), true)) || ...);
  }

  template <int kRun>
  COSETQ_HD static void ApplyUnary(const Instruction& step, float (&x)[kRun]) {
    const auto kind = static_cast<Unary>(step.which);
    const auto apply = [&](Unary of) { Each<kRun>([&](int e) { x[e] = Apply(UnaryFunction{of, step.alpha, step.beta}, x[e]); }); };
    if (!Known<Unary, Unary::kNeg, Unary::kSigmoid, Unary::kSqrt, Unary::kReciprocal, Unary::kGelu, Unary::kErf, Unary::kTanh, Unary::kExp>(kind, apply)) apply(kind);
  }

  // Of a and b, to b.
  template <int kRun>
  COSETQ_HD static void ApplyBinary(Binary kind, const float (&a)[kRun], float (&b)[kRun]) {
    const auto apply = [&](Binary of) { Each<kRun>([&](int e) { b[e] = Apply(of, a[e], b[e]); }); };
    if (!Known<Binary, Binary::kAdd, Binary::kMul, Binary::kSub, Binary::kDiv>(kind, apply)) apply(kind);
  }

  template <int kRun>
  COSETQ_HD void Load(int which, int offset, float (&to)[kRun]) const {
    const int stride = layout.strides[which][0];
    if (truths[which]) {
      const bool* x = static_cast<const bool*>(operands[which]) + offset;
      Each<kRun>([&](int e) { to[e] = x[e * stride] ? 1.0f : 0.0f; });
      return;
    }
    const T* x = static_cast<const T*>(operands[which]) + offset;
    if (kRun > 1 && runs[which] == Run::kRepeated) {
      const float one = ToFloat(*x);
      Each<kRun>([&](int e) { to[e] = one; });
    } else if (kRun > 1 && runs[which] == Run::kVector) {
      const Vector<kRun> vector = *reinterpret_cast<const Vector<kRun>*>(x);
      Each<kRun>([&](int e) { to[e] = ToFloat(vector.of[e]); });
    } else {
      Each<kRun>([&](int e) { to[e] = ToFloat(x[e * stride]); });
    }
  }

  template <int kRun>
  COSETQ_HD void StoreRun(int place, const float (&from)[kRun]) const {
    Vector<kRun> vector;
    Each<kRun>([&](int e) { vector.of[e] = FromFloat<T>(from[e]); });
    *reinterpret_cast<Vector<kRun>*>(y + place) = vector;
  }
};

#ifdef __CUDACC__
// The steps are read where the parameters are, which a copy for each thread would not be.
template <typename T, int kRun>
__global__ void __launch_bounds__(kThreads) EvaluateChain(const __grid_constant__ ChainKernel<T> f, int count) {
  Begin();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) f.template Evaluate<kRun>(static_cast<int>(i) * kRun);
}
template <typename T, int kRun, typename Steps>
__global__ void __launch_bounds__(kThreads) EvaluateKnown(const __grid_constant__ ChainKernel<T> f, int count) {
  Begin();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) f.template EvaluateKnown<kRun>(Steps(), static_cast<int>(i) * kRun);
}
#endif

class ChainState : public State {
 public:
  explicit ChainState(std::vector<Instruction> chain_steps) : steps(std::move(chain_steps)) {}
  const std::vector<Instruction> steps;
};

// Whether runs of so many lie within the last dimension, and can be stored at once; how they lie in operands.
template <typename T>
bool Fit(ChainKernel<T>& f, int run) {
  const auto aligned = [&](const void* p) { return reinterpret_cast<uintptr_t>(p) % (sizeof(T) * static_cast<size_t>(run)) == 0; };
  for (int i = 0; i < f.inputs; ++i) {
    const int* own = f.layout.strides[i];
    const bool vector = own[0] == 1 && aligned(f.operands[i]) && std::all_of(own + 1, own + f.rank, [&](int stride) { return stride % run == 0; });
    f.runs[i] = own[0] == 0 ? Run::kRepeated : vector ? Run::kVector : Run::kStrided;
  }
  return f.layout.dims[0] % run == 0 && aligned(f.y);
}

// Launches one of the known chains, if the steps are one's.
template <typename T, typename Steps, typename... Others>
bool LaunchKnown(Stream& stream, const std::vector<Instruction>& steps, ChainKernel<T>& f, int count) {
  if (!Steps::Is(steps)) {
    if constexpr (sizeof...(Others) > 0) return LaunchKnown<T, Others...>(stream, steps, f, count);
    return false;
  }
#ifdef __CUDACC__
  if (!stream.on_host()) {
    constexpr int kRun = 16 / sizeof(T);
    const auto launch = [&](auto kernel, int runs) { Launch(stream, kernel, (runs - 1) / kThreads + 1, kThreads, 0, f, runs); };
    if (Fit(f, kRun)) {
      launch(EvaluateKnown<T, kRun, Steps>, count / kRun);
    } else {
      Fit(f, kRunLength) ? launch(EvaluateKnown<T, kRunLength, Steps>, count / kRunLength) : launch(EvaluateKnown<T, 1, Steps>, count);
    }
    return true;
  }
#endif
  for (int i = 0; i < count; ++i) f.template EvaluateKnown<1>(Steps(), i);
  return true;
}

template <typename T>
void LaunchChain(Stream& stream, const std::vector<Instruction>& steps, const std::vector<ChainOperand>& operands, const Tensor& y) {
  ChainKernel<T> f = {};
  f.count = static_cast<int>(steps.size());
  std::copy(steps.begin(), steps.end(), f.steps);
  f.inputs = static_cast<int>(operands.size());
  std::array<Shape, Chain::kMaxOperands> strides;
  strides.fill(Shape(y.shape.size(), 0));
  for (size_t i = 0; i < operands.size(); ++i) {
    strides[i] = operands[i].strides;
    f.operands[i] = operands[i].data;
    f.truths[i] = operands[i].truth;
  }
  f.layout = MakeLayout<Chain::kMaxOperands>(y.shape, strides);
  f.rank = f.layout.rank;
  f.y = y.data<T>();
  const int count = CheckedCount(y.count());
  if (LaunchKnown<T, Sum, Product, Gated, Rotary, ScaledRotary, ErfGelu>(stream, steps, f, count)) return;
#ifdef __CUDACC__
  if (!stream.on_host()) {
    const auto launch = [&](auto kernel, int runs) { Launch(stream, kernel, (runs - 1) / kThreads + 1, kThreads, 0, f, runs); };
    Fit(f, kRunLength) ? launch(EvaluateChain<T, kRunLength>, count / kRunLength) : launch(EvaluateChain<T, 1>, count);
    return;
  }
#endif
  ForEach(stream, count, f);
}

void Run(Call& call) {
  std::vector<Shape> shapes;
  Type type = Type::kNone;
  for (size_t i = 0; i < call.inputs(); ++i) {
    shapes.push_back(call.in(i).shape);
    if (call.in(i).type != Type::kBool) type = call.in(i).type;
  }
  const Tensor y = call.Out(0, type, BroadcastShape(shapes));
  std::vector<ChainOperand> operands;
  for (size_t i = 0; i < call.inputs(); ++i) {
    Shape strides = BroadcastStrides(call.in(i).shape, y.shape);
    if (call.lies(i) != nullptr) {
      // Numbers that follow each other in the result are to do so in memory, or to be the same.
      const std::optional<Shape> own = call.lies(i)->Simple();
      if (own && (own->empty() || own->back() == 0 || own->back() == 1)) {
        for (size_t d = own->size(); d-- > 0;) {
          int64_t& stride = strides[strides.size() - own->size() + d];
          if (stride != 0) stride = (*own)[d];
        }
      } else {
        call.Whole(i);
      }
    }
    operands.push_back({call.in(i).data(), call.in(i).type == Type::kBool, std::move(strides)});
  }
  RunChain(call.stream, *call.state, operands, y);
}

}  // namespace

void RunChain(Stream& stream, const State& chain, const std::vector<ChainOperand>& operands, const Tensor& y) {
  const auto& steps = static_cast<const ChainState&>(chain).steps;
  if (y.count() == 0) return;
  if (y.type == Type::kHalf) return LaunchChain<Half>(stream, steps, operands, y);
  LaunchChain<float>(stream, steps, operands, y);
}

bool Chain::Fits() const {
  int depth = 0, most = 0;
  for (const Instruction& step : steps) most = std::max(most, depth += 1 - step.takes());
  return steps.size() <= kMaxSteps && operands.size() <= kMaxOperands && most <= kMaxDepth;
}

uint8_t Chain::Operand(int value) {
  const auto at = std::find(operands.begin(), operands.end(), value) - operands.begin();
  if (at == static_cast<std::ptrdiff_t>(operands.size())) operands.push_back(value);
  return static_cast<uint8_t>(at);
}

bool Chain::Push(const Chain& other) {
  for (Instruction step : other.steps) {
    if (step.kind == Instruction::kLoad) step.which = Operand(other.operands[step.which]);
    steps.push_back(step);
  }
  return Fits();
}

bool Chain::Push(int operand) {
  Instruction load;
  load.which = Operand(operand);
  steps.push_back(load);
  return Fits();
}

bool Chain::Take(const Instruction& step) {
  steps.push_back(step);
  return Fits();
}

const Operator& ChainOperator() {
  static const Operator* chain = [] {
    auto* op = new Operator{"", Run, {kFloats | kBool}};
    op->strided_inputs = ~0u;
    return op;
  }();
  return *chain;
}

std::unique_ptr<State> ChainStateOf(std::vector<Instruction> steps) { return std::make_unique<ChainState>(std::move(steps)); }

}  // namespace cosetq::ep
