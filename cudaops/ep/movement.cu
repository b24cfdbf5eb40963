// Operators that move elements without looking at them.

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "launch.h"
#include "movement.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

template <typename T>
struct MoveKernel {
  Layout<2> layout;
  const T* x;
  T* y;
  COSETQ_HD void operator()(int i) const {
    int at[2];
    layout.At(i, at);
    y[at[1]] = x[at[0]];
  }
};

template <typename T>
void LaunchMove(Stream& stream, const Shape& shape, const Layout<2>& layout, const void* x,
                int64_t x_first, void* y, int64_t y_first) {
  ForEach(stream, Count(shape),
          MoveKernel<T>{layout, static_cast<const T*>(x) + x_first, static_cast<T*>(y) + y_first});
}

void RunTranspose(Call& call) {
  const Tensor& x = call.in(0);
  const size_t rank = x.shape.size();
  std::vector<int64_t> order = call.node.attributes.Ints("perm");
  if (order.empty()) {
    for (size_t d = rank; d-- > 0;) order.push_back(static_cast<int64_t>(d));
  }
  if (order.size() != rank) throw std::invalid_argument("Transpose of " + Text(x.shape) + " by perm " + Text(order));
  const Shape own = Strides(x.shape);
  Shape shape, strides;
  for (size_t d : Axes(order, rank)) {
    shape.push_back(x.shape[d]);
    strides.push_back(own[d]);
  }
  const Tensor y = call.Out(0, x.type, shape);
  Move(call, shape, x, 0, strides, y, 0, Strides(shape));
}

void RunExpand(Call& call) {
  const Tensor& x = call.in(0);
  const Shape shape = BroadcastShape({x.shape, call.Integers(1)});
  if (shape == x.shape) return call.View(0, x, shape);
  const Tensor y = call.Out(0, x.type, shape);
  Move(call, shape, x, 0, BroadcastStrides(x.shape, shape), y, 0, Strides(shape));
}

void RunTile(Call& call) {
  const Tensor& x = call.in(0);
  const std::vector<int64_t> repeats = call.Integers(1);
  if (repeats.size() != x.shape.size()) throw std::invalid_argument("Tile of " + Text(x.shape) + " by " + Text(repeats));
  const Shape own = Strides(x.shape);
  // Each dimension becomes two: which copy, and where in it.
  Shape shape, walk, strides;
  for (size_t d = 0; d < x.shape.size(); ++d) {
    shape.push_back(x.shape[d] * repeats[d]);
    walk.insert(walk.end(), {repeats[d], x.shape[d]});
    strides.insert(strides.end(), {0, own[d]});
  }
  const Tensor y = call.Out(0, x.type, shape);
  Move(call, walk, x, 0, strides, y, 0, Strides(walk));
}

void RunSlice(Call& call) {
  const Tensor& x = call.in(0);
  const bool by_input = call.inputs() > 1;
  const std::vector<int64_t> starts = by_input ? call.Integers(1) : call.node.attributes.Ints("starts");
  const std::vector<int64_t> ends = by_input ? call.Integers(2) : call.node.attributes.Ints("ends");
  std::vector<int64_t> axes = call.Axes(3);
  if (axes.empty()) {
    for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  }
  const std::vector<size_t> dims = Axes(axes, x.shape.size());
  const std::vector<int64_t> steps = call.has(4) ? call.Integers(4) : std::vector<int64_t>(starts.size(), 1);
  if (starts.size() != dims.size() || ends.size() != dims.size() || steps.size() != dims.size())
    throw std::invalid_argument("Slice of " + Text(x.shape) + " from " + Text(starts) + " to " + Text(ends) + " along " + Text(axes) + " by " + Text(steps));
  Shape shape = x.shape, strides = Strides(x.shape);
  int64_t first = 0;
  for (size_t i = 0; i < dims.size(); ++i) {
    const size_t d = dims[i];
    const int64_t n = x.shape[d], step = steps[i];
    if (step == 0) throw std::invalid_argument("Slice with a step of 0");
    if (n == 0) continue;
    const auto clamp = [&](int64_t at, int64_t low, int64_t high) {
      return std::clamp(at < 0 ? at + n : at, low, high);
    };
    const int64_t start = step > 0 ? clamp(starts[i], 0, n) : clamp(starts[i], 0, n - 1);
    // Backwards the largest number means the end, as ONNX Runtime has it.
    const int64_t stop = step < 0 && (ends[i] == INT32_MAX || ends[i] == INT64_MAX) ? INT64_MIN : ends[i];
    const int64_t end = step > 0 ? clamp(stop, 0, n) : clamp(std::max(stop, -n - 1), -1, n - 1);
    const int64_t last = end - start - (step > 0 ? 1 : -1);  // from start; of the other sign than step where there is nothing
    shape[d] = last != 0 && (last > 0) != (step > 0) ? 0 : last / step + 1;
    first += start * strides[d];
    if (shape[d] > 1) strides[d] *= step;
  }
  if (shape == x.shape && first == 0 && strides == Strides(x.shape)) return call.View(0, x, shape);
  const Tensor y = call.Out(0, x.type, shape);
  Move(call, shape, x, first, strides, y, 0, Strides(shape));
}

