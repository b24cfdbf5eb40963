// Normalizations of whole channels, or of groups of them.

#include <stdexcept>

#include "launch.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

// A block has the channels of a group of one batch, which lie together.
template <typename T>
struct GroupNormKernel {
  const T *x, *scale, *shift;
  T* y;
  int groups, channels, inner;  // groups of a batch; channels of a group; numbers of a channel
  int per_scale;                // channels that have one scale
  float epsilon;

  COSETQ_HD void operator()(const Block& block, int index) const {
    const int n = channels * inner;
    const int64_t first = static_cast<int64_t>(index) * n;
    float mean = 0, square = 0;
    for (int k = block.thread(); k < n; k += block.threads()) mean += ToFloat(x[first + k]);
    mean = block.Reduce(mean, 0, Plus()) / static_cast<float>(n);
    for (int k = block.thread(); k < n; k += block.threads()) {
      const float d = ToFloat(x[first + k]) - mean;
      square += d * d;
    }
    const float inverse = 1 / sqrtf(block.Reduce(square, 0, Plus()) / static_cast<float>(n) + epsilon);
    const int channel = index % groups * channels;
    for (int k = block.thread(); k < n; k += block.threads()) {
      const int c = (channel + k / inner) / per_scale;
      y[first + k] = FromFloat<T>((ToFloat(x[first + k]) - mean) * inverse * ToFloat(scale[c]) + ToFloat(shift[c]));
    }
  }
};

// groups: 0 for one of each channel.
template <typename T>
void LaunchGroupNorm(Call& call, int64_t groups) {
  const Tensor& x = call.in(0);
  if (x.shape.size() < 2) throw std::invalid_argument(call.node.op + " of " + Text(x.shape) + ", which has no channels");
  const int64_t channels = x.shape[1], own = groups == 0 ? channels : groups;
  if (own < 1 ? channels != 0 : channels % own != 0)
    throw std::invalid_argument(call.node.op + " of " + Text(x.shape) + " in " + std::to_string(own) + " groups");
  const Tensor &scale = call.in(1), &shift = call.in(2);
  // One of each channel; of each group in version 18 of GroupNormalization.
  const int64_t scales = groups != 0 && call.node.version < 21 ? own : channels;
  for (const Tensor* t : {&scale, &shift}) {
    if (t->shape != Shape{scales})
      throw std::invalid_argument(call.node.op + ": a scale or shift of " + Text(t->shape) + ", want " + std::to_string(scales) + " elements");
  }
  const Tensor y = call.Out(0, x.type, x.shape);
  if (y.count() == 0) return;
  const int64_t blocks = x.shape[0] * own;
  GroupNormKernel<T> f = {};
  f.x = x.data<T>();
  f.scale = scale.data<T>();
  f.shift = shift.data<T>();
  f.y = y.data<T>();
  f.groups = CheckedCount(own);
  f.channels = CheckedCount(channels / own);
  f.inner = CheckedCount(x.count() / (x.shape[0] * channels));
  f.per_scale = CheckedCount(channels / scales);
  f.epsilon = call.node.attributes.Float("epsilon", 1e-5f);
  CheckedCount(x.count() / blocks);
  ForEachBlock(call.stream, blocks, x.count() / blocks, f);
}

void RunInstanceNorm(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, LaunchGroupNorm, call, 0) }

void RunGroupNorm(Call& call) { COSETQ_EP_FLOATS(call, call.in(0).type, LaunchGroupNorm, call, call.node.attributes.Int("num_groups", 1)) }

std::string CheckGroupNorm(const Graph& graph, const Node& node) {
  for (size_t i = 1; i < 3; ++i) {
    if (graph.values[static_cast<size_t>(node.inputs.at(i))].type != graph.values[static_cast<size_t>(node.inputs[0])].type) return "inputs of different types";
  }
  return node.version < 6 || node.attributes.Int("num_groups", 1) < 1 ? "no groups, or an operator of opset 5" : "";
}

}  // namespace

std::vector<Operator> GroupNormOperators() {
  Operator instance{"InstanceNormalization", RunInstanceNorm, {kFloats}}, group{"GroupNormalization", RunGroupNorm, {kFloats}};
  instance.check = group.check = CheckGroupNorm;
  return {instance, group};
}

}  // namespace cosetq::ep
