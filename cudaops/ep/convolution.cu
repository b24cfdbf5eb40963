// Convolutions as products of matrices, and pooling, over one or two dimensions.

#include <algorithm>
#include <stdexcept>

#include "launch.h"
#include "matmul.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

// Where a window of a kernel lies: of one or two dimensions, one becomes two of which the first is 1.
struct Window {
  int in[2] = {1, 1}, out[2] = {1, 1}, kernel[2] = {1, 1};
  int stride[2] = {1, 1}, dilation[2] = {1, 1}, before[2] = {0, 0}, after[2] = {0, 0};
};

Window WindowOf(const Call& call, const Shape& kernel) {
  const Attributes& attributes = call.node.attributes;
  const Shape& x = call.in(0).shape;
  const size_t dims = x.size() - 2;
  // An attribute of so many numbers, or all alike where it is missing.
  const auto list = [&](const char* name, size_t count, int64_t least, int64_t otherwise) {
    std::vector<int64_t> v = attributes.Ints(name);
    if (v.empty()) v.assign(count, otherwise);
    if (v.size() != count || std::any_of(v.begin(), v.end(), [&](int64_t n) { return n < least || n > INT32_MAX; }))
      throw std::invalid_argument(call.node.op + " of " + Text(x) + " with " + name + " " + Text(v));
    return v;
  };
  const std::vector<int64_t> strides = list("strides", dims, 1, 1), dilations = list("dilations", dims, 1, 1);
  const std::vector<int64_t> pads = list("pads", 2 * dims, -INT32_MAX, 0);
  if (kernel.size() != dims || Count(kernel) == 0) throw std::invalid_argument(call.node.op + " of " + Text(x) + " by a kernel of " + Text(kernel));
  const std::string automatic = attributes.String("auto_pad", "NOTSET");
  const bool same = automatic == "SAME_UPPER" || automatic == "SAME_LOWER";
  const bool ceil = attributes.Int("ceil_mode", 0) != 0;
  Window w;
  for (size_t d = 0; d < dims; ++d) {
    const size_t at = 2 - dims + d;
    w.in[at] = CheckedCount(x[2 + d]);
    w.kernel[at] = CheckedCount(kernel[d]);
    w.stride[at] = static_cast<int>(strides[d]);
    w.dilation[at] = static_cast<int>(dilations[d]);
    const int reach = CheckedCount((kernel[d] - 1) * dilations[d] + 1);
    if (same) {
      w.out[at] = CheckedCount((x[2 + d] + strides[d] - 1) / strides[d]);
      const int total = CheckedCount(std::max<int64_t>(0, (w.out[at] - 1) * strides[d] + reach - x[2 + d]));
      w.before[at] = automatic == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.after[at] = total - w.before[at];
      continue;
    }
    if (automatic != "VALID") {
      w.before[at] = static_cast<int>(pads[d]);
      w.after[at] = static_cast<int>(pads[dims + d]);
    }
    const int64_t room = x[2 + d] + w.before[at] + w.after[at] - reach;
    // Rounded up, a kernel that reaches beyond the end has a window all the same.
    const int64_t last = room + (ceil ? strides[d] - 1 : 0);
    w.out[at] = last < 0 ? 0 : CheckedCount(last / strides[d] + 1);
    // A last window that would begin in the padding behind is left out.
    if (ceil && (w.out[at] - 1) * strides[d] >= x[2 + d] + w.before[at]) --w.out[at];
  }
  return w;
}

Shape OutShape(const Shape& x, int64_t channels, const Window& w) {
  Shape shape = {x[0], channels};
  for (size_t d = 2 - (x.size() - 2); d < 2; ++d) shape.push_back(w.out[d]);
  return shape;
}

