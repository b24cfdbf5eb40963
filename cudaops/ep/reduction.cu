// Sums, means and the like over some axes.

#include <stdexcept>

#include "launch.h"
#include "math.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

enum class Reduce { kL1, kL2, kMax, kMean, kMin, kProd, kSum, kSumSquare };

// What a combination begins with: of no numbers Max and Min are the least and the largest of the type.
template <typename T>
COSETQ_HD float First(Reduce kind, float) {
  return kind == Reduce::kMax ? -INFINITY : kind == Reduce::kMin ? INFINITY : kind == Reduce::kProd ? 1.0f : 0.0f;
}
template <typename T>
COSETQ_HD int64_t First(Reduce kind, int64_t) {
  const int64_t largest = sizeof(T) == sizeof(int64_t) ? INT64_MAX : INT32_MAX;
  return kind == Reduce::kMax ? -largest - 1 : kind == Reduce::kMin ? largest : kind == Reduce::kProd ? 1 : 0;
}

COSETQ_HD float Finish(Reduce kind, float total, int n) {
  return kind == Reduce::kMean ? total / static_cast<float>(n) : kind == Reduce::kL2 ? sqrtf(total) : total;
}
COSETQ_HD int64_t Finish(Reduce, int64_t total, int) { return total; }

template <typename V>
struct Combination {
  Reduce kind;
  COSETQ_HD V operator()(V a, V b) const {
    switch (kind) {
      case Reduce::kMax: return Apply(Binary::kMax, a, b);
      case Reduce::kMin: return Apply(Binary::kMin, a, b);
      case Reduce::kProd: return a * b;
      default: return a + b;
    }
  }
};

template <typename T>
struct ReduceKernel {
  using V = decltype(Wide(T()));  // float or int64_t

  Reduce kind;
  Layout<1> kept, reduced;
  int n;  // elements reduced to one
  const T* x;
  T* y;

  COSETQ_HD void operator()(const Block& block, int i) const {
    int first[1], at[1];
    kept.At(i, first);
    const Combination<V> combine{kind};
    V total = First<T>(kind, V());
    for (int k = block.thread(); k < n; k += block.threads()) {
      reduced.At(k, at);
      V value = Wide(x[first[0] + at[0]]);
      if (kind == Reduce::kL1) value = Apply(UnaryFunction{Unary::kAbs}, value);
      if (kind == Reduce::kL2 || kind == Reduce::kSumSquare) value *= value;
      total = combine(total, value);
    }
    total = block.Reduce(total, First<T>(kind, V()), combine);
    if (block.thread() == 0) y[i] = Narrow<T>(Finish(kind, total, n));
  }
};

template <typename T>
void LaunchReduce(Call& call, Reduce kind) {
  const Tensor& x = call.in(0);
  const Shape own = WithAxis(x.shape);
  const size_t rank = own.size();
  const std::vector<int64_t> axes = call.Axes(1);
  // Over no axes every element is reduced alone, which is more than a copy for some.
  std::vector<bool> drop(rank, axes.empty() && call.node.attributes.Int("noop_with_empty_axes", 0) == 0);
  for (int64_t a : axes) drop[static_cast<size_t>(Axis(a, rank))] = true;
  const bool keep = call.node.attributes.Int("keepdims", 1) != 0;
  const Shape strides = Strides(own);
  Shape shape, kept, kept_strides, reduced, reduced_strides;
  for (size_t d = 0; d < rank; ++d) {
    (drop[d] ? reduced : kept).push_back(own[d]);
    (drop[d] ? reduced_strides : kept_strides).push_back(strides[d]);
    if (!x.shape.empty() && (!drop[d] || keep)) shape.push_back(drop[d] ? 1 : own[d]);
  }
  const Tensor y = call.Out(0, x.type, shape);
  const int n = CheckedCount(Count(reduced));
  ForEachBlock(call.stream, y.count(), n,
               ReduceKernel<T>{kind, MakeLayout<1>(kept, {kept_strides}),
                               MakeLayout<1>(reduced, {reduced_strides}), n, x.data<T>(), y.data<T>()});
}

template <Reduce kind>
void RunReduce(Call& call) {
  COSETQ_EP_NUMBERS(call, call.in(0).type, LaunchReduce, call, kind)
}

}  // namespace

std::vector<Operator> ReductionOperators() {
  return {
      {"ReduceL1", RunReduce<Reduce::kL1>, {kNumbers, kIndices}, 2},
      {"ReduceL2", RunReduce<Reduce::kL2>, {kFloats, kIndices}, 2},
      {"ReduceMax", RunReduce<Reduce::kMax>, {kNumbers, kIndices}, 2},
      {"ReduceMean", RunReduce<Reduce::kMean>, {kFloats, kIndices}, 2},
      {"ReduceMin", RunReduce<Reduce::kMin>, {kNumbers, kIndices}, 2},
      {"ReduceProd", RunReduce<Reduce::kProd>, {kNumbers, kIndices}, 2},
      {"ReduceSum", RunReduce<Reduce::kSum>, {kNumbers, kIndices}, 2},
      {"ReduceSumSquare", RunReduce<Reduce::kSumSquare>, {kNumbers, kIndices}, 2},
  };
}

}  // namespace cosetq::ep
