// RotaryEmbedding of ONNX Runtime, and that of ONNX, which has its inputs in another order and may do without positions.

#include <stdexcept>

#include "launch.h"
#include "operator.h"
#include "rotary.h"

namespace cosetq::ep {
namespace {

template <typename T>
struct RotaryKernel {
  Angles angles;
  const T* x;
  const int64_t* positions;  // [1]: of the first token; or [batch, length]; or null for an angle of each token of each batch
  T* y;
  int length, heads, size;  // size of a head
  int batch_stride, token_stride, head_stride;
  bool one_position;
  COSETQ_HD void operator()(int i) const {
    const int k = i % size, head = i / size % heads, token = i / (size * heads) % length;
    const int batch = i / (size * heads * length);
    const int64_t base = static_cast<int64_t>(batch) * batch_stride + static_cast<int64_t>(token) * token_stride +
                         static_cast<int64_t>(head) * head_stride;
    const int64_t line = static_cast<int64_t>(batch) * length + token;
    const int64_t position = positions == nullptr ? line : one_position ? positions[0] + token : positions[line];
    y[base + k] = k < angles.turned ? Turned(angles, x + base, k, position) : x[base + k];
  }
};

// Where a form of the operator has its inputs.
struct RotaryInputs {
  size_t cosine, sine, positions;
};
constexpr RotaryInputs kOfMicrosoft = {2, 3, 1}, kOfONNX = {1, 2, 3};

template <typename T>
void LaunchRotary(Call& call, const RotaryInputs& at) {
  const Tensor &x = call.in(0), &cosine = call.in(at.cosine), &sine = call.in(at.sine);
  const Attributes& attributes = call.node.attributes;
  const bool by_head = x.shape.size() == 4;  // [batch, heads, length, size]
  const bool of_tokens = !call.has(at.positions);
  if ((!by_head && x.shape.size() != 3) || cosine.shape.size() != (of_tokens ? 3 : 2) || sine.shape != cosine.shape)
    throw std::invalid_argument("RotaryEmbedding of " + Text(x.shape) + " by cosines of " + Text(cosine.shape) + " and sines of " + Text(sine.shape));
  RotaryKernel<T> f = {};
  const int64_t length = by_head ? x.shape[2] : x.shape[1], known = of_tokens ? cosine.shape[0] * cosine.shape[1] : cosine.shape[0];
  f.angles = {cosine.data(), sine.data(), CheckedCount(known), CheckedCount(2 * cosine.shape.back()), attributes.Int("interleaved", 0) != 0};
  const int turned = f.angles.turned;
  int64_t heads = by_head ? x.shape[1] : attributes.Int("num_heads", 0);
  if (!by_head && heads == 0 && turned > 0) heads = x.shape[2] / turned;
  const int64_t size = by_head ? x.shape[3] : heads > 0 ? x.shape[2] / heads : 0;
  if (turned > size || (!by_head && heads * size != x.shape[2]) || (of_tokens && (cosine.shape[0] != x.shape[0] || cosine.shape[1] != length)))
    throw std::invalid_argument("RotaryEmbedding of " + Text(x.shape) + " with " + std::to_string(heads) + " heads by cosines of " + Text(cosine.shape));
  if (!of_tokens) {
    const Tensor& positions = call.in(at.positions);
    f.positions = positions.data<int64_t>();
    f.one_position = positions.count() == 1 && positions.shape.size() < 2;
    if (!f.one_position && positions.count() != x.shape[0] * length)
      throw std::invalid_argument("RotaryEmbedding of " + Text(x.shape) + " by positions of " + Text(positions.shape));
  }
  f.x = x.data<T>();
  f.length = CheckedCount(length);
  f.heads = CheckedCount(heads);
  f.size = CheckedCount(size);
  f.batch_stride = CheckedCount(length * heads * size);
  f.token_stride = CheckedCount(by_head ? size : heads * size);
  f.head_stride = CheckedCount(by_head ? length * size : size);
  f.y = call.Out(0, x.type, x.shape).data<T>();
  ForEach(call.stream, x.count(), f);
}

void RunRotary(Call& call) {
  const RotaryInputs& at = call.node.domain.empty() ? kOfONNX : kOfMicrosoft;
  COSETQ_EP_FLOATS(call, call.in(0).type, LaunchRotary, call, at)
}

std::string CheckRotary(const Graph& graph, const Node& node) {
  const auto type = [&](size_t i) { return graph.values[static_cast<size_t>(node.inputs[i])].type; };
  const RotaryInputs& at = node.domain.empty() ? kOfONNX : kOfMicrosoft;
  if (type(at.cosine) != type(0) || type(at.sine) != type(0)) return "inputs of different types";
  return node.attributes.Int("is_packed_batching", 0) != 0 || node.attributes.Float("scale", 1) != 1
             ? "packed batches or a scale"
             : "";
}

}  // namespace

std::vector<Operator> RotaryOperators() {
  Operator microsoft{"RotaryEmbedding", RunRotary, {kFloats, Set(Type::kInt64), kFloats}}, own{"RotaryEmbedding", RunRotary, {kFloats, kFloats, kFloats, Set(Type::kInt64)}};
  microsoft.domain = "com.microsoft";
  microsoft.attributes = "interleaved is_packed_batching num_heads rotary_embedding_dim scale";
  microsoft.check = own.check = CheckRotary;
  return {microsoft, own};
}

}  // namespace cosetq::ep