// The columns that a kernel meets: [batch, channels * kernel, places].
template <typename T>
struct ColumnsKernel {
  Window w;
  const T* x;
  T* y;
  COSETQ_HD void operator()(int i) const {
    const int places = w.out[0] * w.out[1], taps = w.kernel[0] * w.kernel[1];
    const int row = i / places, place = i - row * places;
    const int channel = row / taps, tap = row - channel * taps;
    const int r = place / w.out[1] * w.stride[0] - w.before[0] + tap / w.kernel[1] * w.dilation[0];
    const int c = place % w.out[1] * w.stride[1] - w.before[1] + tap % w.kernel[1] * w.dilation[1];
    const bool inside = r >= 0 && r < w.in[0] && c >= 0 && c < w.in[1];
    y[i] = inside ? x[(static_cast<int64_t>(channel) * w.in[0] + r) * w.in[1] + c] : T{};
  }
};

template <typename T>
void LaunchColumns(Stream& stream, const Window& w, const Tensor& x, const Tensor& y) {
  ForEach(stream, y.count(), ColumnsKernel<T>{w, x.data<T>(), y.data<T>()});
}

void RunConv(Call& call) {
  const Tensor &x = call.in(0), &weight = call.in(1);
  const int64_t groups = call.node.attributes.Int("group", 1);
  if (weight.shape.size() != x.shape.size() || groups < 1 || groups > std::max<int64_t>(1, x.shape[1]) || weight.shape[0] % groups != 0 ||
      x.shape[1] != weight.shape[1] * groups || (call.has(2) && call.in(2).shape != Shape{weight.shape[0]}))
    throw std::invalid_argument("Conv of " + Text(x.shape) + " by weights of " + Text(weight.shape) + " in " + std::to_string(groups) + " groups" +
                                (call.has(2) ? ", with a bias of " + Text(call.in(2).shape) : ""));
  const Window w = WindowOf(call, Shape(weight.shape.begin() + 2, weight.shape.end()));
  const int64_t out = weight.shape[0] / groups;
  const int64_t places = int64_t{w.out[0]} * w.out[1], taps = weight.shape[1] * w.kernel[0] * w.kernel[1];
  const Tensor y = call.Out(0, x.type, OutShape(x.shape, weight.shape[0], w));
  if (y.count() == 0) return;
  const Tensor columns = call.Scratch(x.type, {x.shape[0], x.shape[1] * w.kernel[0] * w.kernel[1], places});
  COSETQ_EP_FLOATS(call, x.type, LaunchColumns, call.stream, w, x, columns)
  Product p;
  p.m = CheckedCount(out);
  p.n = CheckedCount(places);
  p.k = CheckedCount(taps);
  p.a_row = taps;
  p.a_column = 1;
  p.b_row = places;
  p.b_column = 1;
  p.beta = 1;
  p.d_row = 1;
  FindActivation(call.node, &p.f);
  p.batches = CheckedCount(x.shape[0]);
  p.batch = MakeLayout<2>({x.shape[0]}, {Shape{0}, Shape{groups * taps * places}});
  const size_t size = SizeOf(x.type);
  if (groups == 1) {
    Multiply(call.stream, p, x.type, weight.data(), columns.data(), call.has(2) ? call.in(2).data() : nullptr, y.data());
    return;
  }
  // With groups the batch is of (sample, group) pairs, and the bias differs between groups.
  p.batches = 1;
  p.batch = MakeLayout<2>({}, {Shape{}, Shape{}});
  for (int64_t b = 0; b < x.shape[0] * groups; ++b) {
    const int64_t g = b % groups;
    const auto at = [&](const Tensor& t, int64_t i) { return t.data<char>() + static_cast<size_t>(i) * size; };
    Multiply(call.stream, p, x.type, at(weight, g * out * taps), at(columns, b * taps * places),
             call.has(2) ? at(call.in(2), g * out) : nullptr, at(y, b * out * places));
  }
}

std::string CheckWindow(const Graph& graph, const Node& node) {
  const int rank = graph.values[static_cast<size_t>(node.inputs[0])].rank;
  return rank == 3 || rank == 4 ? "" : "other than one or two dimensions";
}

std::string CheckConv(const Graph& graph, const Node& node) {
  UnaryFunction f;
  if (!FindActivation(node, &f)) return "this fused activation";
  if (node.inputs.size() > 3 && node.inputs[3] >= 0) return "a fused addition";
  return CheckWindow(graph, node);
}

