// Attention that a graph has in pieces, which patterns.cc finds.

#include <limits>
#include <stdexcept>
#include <utility>

#include "attention.h"

namespace cosetq::ep {
namespace {

// A tensor with four dimensions, where it has fewer, and its strides over those of a result.
struct Matrices {
  Shape shape;

  Matrices(const Call& call, size_t input) : shape(call.in(input).shape) { shape.insert(shape.begin(), 4 - shape.size(), 1); }
  Shape batch() const { return {shape[0], shape[1]}; }
  Places Over(int batches, int heads, int64_t token) const {
    const int64_t matrix = shape[2] * shape[3];
    const Shape steps = BroadcastStrides(batch(), {batches, heads});
    return {steps[0] * matrix, steps[1] * matrix, token};
  }
};

void RunMatched(Call& call) {
  const Attributes& attributes = call.node.attributes;
  const Type type = call.in(0).type;
  const bool across = attributes.Int("across", 0) != 0;
  const Matrices q(call, 0), k(call, 1), v(call, 2);
  Attention a;
  Shape batch = BroadcastShape({q.batch(), k.batch(), v.batch()});
  int64_t queries = q.shape[2];
  if (call.has(3)) {
    const Matrices mask(call, 3);
    batch = BroadcastShape({batch, mask.batch()});
    queries = BroadcastShape({{queries}, {mask.shape[2]}})[0];
  }
  a.batches = Extent(batch[0]);
  a.heads = a.kv_heads = Extent(batch[1]);
  a.queries = Extent(queries);
  a.width = Extent(q.shape[3]);
  a.keys = Extent(k.shape[across ? 3 : 2]);
  a.value_width = Extent(v.shape[3]);
  if (k.shape[across ? 2 : 3] != a.width || v.shape[2] != a.keys)
    throw std::invalid_argument("products of " + Text(call.in(0).shape) + ", " + Text(call.in(1).shape) + " and " + Text(call.in(2).shape));
  a.q = call.in(0).data();
  a.k = call.in(1).data();
  a.v = call.in(2).data();
  a.q_at = q.Over(a.batches, a.heads, q.shape[2] == a.queries ? a.width : 0);
  a.k_at = k.Over(a.batches, a.heads, across && a.keys != 1 ? 1 : a.width);
  a.k_step = across ? a.keys : 1;
  a.v_at = v.Over(a.batches, a.heads, a.value_width);
  a.scale = attributes.Float("scale", 1);
  a.empty = std::numeric_limits<float>::quiet_NaN();
  a.nan_is_zero = attributes.Int("nan_is_zero", 0) != 0;
  if (a.nan_is_zero || a.keys == 0) a.empty = 0;  // of no keys at all products are sums of nothing
  if (call.has(3)) {
    const Matrices mask(call, 3);
    const Shape steps = BroadcastStrides(mask.shape, {a.batches, a.heads, a.queries, a.keys});
    a.mask_kind = Attention::kAdd;
    a.mask = call.in(3).data();
    a.mask_at = {steps[0], steps[1], steps[2]};
    a.mask_step = Extent(steps[3]);
    a.mask_keys = a.keys;
  }
  const bool swapped = attributes.Int("swapped", 0) != 0;
  Shape shape = {a.batches, a.heads, a.queries, a.value_width};
  a.y_at = Places::ByHead(a.heads, a.queries, a.value_width);
  if (swapped) {
    std::swap(shape[1], shape[2]);
    a.y_at = Places::ByToken(a.heads, a.queries, a.value_width);
  }
  shape.erase(shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(4 - call.in(0).shape.size()));
  const Tensor y = call.Out(0, type, shape);
  a.y = y.data();
  Attend(call, type, a);
}

}  // namespace

const Operator& MatchedAttention() {
  static const Operator* matched = new Operator{"", RunMatched, {kFloats}};
  return *matched;
}

}  // namespace cosetq::ep
