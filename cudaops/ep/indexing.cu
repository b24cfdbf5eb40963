// Operators that are told by tensors of indices what to move. An index that is out of range reads zero.

#include <algorithm>
#include <stdexcept>

#include "indices.cuh"
#include "launch.h"
#include "math.h"
#include "movement.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

template <typename T, typename Index>
struct GatherKernel {
  const T* x;
  Indices<Index> indices;
  T* y;
  int count, n, inner;  // of indices; along the axis; after it
  Divisor by_count, by_inner;
  COSETQ_HD void operator()(int i) const {
    const int rest = by_inner.Of(i), column = i - rest * inner;
    const int outer = by_count.Of(rest), at = indices.At(rest - outer * count, n);
    y[i] = at < 0 ? T{} : x[(static_cast<int64_t>(outer) * n + at) * inner + column];
  }
};

int64_t Product(const Shape& shape, size_t first, size_t last) {
  int64_t n = 1;
  for (size_t d = first; d < last; ++d) n *= shape[d];
  return n;
}

void RunGather(Call& call) {
  const Tensor &x = call.in(0), &indices = call.in(1);
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", 0), x.shape.size()));
  Shape shape(x.shape.begin(), x.shape.begin() + static_cast<int64_t>(axis));
  shape.insert(shape.end(), indices.shape.begin(), indices.shape.end());
  shape.insert(shape.end(), x.shape.begin() + static_cast<int64_t>(axis) + 1, x.shape.end());
  const Tensor y = call.Out(0, x.type, shape);
  if (y.count() == 0) return;
  const int count = CheckedCount(indices.count()), n = CheckedCount(x.shape[axis]), inner = CheckedCount(Product(x.shape, axis + 1, x.shape.size()));
  const size_t size = SizeOf(x.type), run = Together(size, {inner}, {x.data(), y.data()});
  const int runs = inner / static_cast<int>(run);
  const auto launch = [&](auto element, auto index) {
    using T = decltype(element);
    using Index = decltype(index);
    ForEach(call.stream, y.count() / static_cast<int64_t>(run),
            GatherKernel<T, Index>{x.data<T>(), {indices.data<Index>()}, y.data<T>(), count, n, runs, Divisor(count), Divisor(runs)});
  };
  ForSize(run * size, [&](auto element) { indices.type == Type::kInt32 ? launch(element, int32_t()) : launch(element, int64_t()); });
}

template <typename T, typename Index>
struct GatherElementsKernel {
  const T* x;
  Indices<Index> indices;
  T* y;
  Layout<1> layout;  // over y, with x's strides, 0 along the axis
  int n, stride;     // along the axis of x
  COSETQ_HD void operator()(int i) const {
    int at[1];
    layout.At(i, at);
    const int k = indices.At(i, n);
    y[i] = k < 0 ? T{} : x[at[0] + static_cast<int64_t>(k) * stride];
  }
};

template <typename T, typename Index>
void LaunchGatherElementsBy(Call& call) {
  const Tensor &x = call.in(0), &indices = call.in(1);
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", 0), x.shape.size()));
  bool inside = indices.shape.size() == x.shape.size();
  for (size_t d = 0; inside && d < x.shape.size(); ++d) inside = d == axis || indices.shape[d] <= x.shape[d];
  if (!inside) throw std::invalid_argument("GatherElements of " + Text(x.shape) + " along axis " + std::to_string(axis) + " by indices of " + Text(indices.shape));
  const Tensor y = call.Out(0, x.type, indices.shape);
  Shape strides = Strides(x.shape);
  const int stride = CheckedCount(strides[axis]);
  strides[axis] = 0;
  ForEach(call.stream, y.count(),
          GatherElementsKernel<T, Index>{x.data<T>(), {indices.data<Index>()}, y.data<T>(),
                                         MakeLayout<1>(y.shape, {strides}),
                                         CheckedCount(x.shape[axis]), stride});
}

template <typename T>
void LaunchGatherElements(Call& call) {
  if (call.in(1).type == Type::kInt32) return LaunchGatherElementsBy<T, int32_t>(call);
  LaunchGatherElementsBy<T, int64_t>(call);
}

