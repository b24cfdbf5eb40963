// MultiHeadAttention of ONNX Runtime.

#include <stdexcept>

#include "attention_operands.h"

namespace cosetq::ep {
namespace {

// The padding mask of an input, [batches], [batches, keys] or [batches, queries, keys], and a bias of scores of another one if it is there. Gives
// what keeps them, where that is memory of its own.
Tensor ReadPadding(Call& call, size_t padding, size_t bias, Attention* a) {
  const Tensor& keep = call.in(padding);
  const size_t rank = keep.shape.size();
  Shape want = {a->batches, a->queries, a->keys};
  if (rank < 3) want.erase(want.begin() + 1);
  if (rank < 2) want.pop_back();
  Want(call, padding, want);
  const float filter = call.node.attributes.Float("mask_filter_value", -10000);
  if (rank == 2 && !call.has(bias)) {
    a->mask_kind = Attention::kPadding;
    a->mask = keep.data();
    a->mask_at.batch = a->mask_keys = a->keys;
    a->filter = filter;
    return {};
  }
  Padding p;
  p.batches = a->batches;
  p.keys = a->keys;
  p.keep = keep.data<int32_t>();
  p.lengths = rank == 1;
  p.keep_query = rank == 3 ? a->keys : 0;
  p.keep_batch = rank == 3 ? int64_t{a->queries} * a->keys : a->keys;
  p.filter = filter;
  if (call.has(bias)) {
    p.bias = call.in(bias).data();
    ReadMask(call, bias, *a, &p.bias_at, &p.bias_keys);
  }
  if (p.keep_query != 0 || p.bias_at.token != 0) p.queries = a->queries;
  if (p.bias_at.head != 0) p.heads = a->heads;
  const Tensor mask = call.Scratch(call.in(0).type, {p.batches, p.heads, p.queries, p.keys});
  p.to = mask.data();
  MakeMask(call.stream, mask.type, p);
  const Shape strides = BroadcastStrides(mask.shape, {a->batches, a->heads, a->queries, a->keys});
  a->mask_kind = Attention::kAdd;
  a->mask = mask.data();
  a->mask_at = {strides[0], strides[1], strides[2]};
  a->mask_keys = a->keys;
  return mask;
}

// Inputs: queries, keys, values, bias, padding mask, a bias of scores, the past of both.
void RunMultiHead(Call& call) {
  const Attributes& attributes = call.node.attributes;
  const Type type = call.in(0).type;
  const int64_t heads = attributes.Int("num_heads", 0);
  const Operand q = Read(call, 0, heads), k = Read(call, 1, heads), v = Read(call, 2, heads);
  const size_t size = SizeOf(type);
  // Keys and values that are ordered by heads, as those of what an encoder has seen, have theirs already.
  const bool by_head = call.in(1).shape.size() == 4;
  const auto bias_at = [&](int64_t from) { return call.has(3) && (from == 0 || !by_head) ? call.in(3).data<char>() + static_cast<size_t>(from) * size : nullptr; };
  const int64_t hidden = int64_t{q.heads} * q.width;
  if (call.has(3)) Want(call, 3, {2 * hidden + int64_t{v.heads} * v.width});
  Attention a;
  a.batches = Extent(call.in(0).shape[0]);
  a.past = PastTokens(call, 6, k, v);
  const Cache keys(call, k, 1, a.past + k.tokens, Given(call, 6), bias_at(hidden), false),
      values(call, v, 2, a.past + v.tokens, Given(call, 7), bias_at(2 * hidden), false);
  Arrangement arrangement;
  arrangement.batches = a.batches;
  arrangement.parts[1] = keys.arranged;
  arrangement.parts[2] = values.arranged;
  SetOperands(&a, q, keys, values);
  Tensor queries;
  if (call.has(3)) queries = ArrangeQueries(call, q, bias_at(0), false, &a, &arrangement.parts[0]);
  Prepare(call, arrangement);
  a.scale = ScaleOf(call, q.width);
  a.causal = attributes.Int("unidirectional", 0) != 0;
  Tensor mask;
  if (call.has(4)) {
    mask = ReadPadding(call, 4, 5, &a);
  } else if (call.has(5)) {
    a.mask_kind = Attention::kAdd;
    a.mask = call.in(5).data();
    ReadMask(call, 5, a, &a.mask_at, &a.mask_keys);
  }
  const Tensor y = call.Out(0, type, {a.batches, a.queries, int64_t{a.heads} * a.value_width});
  a.y = y.data();
  a.y_at = Places::ByToken(a.heads, a.queries, a.value_width);
  Attend(call, type, a);
}

std::string CheckMultiHead(const Graph& graph, const Node& node) {
  if (!Has(node, 1) || !Has(node, 2)) return "queries, keys and values in one input";
  if (ValueOf(graph, node, 0).rank != 3) return "queries of other than three dimensions";
  for (size_t i = 1; i < 3; ++i) {
    if (ValueOf(graph, node, i).rank != 3 && ValueOf(graph, node, i).rank != 4) return "keys and values in one input";
  }
  if (Has(node, 4) && (ValueOf(graph, node, 4).rank < 1 || ValueOf(graph, node, 4).rank > 3)) return "a padding mask of other than one to three dimensions";
  if (Has(node, 6) != Has(node, 7)) return "a past of one of keys and values";
  if (Has(node, 8) || Has(node, 9)) return "a cache that is written in place, or with beams";
  return CheckTypes(graph, node, {1, 2, 3, 5, 6, 7});
}

}  // namespace

std::vector<Operator> MultiHeadOperators() {
  Operator multi_head{"MultiHeadAttention", RunMultiHead, {kFloats, kFloats, kFloats, kFloats, Set(Type::kInt32), kFloats}};
  multi_head.domain = "com.microsoft";
  multi_head.check = CheckMultiHead;
  multi_head.attributes = "mask_filter_value num_heads scale unidirectional";
  multi_head.strided_inputs = 0b111;
  multi_head.outputs = 3;
  multi_head.heavy = true;
  return {multi_head};
}

}  // namespace cosetq::ep
