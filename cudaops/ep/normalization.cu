// Softmax and the normalisations.

#include <algorithm>
#include <stdexcept>

#include "launch.h"
#include "math.h"
#include "movement.h"
#include "norm.cuh"
#include "operator.h"

namespace cosetq::ep {
namespace {

// Lines of up to kHeld elements for each thread are read once, longer ones three times.
template <typename T>
struct SoftmaxKernel {
  static constexpr int kHeld = 8;
  const T* x;
  T* y;
  int n, inner;  // along the axis; after it
  bool logarithm;

  COSETQ_HD T Out(float above, float sum, float log_sum) const { return FromFloat<T>(logarithm ? above - log_sum : expf(above) / sum); }

  COSETQ_HD void Short(const Block& block, const T* from, T* to) const {
    float held[kHeld], largest = -INFINITY, sum = 0;
COSETQ_UNROLL
    for (int i = 0; i < kHeld; ++i) {
      const int k = block.thread() + i * block.threads();
      held[i] = k < n ? ToFloat(from[static_cast<int64_t>(k) * inner]) : -INFINITY;
      largest = Larger()(held[i], largest);
    }
    largest = block.Reduce(largest, -INFINITY, Larger());
COSETQ_UNROLL
    for (int i = 0; i < kHeld; ++i) {
      held[i] -= largest;
      if (block.thread() + i * block.threads() < n) sum += expf(held[i]);
    }
    sum = block.Reduce(sum, 0, Plus());
    const float log_sum = logf(sum);
COSETQ_UNROLL
    for (int i = 0; i < kHeld; ++i) {
      const int k = block.thread() + i * block.threads();
      if (k < n) to[static_cast<int64_t>(k) * inner] = Out(held[i], sum, log_sum);
    }
  }

  COSETQ_HD void Long(const Block& block, const T* from, T* to) const {
    float largest = -INFINITY, sum = 0;
    for (int k = block.thread(); k < n; k += block.threads()) largest = Larger()(ToFloat(from[static_cast<int64_t>(k) * inner]), largest);
    largest = block.Reduce(largest, -INFINITY, Larger());
    for (int k = block.thread(); k < n; k += block.threads()) sum += expf(ToFloat(from[static_cast<int64_t>(k) * inner]) - largest);
    sum = block.Reduce(sum, 0, Plus());
    const float log_sum = logf(sum);
    for (int k = block.thread(); k < n; k += block.threads()) {
      const int64_t at = static_cast<int64_t>(k) * inner;
      to[at] = Out(ToFloat(from[at]) - largest, sum, log_sum);
    }
  }