void RunGatherElements(Call& call) { COSETQ_EP_SIZES(call, call.in(0).type, LaunchGatherElements, call) }

template <typename T>
struct GatherNDKernel {
  const T* x;
  Indices<int64_t> indices;
  T* y;
  int depth, inner;         // indices per element; elements that each names
  int tuples, batch_stride; // per batch, of indices and of x
  int dims[kMaxRank], strides[kMaxRank];
  COSETQ_HD void operator()(int i) const {
    const int tuple = i / inner;
    int64_t at = static_cast<int64_t>(tuple / tuples) * batch_stride + (i - tuple * inner);
    bool inside = true;
COSETQ_UNROLL
    for (int d = 0; d < kMaxRank; ++d) {
      if (d == depth) break;
      const int k = indices.At(tuple * depth + d, dims[d]);
      inside = inside && k >= 0;
      at += static_cast<int64_t>(k) * strides[d];
    }
    y[i] = inside ? x[at] : T{};
  }
};

template <typename T>
void LaunchGatherND(Call& call) {
  const Tensor &x = call.in(0), &indices = call.in(1);
  const int64_t batch_dims = call.node.attributes.Int("batch_dims", 0), rank = static_cast<int64_t>(x.shape.size());
  if (batch_dims < 0 || batch_dims >= static_cast<int64_t>(indices.shape.size()) || batch_dims > rank || indices.shape.back() > rank - batch_dims ||
      !std::equal(x.shape.begin(), x.shape.begin() + batch_dims, indices.shape.begin()))
    throw std::invalid_argument("GatherND of " + Text(x.shape) + " by indices of " + Text(indices.shape) + " with batch_dims " + std::to_string(batch_dims));
  const auto batch = static_cast<size_t>(batch_dims), depth = static_cast<size_t>(indices.shape.back());
  if (depth > kMaxRank) throw std::invalid_argument("GatherND by " + std::to_string(depth) + " indices each: more than 8 dimensions");
  Shape shape(indices.shape.begin(), indices.shape.end() - 1);
  shape.insert(shape.end(), x.shape.begin() + static_cast<int64_t>(batch + depth), x.shape.end());
  const Tensor y = call.Out(0, x.type, shape);
  GatherNDKernel<T> f = {};
  f.x = x.data<T>();
  f.indices.data = indices.data<int64_t>();
  f.y = y.data<T>();
  CheckedCount(indices.count());
  f.depth = static_cast<int>(depth);
  f.inner = CheckedCount(Product(x.shape, batch + depth, x.shape.size()));
  f.tuples = CheckedCount(Product(indices.shape, batch, indices.shape.size() - 1));
  f.batch_stride = CheckedCount(Product(x.shape, batch, x.shape.size()));
  const Shape strides = Strides(x.shape);
  for (size_t d = 0; d < depth; ++d) {
    f.dims[d] = CheckedCount(x.shape[batch + d]);
    f.strides[d] = CheckedCount(strides[batch + d]);
  }
  ForEach(call.stream, y.count(), f);
}

void RunGatherND(Call& call) { COSETQ_EP_SIZES(call, call.in(0).type, LaunchGatherND, call) }

template <typename T>
struct RangeKernel {
  T start, delta;
  T* y;
  COSETQ_HD void operator()(int i) const { y[i] = start + static_cast<T>(i) * delta; }
};

// How many numbers there are from start to before limit.
int64_t Steps(int64_t start, int64_t limit, int64_t delta) {
  if (delta > 0 ? start >= limit : start <= limit) return 0;
  const auto distance = [](int64_t low, int64_t high) { return static_cast<uint64_t>(high) - static_cast<uint64_t>(low); };
  const uint64_t steps = delta > 0 ? (distance(start, limit) - 1) / distance(0, delta) : (distance(limit, start) - 1) / distance(delta, 0);
  return static_cast<int64_t>(std::min<uint64_t>(steps, INT64_MAX - 1)) + 1;
}
int64_t Steps(float start, float limit, float delta) {
  const double steps = std::ceil((static_cast<double>(limit) - static_cast<double>(start)) / static_cast<double>(delta));
  if (!(steps < 9e18)) throw std::invalid_argument("Range from " + std::to_string(start) + " to " + std::to_string(limit) + " by " + std::to_string(delta));
  return steps > 0 ? static_cast<int64_t>(steps) : 0;
}

