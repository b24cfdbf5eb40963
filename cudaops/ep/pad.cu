// ConstantOfShape, and Pad, whose padding is a number, or repeats what it surrounds.

#include <algorithm>
#include <stdexcept>

#include "launch.h"
#include "movement.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

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

enum class Padding { kConstant, kEdge, kReflect, kWrap, kUnknown };

Padding PaddingOf(const Node& node) {
  const std::string mode = node.attributes.String("mode", "constant");
  return mode == "constant" ? Padding::kConstant : mode == "edge" ? Padding::kEdge : mode == "reflect" ? Padding::kReflect : mode == "wrap" ? Padding::kWrap : Padding::kUnknown;
}

// Which of x each number of the result is. dims from the last to the first.
template <typename T>
struct RepeatingKernel {
  Padding padding;
  int rank;
  struct {
    int size, first, count;  // of the result; what is repeated of x: where it begins, and how much it is
    int before;              // numbers of the result ahead of it
    int stride;
  } dims[kMaxRank];
  const T* x;
  T* y;

  COSETQ_HD static int Modulo(int i, int n) {
    const int rest = i % n;
    return rest < 0 ? rest + n : rest;
  }
  COSETQ_HD int Place(int i, int n) const {
    if (padding == Padding::kWrap) return Modulo(i, n);
    if (padding == Padding::kReflect && n > 1) {
      const int around = Modulo(i, 2 * (n - 1));
      return around < n ? around : 2 * (n - 1) - around;
    }
    return i < 0 ? 0 : i < n ? i : n - 1;
  }

  COSETQ_HD void operator()(int i) const {
    int rest = i, at = 0;
COSETQ_UNROLL
    for (int d = 0; d < kMaxRank; ++d) {
      if (d == rank) break;
      at += (dims[d].first + Place(rest % dims[d].size - dims[d].before, dims[d].count)) * dims[d].stride;
      rest /= dims[d].size;
    }
    y[i] = x[at];
  }
};

template <typename T>
void LaunchRepeating(Call& call, const Tensor& y, const std::vector<int64_t>& low, const Shape& walk) {
  const Tensor& x = call.in(0);
  RepeatingKernel<T> f = {};
  f.padding = PaddingOf(call.node);
  f.rank = static_cast<int>(x.shape.size());
  const Shape strides = Strides(x.shape);
  CheckedCount(x.count());
  for (size_t d = 0; d < x.shape.size(); ++d) {
    auto& own = f.dims[x.shape.size() - 1 - d];
    own.size = CheckedCount(y.shape[d]);
    own.first = CheckedCount(std::max<int64_t>(0, -low[d]));
    own.count = CheckedCount(walk[d]);
    own.before = CheckedCount(std::max<int64_t>(0, low[d]));
    own.stride = CheckedCount(strides[d]);
  }
  f.x = x.data<T>();
  f.y = y.data<T>();
  ForEach(call.stream, y.count(), f);
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
    before[d] = low;
    x_first -= std::min<int64_t>(low, 0) * strides[d];
  }
  const Tensor y = call.Out(0, x.type, shape);
  if (PaddingOf(call.node) != Padding::kConstant) {
    if (y.count() == 0) return;
    if (Count(walk) == 0) throw std::invalid_argument("Pad of " + Text(x.shape) + " to " + Text(shape) + " with nothing to repeat");
    COSETQ_EP_SIZES(call, x.type, LaunchRepeating, call, y, before, walk)
    return;
  }
  const uint64_t zero = 0;
  Fill(call, y, call.has(2) ? call.Number(2).data() : &zero);
  const Shape out = Strides(shape);
  int64_t y_first = 0;
  for (size_t d = 0; d < rank; ++d) y_first += std::max<int64_t>(before[d], 0) * out[d];
  Move(call.stream, walk, x, x_first, strides, y, y_first, out);
}

std::string CheckPad(const Graph& graph, const Node& node) {
  if (PaddingOf(node) == Padding::kUnknown) return "this mode of padding";
  if (node.inputs.size() > 2 && node.inputs[2] >= 0 &&
      graph.values[static_cast<size_t>(node.inputs[2])].type != graph.values[static_cast<size_t>(node.inputs[0])].type)
    return "inputs of different types";
  return node.version >= 11 || node.attributes.Float("value", 0) == 0 ? "" : "padding by a number, of opset 10";
}

}  // namespace

std::vector<Operator> PadOperators() {
  std::vector<Operator> all = {
      {"ConstantOfShape", RunConstantOfShape, {kIndices}, 1},
      {"Pad", RunPad, {kAny, kIndices, kAny, kIndices}, 0b1110},
  };
  all.back().check = CheckPad;
  return all;
}

}  // namespace cosetq::ep