  COSETQ_HD void operator()(const Block& block, int line) const {
    const int outer = line / inner, column = line - outer * inner;
    const int64_t first = static_cast<int64_t>(outer) * n * inner + column;
    if (n <= kHeld * block.threads()) {
      Short(block, x + first, y + first);
    } else {
      Long(block, x + first, y + first);
    }
  }
};

template <typename T>
void LaunchSoftmax(Call& call, bool logarithm) {
  const Tensor& x = call.in(0);
  const bool flat = call.node.version < 13;  // the axis and all that follow are one
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", flat ? 1 : -1), x.shape.size()));
  int64_t n = x.shape[axis], inner = 1;
  for (size_t d = axis + 1; d < x.shape.size(); ++d) (flat ? n : inner) *= x.shape[d];
  const Tensor y = call.Out(0, x.type, x.shape);
  if (y.count() == 0) return;
  ForEachBlock(call.stream, y.count() / n, n / 4,
               SoftmaxKernel<T>{x.data<T>(), y.data<T>(), CheckedCount(n), CheckedCount(inner), logarithm});
}

template <bool logarithm>
void RunSoftmax(Call& call) {
  COSETQ_EP_FLOATS(call, call.in(0).type, LaunchSoftmax, call, logarithm)
}

template <typename T>
const T* Optional(const Call& call, size_t i) {
  return call.has(i) ? call.in(i).data<T>() : nullptr;
}

// Of what there is one number for each of so many.
void WantCount(const Call& call, size_t i, int64_t n) {
  if (call.has(i) && call.in(i).count() != n)
    throw std::invalid_argument(call.node.op + ": input " + std::to_string(i) + " is " + Text(call.in(i).shape) + ", want " + std::to_string(n) + " elements");
}

// An input with a number for every element of a shape, if need be a copy that repeats it; none where it is left out.
Tensor Repeated(Call& call, size_t i, const Shape& shape) {
  if (!call.has(i)) return {};
  Tensor own = call.in(i);
  if (own.count() == Count(shape)) return own;
  while (own.shape.size() > shape.size() && own.shape[0] == 1) own.shape.erase(own.shape.begin());
  const Tensor all = call.Scratch(own.type, shape);
  Move(call.stream, shape, own, 0, BroadcastStrides(own.shape, shape), all, 0, Strides(shape));
  return all;
}

// Inputs: x, scale, shift.
template <typename T>
void LaunchNorm(Call& call, bool centre) {
  const Tensor& x = call.in(0);
  const auto axis = static_cast<size_t>(Axis(call.node.attributes.Int("axis", -1), x.shape.size()));
  const Shape normalized(x.shape.begin() + static_cast<int64_t>(axis), x.shape.end());
  const int64_t n = Count(normalized);
  const Tensor scale = Repeated(call, 1, normalized), shift = Repeated(call, 2, normalized);
  NormKernel<T> f = {};
  f.x = x.data<T>();
  f.scale = scale.buffer ? scale.data<T>() : nullptr;
  f.shift = shift.buffer ? shift.data<T>() : nullptr;
  f.y = call.Out(0, x.type, x.shape).data<T>();
  f.n = CheckedCount(n);
  f.epsilon = call.node.attributes.Float("epsilon", 1e-5f);
  f.centre = centre;
  if (x.count() > 0) Normalize(call.stream, x.count() / n, f);
}

template <bool centre>
void RunNorm(Call& call) {
  COSETQ_EP_FLOATS(call, call.in(0).type, LaunchNorm, call, centre)
}

// Scale and shift are broadcast over what is normalized, and the same for every row of it.
std::string CheckNorm(const Graph& graph, const Node& node) {
  const auto value = [&](size_t i) -> const Value& { return graph.values[static_cast<size_t>(node.inputs[i])]; };
  const Value& x = value(0);
  const int64_t axis = node.attributes.Int("axis", -1);
  const int64_t normalized = axis < 0 ? -axis : x.rank < 0 ? 1 : x.rank - axis;  // dimensions, or how many at least
  for (size_t i = 1; i < node.inputs.size(); ++i) {
    if (node.inputs[i] < 0) continue;
    const Value& own = value(i);
    if (own.type != x.type) return "inputs of different types";
    if (own.rank < 0) return "a scale or shift of unknown shape";
    for (int64_t d = 1; d <= own.rank; ++d) {
      const int64_t have = own.shape[static_cast<size_t>(own.rank - d)];
      const int64_t want = d > normalized ? 1 : d <= x.rank ? x.shape[static_cast<size_t>(x.rank - d)] : -1;
      if (d > normalized && have < 0) return "a scale or shift of unknown shape";
      if (have > 1 && want >= 0 && have != want) return "a scale or shift of another shape than what is normalized";
    }
  }
  return "";
}

// Inputs: x, skip, scale, then for LayerNorm shift, then bias. Outputs 0 and 3: the result, the sum.
template <typename T>
void LaunchSkipNorm(Call& call, bool centre) {
  const Tensor& x = call.in(0);
  if (x.shape.empty()) throw std::invalid_argument(call.node.op + " of a scalar");
  const size_t scale = 2, shift = 3, bias = centre ? 4 : 3;
  for (size_t i = scale; i <= bias; ++i) WantCount(call, i, x.shape.back());
  NormKernel<T> f = {};
  f.x = x.data<T>();
  f.skip = call.in(1).data<T>();
  const Shape& skip = call.in(1).shape;
  const bool repeats = x.shape.size() == 3 && (skip == Shape{1, x.shape[1], x.shape[2]} || skip == Shape{x.shape[1], x.shape[2]});
  if (skip != x.shape && !repeats)
    throw std::invalid_argument(call.node.op + ": skip of " + Text(skip) + " for " + Text(x.shape));
  f.n = CheckedCount(x.shape.back());
  f.skip_rows = x.count() > 0 ? CheckedCount(call.in(1).count() / f.n) : 0;
  f.scale = Optional<T>(call, scale);
  f.shift = centre ? Optional<T>(call, shift) : nullptr;
  f.bias = Optional<T>(call, bias);
  f.y = call.Out(0, x.type, x.shape).data<T>();
  if (call.node.outputs.size() > 3 && call.node.outputs[3] >= 0)
    f.sum = call.Out(3, x.type, x.shape).data<T>();
  f.epsilon = call.node.attributes.Float("epsilon", 1e-12f);
  f.centre = centre;
  if (x.count() > 0) Normalize(call.stream, x.count() / f.n, f);
}

// Inputs: what is added, scale, for LayerNorm perhaps shift. Outputs: the result, the sum.
template <typename T>
void LaunchSumNorm(Call& call) {
  const Tensor &a = call.in(0), &b = call.in(1);
  const Shape shape = BroadcastShape({a.shape, b.shape});
  const bool wants_sum = call.node.outputs[1] >= 0;
  for (size_t i = 2; i < 4; ++i) WantCount(call, i, shape.back());
  NormKernel<T> f = {};
  f.n = CheckedCount(shape.back());
  Tensor sum;
  if (a.shape == b.shape) {
    f.x = a.data<T>();
    f.skip = b.data<T>();
    f.skip_rows = a.count() > 0 ? CheckedCount(a.count() / f.n) : 0;
    if (wants_sum) f.sum = call.Out(1, a.type, shape).data<T>();
  } else {
    sum = wants_sum ? call.Out(1, a.type, shape) : call.Scratch(a.type, shape);
    RunChain(call.stream, *call.state, {{a.data(), false, BroadcastStrides(a.shape, shape)}, {b.data(), false, BroadcastStrides(b.shape, shape)}}, sum);
    f.x = sum.data<T>();
  }
  f.scale = Optional<T>(call, 2);
  f.shift = Optional<T>(call, 3);
  f.y = call.Out(0, a.type, shape).data<T>();
  f.epsilon = call.node.attributes.Float("epsilon", 1e-5f);
  f.centre = call.node.attributes.Int("centre", 0) != 0;
  if (Count(shape) > 0) Normalize(call.stream, Count(shape) / f.n, f);
}

void RunSumNorm(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, LaunchSumNorm, call) }

template <bool centre>
void RunSkipNorm(Call& call) {
  COSETQ_EP_FLOATS(call, call.in(0).type, LaunchSkipNorm, call, centre)
}

std::string CheckSkipNorm(const Graph&, const Node& node) {
  for (size_t i = 1; i < node.outputs.size() && i < 3; ++i) {
    if (node.outputs[i] >= 0) return "the mean or deviation as an output";
  }
  return "";
}

template <typename T>
struct BatchNormKernel {
  const T *x, *scale, *shift, *mean, *variance;
  T* y;
  int channels, inner;
  float epsilon;
  COSETQ_HD void operator()(int i) const {
    const int c = i / inner % channels;
    const float slope = ToFloat(scale[c]) / sqrtf(ToFloat(variance[c]) + epsilon);
    y[i] = FromFloat<T>((ToFloat(x[i]) - ToFloat(mean[c])) * slope + ToFloat(shift[c]));
  }
};

template <typename T>
void LaunchBatchNorm(Call& call) {
  const Tensor& x = call.in(0);
  for (size_t i = 1; i < 5; ++i) WantCount(call, i, x.shape.at(1));
  const Tensor y = call.Out(0, x.type, x.shape);
  int64_t inner = 1;
  for (size_t d = 2; d < x.shape.size(); ++d) inner *= x.shape[d];
  ForEach(call.stream, y.count(),
          BatchNormKernel<T>{x.data<T>(), call.in(1).data<T>(), call.in(2).data<T>(), call.in(3).data<T>(),
                             call.in(4).data<T>(), y.data<T>(), CheckedCount(x.shape.at(1)), CheckedCount(inner),
                             call.node.attributes.Float("epsilon", 1e-5f)});
}

void RunBatchNorm(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, LaunchBatchNorm, call) }