void RunConcat(Call& call) {
  Shape shape = call.in(0).shape;
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", 1), shape.size()));
  for (size_t i = 1; i < call.inputs(); ++i) {
    Shape alike = call.in(i).shape;
    if (alike.size() == shape.size()) {
      const int64_t added = std::exchange(alike[axis], shape[axis]);
      if (alike == shape) {
        shape[axis] += added;
        continue;
      }
    }
    throw std::invalid_argument("Concat along axis " + std::to_string(axis) + " of " + Text(call.in(0).shape) + " and " + Text(call.in(i).shape));
  }
  const Tensor y = call.Out(0, call.in(0).type, shape);
  const Shape strides = Strides(shape);
  int64_t first = 0;
  for (size_t i = 0; i < call.inputs(); ++i) {
    const Tensor& x = call.in(i);
    Move(call, x.shape, x, 0, Strides(x.shape), y, first * strides[axis], strides);
    first += x.shape[axis];
  }
}

void RunSplit(Call& call) {
  const Tensor& x = call.in(0);
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", 0), x.shape.size()));
  const size_t parts = call.node.outputs.size();
  std::vector<int64_t> sizes = call.Axes(1, "split");
  if (sizes.empty()) {
    const int64_t each = (x.shape[axis] + static_cast<int64_t>(parts) - 1) / static_cast<int64_t>(parts);
    for (int64_t left = x.shape[axis]; sizes.size() < parts; left -= each)
      sizes.push_back(std::clamp<int64_t>(left, 0, each));
  }
  int64_t left = x.shape[axis];
  for (int64_t size : sizes) left = size < 0 || size > left ? -1 : left - size;
  if (left != 0 || sizes.size() != parts)
    throw std::invalid_argument("Split of " + std::to_string(x.shape[axis]) + " into " + std::to_string(parts) + " parts of " + Text(sizes));
  const Shape strides = Strides(x.shape);
  int64_t first = 0;
  for (size_t i = 0; i < parts; ++i) {
    Shape shape = x.shape;
    shape[axis] = sizes[i];
    const Tensor y = call.Out(i, x.type, shape);
    Move(call, shape, x, first * strides[axis], strides, y, 0, Strides(shape));
    first += sizes[i];
  }
}

template <typename T>
struct FillKernel {
  T value;
  T* y;
  COSETQ_HD void operator()(int i) const { y[i] = value; }
};

template <typename T>
void LaunchFill(Stream& stream, const Tensor& y, const void* value) {
  ForEach(stream, y.count(), FillKernel<T>{*static_cast<const T*>(value), y.data<T>()});
}

void Fill(Call& call, const Tensor& y, const void* value) {
  COSETQ_EP_SIZES(call, y.type, LaunchFill, call.stream, y, value)
}

void RunConstantOfShape(Call& call) {
  const Tensor value = call.node.attributes.Value("value");
  if (value.buffer && value.count() != 1) throw std::invalid_argument("ConstantOfShape of a value of " + Text(value.shape) + ", want a single one");
  const float zero = 0;
  const Tensor y = call.Out(0, value.buffer ? value.type : Type::kFloat, call.Integers(0));
  Fill(call, y, value.buffer ? value.data() : &zero);
}