template <typename T>
struct PoolKernel {
  Window w;
  const T* x;
  T* y;
  bool mean, count_padding;
  COSETQ_HD void operator()(int i) const {
    const int places = w.out[0] * w.out[1], channel = i / places, place = i - channel * places;
    const int r0 = place / w.out[1] * w.stride[0] - w.before[0], c0 = place % w.out[1] * w.stride[1] - w.before[1];
    float total = mean ? 0.0f : -INFINITY;
    int seen = 0, within = 0;
    for (int a = 0; a < w.kernel[0]; ++a)
      for (int b = 0; b < w.kernel[1]; ++b) {
        const int r = r0 + a * w.dilation[0], c = c0 + b * w.dilation[1];
        within += r < w.in[0] + w.after[0] && c < w.in[1] + w.after[1];
        if (r < 0 || r >= w.in[0] || c < 0 || c >= w.in[1]) continue;
        const float value = ToFloat(x[(static_cast<int64_t>(channel) * w.in[0] + r) * w.in[1] + c]);
        total = mean ? total + value : Larger()(value, total);
        ++seen;
      }
    y[i] = FromFloat<T>(mean ? total / static_cast<float>(count_padding ? within : seen) : total);
  }
};

template <typename T>
void LaunchPool(Call& call, bool mean) {
  const Tensor& x = call.in(0);
  const Window w = WindowOf(call, call.node.attributes.Ints("kernel_shape"));
  const Tensor y = call.Out(0, x.type, OutShape(x.shape, x.shape[1], w));
  ForEach(call.stream, y.count(), PoolKernel<T>{w, x.data<T>(), y.data<T>(), mean,
                                                call.node.attributes.Int("count_include_pad", 0) != 0});
}

template <bool mean>
void RunPool(Call& call) {
  COSETQ_EP_FLOATS(call, call.in(0).type, LaunchPool, call, mean)
}

template <typename T>
struct GlobalPoolKernel {
  const T* x;
  T* y;
  int n;
  bool mean;
  COSETQ_HD void operator()(const Block& block, int channel) const {
    float total = mean ? 0.0f : -INFINITY;
    for (int k = block.thread(); k < n; k += block.threads()) {
      const float value = ToFloat(x[static_cast<int64_t>(channel) * n + k]);
      total = mean ? total + value : Larger()(value, total);
    }
    total = mean ? block.Reduce(total, 0, Plus()) / static_cast<float>(n) : block.Reduce(total, -INFINITY, Larger());
    if (block.thread() == 0) y[channel] = FromFloat<T>(total);
  }
};

template <typename T>
void LaunchGlobalPool(Call& call, bool mean) {
  const Tensor& x = call.in(0);
  if (x.shape.size() < 2) throw std::invalid_argument(call.node.op + " of " + Text(x.shape) + ", which has no channels");
  Shape shape(x.shape.size(), 1);
  shape[0] = x.shape[0];
  shape[1] = x.shape[1];
  const Tensor y = call.Out(0, x.type, shape);
  if (y.count() == 0) return;
  const int n = CheckedCount(x.count() / y.count());
  ForEachBlock(call.stream, y.count(), n, GlobalPoolKernel<T>{x.data<T>(), y.data<T>(), n, mean});
}

template <bool mean>
void RunGlobalPool(Call& call) {
  COSETQ_EP_FLOATS(call, call.in(0).type, LaunchGlobalPool, call, mean)
}

}  // namespace

std::vector<Operator> ConvolutionOperators() {
  std::vector<Operator> all = {
      {"Conv", RunConv, {kFloats}},
      {"FusedConv", RunConv, {kFloats}, 0, 0, 1, "com.microsoft", "activation activation_params auto_pad dilations group kernel_shape pads strides"},
      {"MaxPool", RunPool<false>, {kFloats}},
      {"AveragePool", RunPool<true>, {kFloats}},
      {"GlobalMaxPool", RunGlobalPool<false>, {kFloats}},
      {"GlobalAveragePool", RunGlobalPool<true>, {kFloats}},
  };
  for (size_t i = 0; i < 2; ++i) {
    all[i].heavy = true;
    all[i].check = CheckConv;
  }
  for (size_t i = 2; i < 4; ++i) all[i].check = CheckWindow;
  return all;
}

}  // namespace cosetq::ep
