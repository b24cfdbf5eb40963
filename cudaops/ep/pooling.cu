// Pooling over windows of one to three dimensions, and over all that a channel has.

#include <algorithm>
#include <stdexcept>

#include "launch.h"
#include "window.h"

namespace cosetq::ep {
namespace {

template <typename T>
struct PoolKernel {
  Window w;
  const T* x;
  T* y;
  bool mean, count_padding;
  COSETQ_HD void operator()(int i) const {
    int channel = i, from[Window::kDims];
COSETQ_UNROLL
    for (int d = Window::kDims - 1; d >= 0; --d) {
      from[d] = channel % w.out[d] * w.stride[d] - w.before[d];
      channel /= w.out[d];
    }
    float total = mean ? 0.0f : -INFINITY;
    int seen = 0, within = 0;
    const T* own = x + static_cast<int64_t>(channel) * w.in[0] * w.in[1] * w.in[2];
    for (int a = 0; a < w.kernel[0]; ++a) {
      const int s = from[0] + a * w.dilation[0];
      for (int b = 0; b < w.kernel[1]; ++b) {
        const int r = from[1] + b * w.dilation[1];
        for (int c = 0; c < w.kernel[2]; ++c) {
          const int q = from[2] + c * w.dilation[2];
          within += s < w.in[0] + w.after[0] && r < w.in[1] + w.after[1] && q < w.in[2] + w.after[2];
          if (s < 0 || s >= w.in[0] || r < 0 || r >= w.in[1] || q < 0 || q >= w.in[2]) continue;
          const float value = ToFloat(own[(static_cast<int64_t>(s) * w.in[1] + r) * w.in[2] + q]);
          total = mean ? total + value : Larger()(value, total);
          ++seen;
        }
      }
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

// With dilations ONNX Runtime's own kernels pad for the kernel as it is without them.
std::string CheckPool(const Graph& graph, const Node& node) {
  const std::vector<int64_t> dilations = node.attributes.Ints("dilations");
  const bool same = node.attributes.String("auto_pad", "NOTSET").rfind("SAME", 0) == 0;
  if (same && std::count(dilations.begin(), dilations.end(), 1) != static_cast<std::ptrdiff_t>(dilations.size())) return "dilations beside auto_pad";
  return CheckWindow(graph, node);
}

}  // namespace

std::vector<Operator> PoolingOperators() {
  std::vector<Operator> all = {
      {"MaxPool", RunPool<false>, {kFloats}},
      {"AveragePool", RunPool<true>, {kFloats}},
      {"GlobalMaxPool", RunGlobalPool<false>, {kFloats}},
      {"GlobalAveragePool", RunGlobalPool<true>, {kFloats}},
  };
  for (size_t i = 0; i < 2; ++i) all[i].check = CheckPool;
  return all;
}

}  // namespace cosetq::ep
