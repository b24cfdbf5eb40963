// ArgMax, ArgMin and TopK: which numbers of a line are the largest.

#include <algorithm>
#include <stdexcept>

#include "launch.h"
#include "math.h"
#include "movement.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

template <typename V>
struct Foremost {
  bool largest;
  COSETQ_HD V operator()(V a, V b) const { return (largest ? a > b : a < b) ? a : b; }
};

// A block looks at a line: for the largest number, and then for the first place or the last one that has it.
template <typename T>
struct ArgKernel {
  using V = decltype(Wide(T()));

  const T* x;
  int64_t* y;
  int n, inner;
  bool largest, last;
  COSETQ_HD static V End(bool low, float) { return low ? -INFINITY : INFINITY; }
  COSETQ_HD static V End(bool low, int64_t) { return low ? INT64_MIN : INT64_MAX; }

  COSETQ_HD void operator()(const Block& block, int line) const {
    const int outer = line / inner;
    const T* first = x + static_cast<int64_t>(outer) * n * inner + (line - outer * inner);
    const Foremost<V> combine{largest};
    V best = End(largest, V());
    for (int k = block.thread(); k < n; k += block.threads()) best = combine(Wide(first[static_cast<int64_t>(k) * inner]), best);
    best = block.Reduce(best, End(largest, V()), combine);
    const Foremost<int64_t> nearest{last};
    const int64_t none = last ? -1 : INT64_MAX;
    int64_t place = none;
    for (int k = block.thread(); k < n; k += block.threads()) {
      if (Wide(first[static_cast<int64_t>(k) * inner]) == best) place = nearest(k, place);
    }
    place = block.Reduce(place, none, nearest);
    if (block.thread() == 0) y[line] = place == none ? 0 : place;
  }
};

template <typename T>
void LaunchArg(Call& call, bool largest) {
  const Tensor& x = call.in(0);
  Shape shape = WithAxis(x.shape);
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", 0), shape.size()));
  const int64_t n = shape[axis];
  int64_t inner = 1;
  for (size_t d = axis + 1; d < shape.size(); ++d) inner *= shape[d];
  if (call.node.attributes.Int("keepdims", 1) != 0 && !x.shape.empty()) {
    shape[axis] = 1;
  } else {
    shape.erase(shape.begin() + static_cast<int64_t>(axis));
  }
  const Tensor y = call.Out(0, Type::kInt64, shape);
  ForEachBlock(call.stream, y.count(), n,
               ArgKernel<T>{x.data<T>(), y.data<int64_t>(), CheckedCount(n), CheckedCount(inner), largest, call.node.attributes.Int("select_last_index", 0) != 0});
}

template <bool largest>
void RunArg(Call& call) {
  COSETQ_EP_NUMBERS(call, call.in(0).type, LaunchArg, call, largest)
}

// A thread counts what of a line is ahead of its number, which is the place that this has among the first k.
template <typename T>
struct TopKKernel {
  const T* x;
  T* values;
  int64_t* places;
  int n, inner, k;
  bool largest;

  // Of equal numbers the first one. NaN is larger than all numbers.
  template <typename V>
  COSETQ_HD bool Ahead(V a, int i, V b, int j) const {
    const bool a_is_nan = a != a, b_is_nan = b != b;
    if (a == b || (a_is_nan && b_is_nan)) return i < j;
    return largest ? a > b || a_is_nan : a < b || b_is_nan;
  }

  COSETQ_HD void operator()(int i) const {
    const int column = i % inner, rest = i / inner, own = rest % n, outer = rest / n;
    const T* line = x + static_cast<int64_t>(outer) * n * inner + column;
    const auto value = Wide(line[static_cast<int64_t>(own) * inner]);
    int ahead = 0;
    for (int j = 0; j < n && ahead < k; ++j) ahead += Ahead(Wide(line[static_cast<int64_t>(j) * inner]), j, value, own);
    if (ahead >= k) return;
    const int64_t to = (static_cast<int64_t>(outer) * k + ahead) * inner + column;
    values[to] = line[static_cast<int64_t>(own) * inner];
    places[to] = own;
  }
};

template <typename T>
void LaunchTopK(Call& call) {
  const Tensor& x = call.in(0);
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", -1), x.shape.size()));
  const int64_t k = call.has(1) ? call.Integers(1).at(0) : call.node.attributes.Int("k", 0), n = x.shape[axis];
  if (k < 0 || k > n) throw std::invalid_argument("TopK of " + std::to_string(k) + " among " + std::to_string(n));
  Shape shape = x.shape;
  shape[axis] = k;
  int64_t inner = 1;
  for (size_t d = axis + 1; d < shape.size(); ++d) inner *= shape[d];
  const Tensor values = call.Out(0, x.type, shape), places = call.Out(1, Type::kInt64, shape);
  if (values.count() == 0) return;
  ForEach(call.stream, x.count(),
          TopKKernel<T>{x.data<T>(), values.data<T>(), places.data<int64_t>(), CheckedCount(n), CheckedCount(inner), CheckedCount(k), call.node.attributes.Int("largest", 1) != 0});
}

void RunTopK(Call& call) { COSETQ_EP_NUMBERS(call, call.in(0).type, LaunchTopK, call) }

}  // namespace

std::vector<Operator> ChoiceOperators() {
  Operator top{"TopK", RunTopK, {kNumbers, Set(Type::kInt64)}, 2};
  top.outputs = 2;
  return {{"ArgMax", RunArg<true>, {kNumbers}}, {"ArgMin", RunArg<false>, {kNumbers}}, top};
}

}  // namespace cosetq::ep