void RunPad(Call& call) {
  const Tensor& x = call.in(0);
  const size_t rank = x.shape.size();
  const std::vector<int64_t> given = call.Axes(1, "pads");
  std::vector<int64_t> axes = call.has(3) ? call.Integers(3) : std::vector<int64_t>();
  if (axes.empty()) {
    for (size_t d = 0; d < rank; ++d) axes.push_back(static_cast<int64_t>(d));
  }
  // What negative padding cuts off is left out of the walk over x.
  Shape shape = x.shape, walk = x.shape;
  const Shape strides = Strides(x.shape);
  int64_t x_first = 0;
  std::vector<int64_t> before(rank, 0);
  const std::vector<size_t> dims = Axes(axes, rank);
  if (given.size() != 2 * dims.size()) throw std::invalid_argument("Pad of " + Text(x.shape) + " along " + Text(axes) + " by " + Text(given));
  for (size_t i = 0; i < dims.size(); ++i) {
    const size_t d = dims[i];
    const int64_t low = given[i], high = given[dims.size() + i];
    for (int64_t n : {low, high}) {
      if (n < -INT32_MAX || n > INT32_MAX) throw std::invalid_argument("Pad of " + Text(x.shape) + " by " + std::to_string(n));
    }
    shape[d] += low + high;
    walk[d] = std::max<int64_t>(0, walk[d] + std::min<int64_t>(low, 0) + std::min<int64_t>(high, 0));
    before[d] = std::max<int64_t>(low, 0);
    x_first -= std::min<int64_t>(low, 0) * strides[d];
  }
  const Tensor y = call.Out(0, x.type, shape);
  const uint64_t zero = 0;
  Fill(call, y, call.has(2) ? call.Number(2).data() : &zero);
  const Shape out = Strides(shape);
  int64_t y_first = 0;
  for (size_t d = 0; d < rank; ++d) y_first += before[d] * out[d];
  Move(call, walk, x, x_first, strides, y, y_first, out);
}

std::string CheckPad(const Graph&, const Node& node) {
  if (node.attributes.String("mode", "constant") != "constant") return "padding by other than a constant";
  return node.version >= 11 || node.attributes.Float("value", 0) == 0 ? "" : "padding by a number, of opset 10";
}

}  // namespace

void Move(Call& call, const Shape& shape, const Tensor& x, int64_t x_first, const Shape& x_strides,
          const Tensor& y, int64_t y_first, const Shape& y_strides) {
  if (Count(shape) == 0) return;
  const Layout<2> layout = MakeLayout<2>(shape, {x_strides, y_strides});
  if (layout.rank == 1 && layout.strides[0][0] == 1 && layout.strides[1][0] == 1) {
    const size_t size = SizeOf(x.type);
    call.stream.Copy(y.data<char>() + static_cast<size_t>(y_first) * size,
                     x.data<char>() + static_cast<size_t>(x_first) * size,
                     static_cast<size_t>(Count(shape)) * size);
    return;
  }
  COSETQ_EP_SIZES(call, x.type, LaunchMove, call.stream, shape, layout, x.data(), x_first, y.data(),
                  y_first)
}

std::vector<Operator> MovementOperators() {
  std::vector<Operator> all = {
      {"Transpose", RunTranspose, {kAny}},
      {"Expand", RunExpand, {kAny, kIndices}, 2},
      {"Tile", RunTile, {kAny, kIndices}, 2},
      {"Slice", RunSlice, {kAny, kIndices}, 0b11110},
      {"Concat", RunConcat, {kAny}},
      {"ConstantOfShape", RunConstantOfShape, {kIndices}, 1},
      {"Split", RunSplit, {kAny, kIndices}, 2, 0, SIZE_MAX},
      {"Pad", RunPad, {kAny, kIndices, kAny, kIndices}, 0b1110},
  };
  all.back().check = CheckPad;
  return all;
}

}  // namespace cosetq::ep
