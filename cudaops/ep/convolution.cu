// Convolutions as products of matrices, over one to three dimensions; those of single channels as they are.

#include <algorithm>
#include <stdexcept>

#include "launch.h"
#include "matmul.h"
#include "operator.h"
#include "window.h"

namespace cosetq::ep {
namespace {

// Divides places and taps by the dimensions of a window.
struct Walk {
  Divisor out[Window::kDims], kernel[Window::kDims];

  explicit Walk(const Window& w) {
    for (int d = 0; d < Window::kDims; ++d) {
      out[d] = Divisor(std::max(1, w.out[d]));
      kernel[d] = Divisor(w.kernel[d]);
    }
  }
  // Where a tap of a place is in a channel of the input, -1 in the padding.
  COSETQ_HD int At(const Window& w, int place, int tap) const {
    int at = 0, step = 1;
    bool inside = true;
COSETQ_UNROLL
    for (int d = Window::kDims - 1; d >= 0; --d) {
      const int next_place = out[d].Of(place), next_tap = kernel[d].Of(tap);
      const int r = (place - next_place * w.out[d]) * w.stride[d] - w.before[d] + (tap - next_tap * w.kernel[d]) * w.dilation[d];
      inside = inside && r >= 0 && r < w.in[d];
      at += r * step;
      step *= w.in[d];
      place = next_place;
      tap = next_tap;
    }
    return inside ? at : -1;
  }
};

// The columns that a kernel meets: [channels of all batches, taps, some of the places].
template <typename T>
struct ColumnsKernel {
  Window w;
  Walk walk;
  Divisor by_places, by_taps;
  int first, places, taps, inner;  // the first of the places, and their number; numbers of a channel
  const T* x;
  T* y;
  COSETQ_HD void operator()(int i) const {
    const int row = by_places.Of(i), channel = by_taps.Of(row), at = walk.At(w, first + i - row * places, row - channel * taps);
    y[i] = at < 0 ? T{} : x[static_cast<int64_t>(channel) * inner + at];
  }
};

template <typename T>
void LaunchColumns(Stream& stream, const Window& w, const T* x, int first, int places, const Tensor& y) {
  const int taps = static_cast<int>(w.taps());
  ForEach(stream, y.count(), ColumnsKernel<T>{w, Walk(w), Divisor(places), Divisor(taps), first, places, taps, w.in[0] * w.in[1] * w.in[2], x, y.data<T>()});
}

// Where each channel of the result has one of the input.
template <typename T>
struct SingleChannelsKernel {
  Window w;
  Walk walk;
  Divisor by_places;
  UnaryFunction f;
  int places, taps, inner, channels, each;  // of the result; those that have the same channel of the input
  const T *x, *weight, *bias;
  T* y;
  COSETQ_HD void operator()(int i) const {
    const int line = by_places.Of(i), place = i - line * places, channel = line % channels;
    const T* own = x + static_cast<int64_t>(line / each) * inner;
    float sum = bias != nullptr ? ToFloat(bias[channel]) : 0;
    for (int tap = 0; tap < taps; ++tap) {
      const int at = walk.At(w, place, tap);
      if (at >= 0) sum += ToFloat(weight[channel * taps + tap]) * ToFloat(own[at]);
    }
    y[i] = FromFloat<T>(Apply(f, sum));
  }
};

// As many columns as are made at a time take half a gigabyte of floats.
constexpr int64_t kMostColumns = int64_t{1} << 27;

template <typename T>
void LaunchConv(Call& call) {
  const Tensor &x = call.in(0), &weight = call.in(1);
  const int64_t groups = call.node.attributes.Int("group", 1);
  if (weight.shape.size() != x.shape.size() || groups < 1 || groups > std::max<int64_t>(1, x.shape[1]) || weight.shape[0] % groups != 0 ||
      x.shape[1] != weight.shape[1] * groups || (call.has(2) && call.in(2).shape != Shape{weight.shape[0]}))
    throw std::invalid_argument("Conv of " + Text(x.shape) + " by weights of " + Text(weight.shape) + " in " + std::to_string(groups) + " groups" +
                                (call.has(2) ? ", with a bias of " + Text(call.in(2).shape) : ""));
  const Window w = WindowOf(call, Shape(weight.shape.begin() + 2, weight.shape.end()));
  const int64_t samples = x.shape[0], channels = weight.shape[0], out = channels / groups, places = w.places(), taps = weight.shape[1] * w.taps();
  const Tensor y = call.Out(0, x.type, OutShape(x.shape, channels, w));
  if (y.count() == 0) return;
  const int inner = CheckedCount(int64_t{w.in[0]} * w.in[1] * w.in[2]);
  CheckedCount(places);
  UnaryFunction f;
  FindActivation(call.node, &f);
  const T* bias = call.has(2) ? call.in(2).data<T>() : nullptr;
  if (weight.shape[1] == 1) {
    CheckedCount(channels * taps);
    ForEach(call.stream, y.count(),
            SingleChannelsKernel<T>{w, Walk(w), Divisor(static_cast<int>(places)), f, static_cast<int>(places), static_cast<int>(taps), inner, CheckedCount(channels),
                                    CheckedCount(out), x.data<T>(), weight.data<T>(), bias, y.data<T>()});
    return;
  }
  Product p;
  p.m = CheckedCount(out);
  p.k = CheckedCount(taps);
  p.a_row = taps;
  p.a_column = 1;
  p.b_column = 1;
  p.beta = 1;
  p.d_row = 1;
  p.f = f;
  p.c_row = places;
  p.c_batch = channels * places;
  // A kernel of one number meets the input as it is.
  const bool alone = w.taps() == 1 && std::equal(w.in, w.in + Window::kDims, w.out) && std::count(w.stride, w.stride + Window::kDims, 1) == Window::kDims &&
                     std::count(w.before, w.before + Window::kDims, 0) == Window::kDims;
  const int64_t rows = x.shape[1] * w.taps();
  const bool whole = alone || (rows < kMostColumns / samples && rows * samples * places <= kMostColumns);
  const int64_t some_samples = whole ? samples : 1, some_places = whole ? places : std::clamp<int64_t>(kMostColumns / rows, 1, places);
  for (int64_t sample = 0; sample < samples; sample += some_samples) {
    for (int64_t first = 0; first < places; first += some_places) {
      const int64_t count = std::min(some_places, places - first);
      const T* columns = x.data<T>();
      Tensor made;
      if (!alone) {
        made = call.Scratch(x.type, {some_samples, rows, count});
        LaunchColumns<T>(call.stream, w, x.data<T>() + sample * x.shape[1] * inner, static_cast<int>(first), static_cast<int>(count), made);
        columns = made.data<T>();
      }
      p.n = CheckedCount(count);
      p.b_row = count;
      T* const to = y.data<T>() + sample * channels * places + first;
      for (int64_t g = 0; g < groups; ++g) {
        p.batches = CheckedCount(some_samples);
        p.batch = MakeLayout<2>({some_samples}, {Shape{0}, Shape{rows * count}});
        Multiply(call.stream, p, x.type, weight.data<T>() + g * out * taps, columns + g * taps * count, bias != nullptr ? bias + g * out : nullptr, to + g * out * places);
      }
    }
  }
}

void RunConv(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, LaunchConv, call) }

std::string CheckConv(const Graph& graph, const Node& node) {
  UnaryFunction f;
  if (!FindActivation(node, &f)) return "this fused activation";
  if (node.inputs.size() > 3 && node.inputs[3] >= 0) return "a fused addition";
  return CheckWindow(graph, node);
}

// Adds up what places of the input leave at a place of the result, which are in the columns [channels, taps, places].
template <typename T>
struct FoldKernel {
  Window w;  // of the result over the input: "in" is the result
  const T *columns, *bias;
  T* y;
  int channels;
  COSETQ_HD void operator()(int i) const {
    int line = i, r[Window::kDims];
COSETQ_UNROLL
    for (int d = Window::kDims - 1; d >= 0; --d) {
      r[d] = line % w.in[d] + w.before[d];
      line /= w.in[d];
    }
    const int places = w.out[0] * w.out[1] * w.out[2], taps = w.kernel[0] * w.kernel[1] * w.kernel[2];
    float sum = bias != nullptr ? ToFloat(bias[line % channels]) : 0;
    for (int tap = 0; tap < taps; ++tap) {
      int rest = tap, place = 0, step = 1;
      bool inside = true;
COSETQ_UNROLL
      for (int d = Window::kDims - 1; d >= 0; --d) {
        const int from = r[d] - rest % w.kernel[d] * w.dilation[d], at = from / w.stride[d];
        inside = inside && from >= 0 && from % w.stride[d] == 0 && at < w.out[d];
        place += at * step;
        step *= w.out[d];
        rest /= w.kernel[d];
      }
      if (inside) sum += ToFloat(columns[(static_cast<int64_t>(line) * taps + tap) * places + place]);
    }
    y[i] = FromFloat<T>(sum);
  }
};

template <typename T>
void LaunchConvTranspose(Call& call) {
  const Tensor &x = call.in(0), &weight = call.in(1);
  const Attributes& attributes = call.node.attributes;
  const int64_t groups = attributes.Int("group", 1);
  const size_t dims = x.shape.size() - 2;
  if (weight.shape.size() != x.shape.size() || groups < 1 || groups > std::max<int64_t>(1, x.shape[1]) || x.shape[1] % groups != 0 || x.shape[1] != weight.shape[0] ||
      (call.has(2) && call.in(2).shape != Shape{weight.shape[1] * groups}))
    throw std::invalid_argument("ConvTranspose of " + Text(x.shape) + " by weights of " + Text(weight.shape) + " in " + std::to_string(groups) + " groups" +
                                (call.has(2) ? ", with a bias of " + Text(call.in(2).shape) : ""));
  Window w = WindowOf(call, Shape(weight.shape.begin() + 2, weight.shape.end()));
  std::vector<int64_t> more = attributes.Ints("output_padding");
  if (more.empty()) more.assign(dims, 0);
  if (more.size() != dims) throw std::invalid_argument("ConvTranspose of " + Text(x.shape) + " with output_padding " + Text(more));
  const int64_t out = weight.shape[1], channels = out * groups, own = x.shape[1] / groups;
  Shape shape = {x.shape[0], channels};
  for (size_t d = 0; d < dims; ++d) {
    const size_t at = Window::kDims - dims + d;
    const int64_t n = int64_t{w.stride[at]} * (x.shape[2 + d] - 1) + more[d] + int64_t{w.kernel[at] - 1} * w.dilation[at] + 1 - w.before[at] - w.after[at];
    shape.push_back(n);
    w.in[at] = CheckedCount(n);
    w.out[at] = CheckedCount(x.shape[2 + d]);
  }
  const Tensor y = call.Out(0, x.type, shape);
  if (y.count() == 0) return;
  const int64_t places = w.places(), rows = out * w.taps();
  CheckedCount(places);
  const Tensor columns = call.Scratch(x.type, {x.shape[0], channels * w.taps(), places});
  CheckedCount(columns.count());
  Product p;
  p.m = CheckedCount(rows);
  p.n = CheckedCount(places);
  p.k = CheckedCount(own);
  p.a_row = 1;
  p.a_column = rows;
  p.b_row = places;
  p.b_column = 1;
  p.c_row = places;
  p.c_batch = groups * rows * places;
  p.batches = CheckedCount(x.shape[0]);
  p.batch = MakeLayout<2>({x.shape[0]}, {Shape{0}, Shape{x.shape[1] * places}});
  for (int64_t g = 0; g < groups; ++g)
    Multiply(call.stream, p, x.type, weight.data<T>() + g * own * rows, x.data<T>() + g * own * places, nullptr, columns.data<T>() + g * rows * places);
  ForEach(call.stream, y.count(), FoldKernel<T>{w, columns.data<T>(), call.has(2) ? call.in(2).data<T>() : nullptr, y.data<T>(), CheckedCount(channels)});
}

void RunConvTranspose(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, LaunchConvTranspose, call) }

std::string CheckConvTranspose(const Graph& graph, const Node& node) {
  if (node.attributes.Has("output_shape")) return "the attribute output_shape";
  const std::string automatic = node.attributes.String("auto_pad", "NOTSET");
  if (automatic != "NOTSET" && automatic != "VALID") return "this auto_pad";
  return CheckWindow(graph, node);
}

}  // namespace

std::vector<Operator> ConvolutionOperators() {
  std::vector<Operator> all = {
      {"Conv", RunConv, {kFloats}},
      {"FusedConv", RunConv, {kFloats}, 0, 0, 1, "com.microsoft", "activation activation_params auto_pad dilations group kernel_shape pads strides"},
      {"ConvTranspose", RunConvTranspose, {kFloats}},
  };
  for (Operator& op : all) {
    op.heavy = true;
    op.check = CheckConv;
  }
  all.back().check = CheckConvTranspose;
  return all;
}

}  // namespace cosetq::ep
