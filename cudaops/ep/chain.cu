#include "chain.h"

#include <algorithm>

#include "launch.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

constexpr int kOperands = static_cast<int>(Chain::kMaxOperands), kDepth = Chain::kMaxDepth;

// How the elements of an operand that follow each other in the result lie.
enum class Run : uint8_t { kStrided, kRepeated, kVector };

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
    int index[kMaxRank] = {};
    int rest = place;
COSETQ_UNROLL
    for (int d = 0; d < kMaxRank; ++d) {
      if (d == rank) break;
      const int next = d + 1 == rank ? 0 : layout.by[d].Of(rest);
      index[d] = rest - next * layout.dims[d];
      rest = next;
    }
    // All operands before the first step, so that none waits for another. They and the stack, of which the first is the top, stay in
    // registers: as places that a step picks at run time a thread would have them in memory.
    float loaded[kOperands][kRun] = {}, stack[kDepth][kRun] = {};
COSETQ_UNROLL
    for (int i = 0; i < kOperands; ++i) {
      if (i == inputs) break;
      int offset = 0;
COSETQ_UNROLL
      for (int d = 0; d < kMaxRank; ++d) {
        if (d == rank) break;
        offset += index[d] * layout.strides[i][d];
      }
      Load<kRun>(i, offset, loaded[i]);
    }
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

  COSETQ_HD void operator()(int place) const { Evaluate<1>(place); }

 private:
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
    if (!Known<Unary, Unary::kNeg, Unary::kSigmoid, Unary::kSqrt, Unary::kReciprocal>(kind, apply)) apply(kind);
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

constexpr int kRunLength = 4;

#ifdef __CUDACC__
// The gated network of language models, gate * sigmoid(gate) * up: the longest vectors that chains meet, and twice as fast where nobody asks for the
// next step.
template <typename T>
__global__ void __launch_bounds__(kThreads) RunGated(const T* gate, const T* up, T* y, int runs) {
  using Four = typename ChainKernel<T>::template Vector<kRunLength>;
  Begin();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= runs) return;
  const Four a = reinterpret_cast<const Four*>(gate)[i], b = reinterpret_cast<const Four*>(up)[i];
  Four out;
#pragma unroll
  for (int e = 0; e < kRunLength; ++e) {
    const float x = ToFloat(a.of[e]);
    out.of[e] = FromFloat<T>(x * Sigmoid(x) * ToFloat(b.of[e]));
  }
  reinterpret_cast<Four*>(y)[i] = out;
}

// Whether these are the steps of a gated network, of operands 0 and 1.
bool IsGated(const std::vector<Instruction>& steps) {
  const auto is = [&](size_t i, Instruction::Kind kind, int which) { return steps[i].kind == kind && steps[i].which == which; };
  const int sigmoid = static_cast<int>(Unary::kSigmoid), product = static_cast<int>(Binary::kMul);
  return steps.size() == 6 && is(0, Instruction::kLoad, 0) && is(1, Instruction::kLoad, 0) && is(2, Instruction::kUnary, sigmoid) &&
         is(3, Instruction::kBinary, product) && is(4, Instruction::kLoad, 1) && is(5, Instruction::kBinary, product);
}

// The steps are read where the parameters are, which a copy for each thread would not be.
template <typename T, int kRun>
__global__ void __launch_bounds__(kThreads) RunChain(const __grid_constant__ ChainKernel<T> f, int count) {
  Begin();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) f.template Evaluate<kRun>(static_cast<int>(i) * kRun);
}
#endif

class ChainState : public State {
 public:
  explicit ChainState(std::vector<Instruction> chain_steps) : steps(std::move(chain_steps)) {}
  const std::vector<Instruction> steps;
};

template <typename T>
void LaunchChain(Call& call, const Tensor& y) {
  const auto& steps = static_cast<const ChainState&>(*call.state).steps;
  ChainKernel<T> f = {};
  f.count = static_cast<int>(steps.size());
  std::copy(steps.begin(), steps.end(), f.steps);
  std::array<Shape, Chain::kMaxOperands> strides;
  strides.fill(Shape(y.shape.size(), 0));
  for (size_t i = 0; i < call.inputs(); ++i) strides[i] = BroadcastStrides(call.in(i).shape, y.shape);
  f.layout = MakeLayout<Chain::kMaxOperands>(y.shape, strides);
  f.inputs = static_cast<int>(call.inputs());
  f.rank = f.layout.rank;
  f.y = y.data<T>();
  for (size_t i = 0; i < call.inputs(); ++i) {
    f.operands[i] = call.in(i).data();
    f.truths[i] = call.in(i).type == Type::kBool;
    const int* own = f.layout.strides[i];
    const bool vector = own[0] == 1 && reinterpret_cast<uintptr_t>(f.operands[i]) % (sizeof(T) * kRunLength) == 0 &&
                        std::all_of(own + 1, own + f.rank, [](int stride) { return stride % kRunLength == 0; });
    f.runs[i] = own[0] == 0 ? Run::kRepeated : vector ? Run::kVector : Run::kStrided;
  }
#ifdef __CUDACC__
  if (!call.stream.on_host()) {
    const int count = CheckedCount(y.count());
    const auto launch = [&](auto kernel, int elements) { Launch(call.stream, kernel, (elements - 1) / kThreads + 1, kThreads, 0, f, elements); };
    const bool whole = f.rank == 1 && std::all_of(f.runs, f.runs + f.inputs, [](Run run) { return run == Run::kVector; });
    if (whole && IsGated(steps) && count % kRunLength == 0 && reinterpret_cast<uintptr_t>(f.y) % (sizeof(T) * kRunLength) == 0) {
      const int runs = count / kRunLength;
      Launch(call.stream, RunGated<T>, (runs - 1) / kThreads + 1, kThreads, 0, static_cast<const T*>(f.operands[0]), static_cast<const T*>(f.operands[1]), f.y, runs);
      return;
    }
    if (f.layout.dims[0] % kRunLength == 0 && reinterpret_cast<uintptr_t>(f.y) % (sizeof(T) * kRunLength) == 0) {
      launch(RunChain<T, kRunLength>, count / kRunLength);
    } else {
      launch(RunChain<T, 1>, count);
    }
    return;
  }
#endif
  ForEach(call.stream, y.count(), f);
}

void Run(Call& call) {
  std::vector<Shape> shapes;
  Type type = Type::kNone;
  for (size_t i = 0; i < call.inputs(); ++i) {
    shapes.push_back(call.in(i).shape);
    if (call.in(i).type != Type::kBool) type = call.in(i).type;
  }
  const Tensor y = call.Out(0, type, BroadcastShape(shapes));
  if (y.count() == 0) return;
  COSETQ_EP_FLOATS(call, type, LaunchChain, call, y)
}

}  // namespace

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
  static const Operator* chain = new Operator{"", Run, {kFloats | kBool}};
  return *chain;
}

std::unique_ptr<State> ChainStateOf(std::vector<Instruction> steps) { return std::make_unique<ChainState>(std::move(steps)); }

}  // namespace cosetq::ep