template <typename T>
void LaunchRange(Call& call) {
  const T start = *call.Number(0).data<T>(), limit = *call.Number(1).data<T>(), delta = *call.Number(2).data<T>();
  if (delta == 0) throw std::invalid_argument("Range with a delta of 0");
  const int64_t count = Steps(Wide(start), Wide(limit), Wide(delta));
  const Tensor y = call.Out(0, call.host(0).type, {count});
  ForEach(call.stream, count, RangeKernel<T>{start, delta, y.data<T>()});
}

void RunRange(Call& call) {
  switch (call.host(0).type) {
    case Type::kFloat: return LaunchRange<float>(call);
    case Type::kInt32: return LaunchRange<int32_t>(call);
    case Type::kInt64: return LaunchRange<int64_t>(call);
    default: ThrowType(call, call.host(0).type);
  }
}

// One thread adds up one line.
template <typename T>
struct CumSumKernel {
  const T* x;
  T* y;
  int n, inner;
  bool exclusive, reverse;
  COSETQ_HD void operator()(int line) const {
    const int outer = line / inner, column = line - outer * inner;
    const int64_t first = static_cast<int64_t>(outer) * n * inner + column;
    decltype(Wide(T{})) sum = 0;
    for (int k = 0; k < n; ++k) {
      const int64_t at = first + static_cast<int64_t>(reverse ? n - 1 - k : k) * inner;
      const auto value = Wide(x[at]);
      if (!exclusive) sum += value;
      y[at] = Narrow<T>(sum);
      if (exclusive) sum += value;
    }
  }
};

template <typename T>
void LaunchCumSum(Call& call) {
  const Tensor& x = call.in(0);
  const auto axis = static_cast<size_t>(Axis(call.Integers(1).at(0), x.shape.size()));
  const Tensor y = call.Out(0, x.type, x.shape);
  if (x.count() == 0) return;
  const int n = CheckedCount(x.shape[axis]);
  ForEach(call.stream, x.count() / n,
          CumSumKernel<T>{x.data<T>(), y.data<T>(), n, CheckedCount(Product(x.shape, axis + 1, x.shape.size())),
                          call.node.attributes.Int("exclusive", 0) != 0,
                          call.node.attributes.Int("reverse", 0) != 0});
}

void RunCumSum(Call& call) { COSETQ_EP_NUMBERS(call, call.in(0).type, LaunchCumSum, call) }

template <typename T>
struct TriluKernel {
  const T* x;
  T* y;
  int rows, columns;
  int64_t k;
  bool upper;
  COSETQ_HD void operator()(int i) const {
    const int column = i % columns, row = i / columns % rows;
    y[i] = (upper ? column - row >= k : column - row <= k) ? x[i] : T{};
  }
};

template <typename T>
void LaunchTrilu(Call& call) {
  const Tensor& x = call.in(0);
  const size_t rank = x.shape.size();
  const Tensor y = call.Out(0, x.type, x.shape);
  const int64_t k = call.has(1) ? call.Integers(1).at(0) : 0;
  ForEach(call.stream, y.count(),
          TriluKernel<T>{x.data<T>(), y.data<T>(), CheckedCount(x.shape.at(rank - 2)),
                         CheckedCount(x.shape.at(rank - 1)), k,
                         call.node.attributes.Int("upper", 1) != 0});
}

void RunTrilu(Call& call) { COSETQ_EP_SIZES(call, call.in(0).type, LaunchTrilu, call) }

}  // namespace

std::vector<Operator> IndexOperators() {
  return {
      {"Gather", RunGather, {kAny, kIndices}},
      {"GatherElements", RunGatherElements, {kAny, kIndices}},
      {"GatherND", RunGatherND, {kAny, Set(Type::kInt64)}},
      {"Range", RunRange, {kIndices | Set(Type::kFloat)}, 7},
      {"CumSum", RunCumSum, {kNumbers, kIndices}, 2},
      {"Trilu", RunTrilu, {kAny, kIndices}, 2},
  };
}

}  // namespace cosetq::ep