std::string CheckBatchNorm(const Graph& graph, const Node& node) {
  if (node.attributes.Int("training_mode", 0) != 0) return "training mode";
  if (node.attributes.Int("spatial", 1) == 0) return "one scale per element";
  const Type type = graph.values[static_cast<size_t>(node.inputs[0])].type;
  for (int input : node.inputs) {
    if (graph.values[static_cast<size_t>(input)].type != type) return "inputs of different types";
  }
  return "";
}

}  // namespace

const Operator& SumNormOperator() {
  static const Operator* sum = new Operator{"", RunSumNorm, {kFloats}};
  return *sum;
}

std::vector<Operator> NormalizationOperators() {
  std::vector<Operator> all = {
      {"Softmax", RunSoftmax<false>, {kFloats}},
      {"LogSoftmax", RunSoftmax<true>, {kFloats}},
      {"LayerNormalization", RunNorm<true>, {kFloats}},
      {"SimplifiedLayerNormalization", RunNorm<false>, {kFloats}},
      {"RMSNormalization", RunNorm<false>, {kFloats}},
      {"BatchNormalization", RunBatchNorm, {kFloats}},
      {"SkipLayerNormalization", RunSkipNorm<true>, {kFloats}, 0, 0, 4, "com.microsoft", "epsilon"},
      {"SkipSimplifiedLayerNormalization", RunSkipNorm<false>, {kFloats}, 0, 0, 4, "com.microsoft", "epsilon"},
  };
  for (Operator& op : all) {
    const std::string name = op.name;
    if (op.run == RunNorm<true> || op.run == RunNorm<false>) op.check = CheckNorm;
    if (name == "BatchNormalization") op.check = CheckBatchNorm;
    if (name.rfind("Skip", 0) == 0) op.check = CheckSkipNorm;
  }
  return all;
}

}  // namespace cosetq::ep
