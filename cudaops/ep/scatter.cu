// Operators that write to places that a tensor of indices names. One that is out of range writes nothing.

#include <algorithm>
#include <stdexcept>

#include "indices.cuh"
#include "launch.h"
#include "movement.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

template <typename T>
struct ScatterNDKernel {
  Indices<int64_t> indices;
  const T* updates;
  T* y;
  int depth, inner;  // indices of a tuple; elements that each names
  int dims[kMaxRank], strides[kMaxRank];
  COSETQ_HD void operator()(int i) const {
    const int tuple = i / inner;
    int64_t at = i - tuple * inner;
COSETQ_UNROLL
    for (int d = 0; d < kMaxRank; ++d) {
      if (d == depth) break;
      const int k = indices.At(tuple * depth + d, dims[d]);
      if (k < 0) return;
      at += static_cast<int64_t>(k) * strides[d];
    }
    y[at] = updates[i];
  }
};

// A copy of the first input, to write to.
Tensor CopyOfData(Call& call) {
  const Tensor& x = call.in(0);
  const Tensor y = call.Out(0, x.type, x.shape);
  call.stream.Copy(y.data(), x.data(), x.bytes());
  return y;
}

template <typename T>
void LaunchScatterND(Call& call) {
  const Tensor &x = call.in(0), &indices = call.in(1), &updates = call.in(2);
  const auto depth = indices.shape.empty() ? -1 : indices.shape.back();
  if (depth < 0 || depth > static_cast<int64_t>(x.shape.size()))
    throw std::invalid_argument("ScatterND to " + Text(x.shape) + " by indices of " + Text(indices.shape));
  Shape want(indices.shape.begin(), indices.shape.end() - 1);
  want.insert(want.end(), x.shape.begin() + depth, x.shape.end());
  if (updates.shape != want)
    throw std::invalid_argument("ScatterND to " + Text(x.shape) + " by indices of " + Text(indices.shape) + ": updates of " + Text(updates.shape) + ", want " + Text(want));
  const Tensor y = CopyOfData(call);
  if (updates.count() == 0) return;
  ScatterNDKernel<T> f = {};
  f.indices.data = indices.data<int64_t>();
  f.updates = updates.data<T>();
  f.y = y.data<T>();
  CheckedCount(indices.count());
  CheckedCount(x.count());
  f.depth = static_cast<int>(depth);
  f.inner = CheckedCount(Count(Shape(x.shape.begin() + depth, x.shape.end())));
  const Shape strides = Strides(x.shape);
  for (size_t d = 0; d < static_cast<size_t>(depth); ++d) {
    f.dims[d] = CheckedCount(x.shape[d]);
    f.strides[d] = CheckedCount(strides[d]);
  }
  ForEach(call.stream, updates.count(), f);
}

void RunScatterND(Call& call) { COSETQ_EP_SIZES(call, call.in(0).type, LaunchScatterND, call) }

template <typename T, typename Index>
struct ScatterElementsKernel {
  Indices<Index> indices;
  const T* updates;
  T* y;
  Layout<1> layout;  // over the indices, with y's strides, 0 along the axis
  int n, stride;     // along the axis of y
  COSETQ_HD void operator()(int i) const {
    int at[1];
    layout.At(i, at);
    const int k = indices.At(i, n);
    if (k >= 0) y[at[0] + static_cast<int64_t>(k) * stride] = updates[i];
  }
};

template <typename T, typename Index>
void LaunchScatterElementsBy(Call& call) {
  const Tensor &x = call.in(0), &indices = call.in(1), &updates = call.in(2);
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", 0), x.shape.size()));
  bool inside = indices.shape.size() == x.shape.size() && updates.shape == indices.shape;
  for (size_t d = 0; inside && d < x.shape.size(); ++d) inside = d == axis || indices.shape[d] <= x.shape[d];
  if (!inside)
    throw std::invalid_argument(call.node.op + " to " + Text(x.shape) + " along axis " + std::to_string(axis) + " by indices of " + Text(indices.shape) + " and updates of " + Text(updates.shape));
  const Tensor y = CopyOfData(call);
  if (updates.count() == 0) return;
  Shape strides = Strides(x.shape);
  const int stride = CheckedCount(strides[axis]);
  strides[axis] = 0;
  CheckedCount(x.count());
  ForEach(call.stream, updates.count(),
          ScatterElementsKernel<T, Index>{{indices.data<Index>()}, updates.data<T>(), y.data<T>(), MakeLayout<1>(updates.shape, {strides}), CheckedCount(x.shape[axis]), stride});
}

template <typename T>
void LaunchScatterElements(Call& call) {
  if (call.in(1).type == Type::kInt32) return LaunchScatterElementsBy<T, int32_t>(call);
  LaunchScatterElementsBy<T, int64_t>(call);
}

void RunScatterElements(Call& call) { COSETQ_EP_SIZES(call, call.in(0).type, LaunchScatterElements, call) }

// What is added up has no order on a GPU, and so no result that is the same from run to run.
std::string CheckScatter(const Graph&, const Node& node) {
  return node.attributes.String("reduction", "none") == "none" ? "" : "a reduction of what goes to the same place";
}

}  // namespace

std::vector<Operator> ScatterOperators() {
  std::vector<Operator> all = {
      {"ScatterND", RunScatterND, {kAny, Set(Type::kInt64), kAny}},
      {"ScatterElements", RunScatterElements, {kAny, kIndices, kAny}},
      {"Scatter", RunScatterElements, {kAny, kIndices, kAny}},
  };
  for (Operator& op : all) op.check = CheckScatter;
  return all;
}

}  // namespace cosetq::ep
