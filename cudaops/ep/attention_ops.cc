// Attention of ONNX, and GroupQueryAttention of ONNX Runtime.

#include <algorithm>
#include <stdexcept>

#include "attention_operands.h"

namespace cosetq::ep {
namespace {

// Inputs: queries, keys, values, mask, the past of both, lengths. Outputs: the result, keys and values with the past.
void RunAttention(Call& call) {
  const Attributes& attributes = call.node.attributes;
  const Type type = call.in(0).type;
  const int64_t kv_heads = attributes.Int("kv_num_heads", 0);
  const Operand q = Read(call, 0, attributes.Int("q_num_heads", 0)), k = Read(call, 1, kv_heads), v = Read(call, 2, kv_heads);
  Attention a;
  a.batches = Extent(call.in(0).shape[0]);
  a.past = PastTokens(call, 4, k, v);
  Arrangement arrangement;
  arrangement.batches = a.batches;
  const Cache keys(call, k, 1, a.past + k.tokens, Given(call, 4), nullptr, false), values(call, v, 2, a.past + v.tokens, Given(call, 5), nullptr, false);
  arrangement.parts[1] = keys.arranged;
  arrangement.parts[2] = values.arranged;
  Prepare(call, arrangement);
  SetOperands(&a, q, keys, values);
  a.scale = ScaleOf(call, q.width);
  a.cap = attributes.Float("softcap", 0);
  a.causal = attributes.Int("is_causal", 0) != 0;
  if (call.has(3)) {
    a.mask_kind = call.in(3).type == Type::kBool ? Attention::kKeep : Attention::kAdd;
    a.mask = call.in(3).data();
    ReadMask(call, 3, a, &a.mask_at, &a.mask_keys);
  }
  if (call.has(6)) {
    Want(call, 6, {a.batches});
    a.lengths.count = call.in(6).data<int64_t>();
    a.past = -1;
  }
  const bool by_head = call.in(0).shape.size() == 4;
  const Tensor y = call.Out(0, type, by_head ? Shape{a.batches, a.heads, a.queries, a.value_width} : Shape{a.batches, a.queries, int64_t{a.heads} * a.value_width});
  a.y = y.data();
  a.y_at = by_head ? Places::ByHead(a.heads, a.queries, a.value_width) : Places::ByToken(a.heads, a.queries, a.value_width);
  Attend(call, type, a);
}

// The queries, keys and values of one tensor, [batch, tokens, (heads + 2 kv_heads) * width].
void Unpack(Call& call, int64_t heads, int64_t kv_heads, Operand* q, Operand* k, Operand* v) {
  const Operand all = Read(call, 0, heads + 2 * kv_heads);
  const int64_t head = all.at.head * static_cast<int64_t>(SizeOf(call.in(0).type));
  const auto from = [&](int64_t first, int64_t count) {
    Operand o = all;
    o.data = static_cast<const char*>(all.data) + first * head;
    o.heads = Extent(count);
    return o;
  };
  *q = from(0, heads);
  *k = from(heads, kv_heads);
  *v = from(heads + kv_heads, kv_heads);
}

// Inputs: queries, keys, values, the past of both, the last token of each batch, their number, cosines, sines, positions, a bias of scores,
// a score without a key. Outputs: the result, keys and values with the past.
void RunGroupQuery(Call& call) {
  const Attributes& attributes = call.node.attributes;
  const Type type = call.in(0).type;
  const int64_t heads = attributes.Int("num_heads", 0), kv_heads = attributes.Int("kv_num_heads", 0);
  Operand q, k, v;
  if (call.has(1)) {
    q = Read(call, 0, heads);
    k = Read(call, 1, kv_heads);
    v = Read(call, 2, kv_heads);
  } else {
    Unpack(call, heads, kv_heads, &q, &k, &v);
  }
  if (k.tokens != q.tokens || v.tokens != q.tokens)
    throw std::invalid_argument("GroupQueryAttention: " + std::to_string(q.tokens) + " queries, " + std::to_string(k.tokens) + " keys and " + std::to_string(v.tokens) + " values");
  Attention a;
  a.batches = Extent(call.in(0).shape[0]);
  if (call.in(5).count() != a.batches) throw std::invalid_argument("GroupQueryAttention: seqlens_k is " + Text(call.in(5).shape));
  const int64_t total = call.Integers(6).at(0);
  const int past = PastTokens(call, 3, k, v), room = Extent(std::max<int64_t>(past, total));
  if (total < q.tokens) throw std::invalid_argument("GroupQueryAttention: total_sequence_length " + std::to_string(total) + " for " + std::to_string(q.tokens) + " tokens");
  if (total - q.tokens > past)
    throw std::invalid_argument("GroupQueryAttention: total_sequence_length " + std::to_string(total) + " for " + std::to_string(q.tokens) + " tokens after a past of " + std::to_string(past));
  const bool turned = attributes.Int("do_rotary", 0) != 0;
  Arrangement arrangement;
  arrangement.batches = a.batches;
  arrangement.lengths.last = call.in(5).data<int32_t>();
  arrangement.prompt = total == q.tokens;
  const Cache keys(call, k, 1, room, Given(call, 3), nullptr, turned), values(call, v, 2, room, Given(call, 4), nullptr, false);
  arrangement.parts[1] = keys.arranged;
  arrangement.parts[2] = values.arranged;
  SetOperands(&a, q, keys, values);
  Tensor queries;
  if (turned) {
    const Tensor& cosine = call.in(7);
    if (cosine.shape.size() != 2 || call.in(8).shape != cosine.shape || 2 * cosine.shape[1] > q.width)
      throw std::invalid_argument("GroupQueryAttention: cosines and sines of " + Text(cosine.shape));
    arrangement.angles = {cosine.data(), call.in(8).data(), Extent(cosine.shape[0]), Extent(2 * cosine.shape[1]),
                          attributes.Int("rotary_interleaved", 0) != 0};
    if (call.has(9)) {
      if (call.in(9).count() != int64_t{a.batches} * q.tokens) throw std::invalid_argument("GroupQueryAttention: positions of " + Text(call.in(9).shape));
      arrangement.position = call.in(9).data<int64_t>();
    }
    queries = ArrangeQueries(call, q, nullptr, true, &a, &arrangement.parts[0]);
  }
  Prepare(call, arrangement);
  a.scale = ScaleOf(call, q.width);
  a.cap = attributes.Float("softcap", 0);
  a.lengths = arrangement.lengths;
  a.causal = attributes.Int("causal", 1) != 0;
  a.past = arrangement.prompt ? 0 : -1;
  a.window = Extent(std::max<int64_t>(0, attributes.Int("local_window_size", -1)));
  if (call.has(10)) {
    a.mask_kind = Attention::kAdd;
    a.mask = call.in(10).data();
    ReadMask(call, 10, a, &a.mask_at, &a.mask_keys);
  }
  if (call.has(11)) {
    Want(call, 11, {a.heads});
    a.sink = call.in(11).data();
  }
  a.zero_sink = attributes.Int("smooth_softmax", 0) == 1;
  const Tensor y = call.Out(0, type, {a.batches, a.queries, int64_t{a.heads} * a.value_width});
  a.y = y.data();
  a.y_at = Places::ByToken(a.heads, a.queries, a.value_width);
  Attend(call, type, a);
}

std::string CheckAttention(const Graph& graph, const Node& node) {
  for (const char* name : {"left_window_size", "right_window_size"}) {
    if (node.attributes.Int(name, -1) != -1) return std::string("the attribute ") + name;
  }
  if (Has(node, 4) != Has(node, 5)) return "a past of one of keys and values";
  if (Has(node, 3) && ValueOf(graph, node, 3).type != Type::kBool && ValueOf(graph, node, 3).type != ValueOf(graph, node, 0).type)
    return "inputs of different types";
  return CheckTypes(graph, node, {1, 2, 4, 5});
}

std::string CheckGroupQuery(const Graph& graph, const Node& node) {
  const Attributes& attributes = node.attributes;
  if (Has(node, 1) != Has(node, 2)) return "one of keys and values in the input of queries";
  if (ValueOf(graph, node, 0).rank != 3) return "queries of other than three dimensions";
  if (Has(node, 3) != Has(node, 4)) return "a past of one of keys and values";
  for (size_t i = 12; i < node.inputs.size(); ++i) {
    if (Has(node, i)) return "an input after the twelfth";
  }
  for (const char* name : {"k_quant_type", "v_quant_type"}) {
    const std::string type = attributes.String(name, "NONE");
    if (!type.empty() && type != "NONE") return "a cache that is quantized";
  }
  for (const char* name : {"qk_output", "sliding_window_cache"}) {
    if (attributes.Int(name, 0) != 0) return std::string("the attribute ") + name;
  }
  if (attributes.Int("causal", 1) == 0 && attributes.Int("local_window_size", -1) > 0) return "a window of queries that see later keys";
  if (attributes.Int("do_rotary", 0) != 0 && (!Has(node, 7) || !Has(node, 8))) return "rotary embedding without cosines and sines";
  return CheckTypes(graph, node, {1, 2, 3, 4, 7, 8, 10, 11});
}

}  // namespace

std::vector<Operator> AttentionOperators() {
  constexpr TypeSet kInt32 = Set(Type::kInt32), kInt64 = Set(Type::kInt64);
  Operator attention{"Attention", RunAttention, {kFloats, kFloats, kFloats, kFloats | kBool, kFloats, kFloats, kInt64}};
  attention.check = CheckAttention;
  attention.attributes = "is_causal kv_num_heads left_window_size q_num_heads qk_matmul_output_mode right_window_size scale softcap softmax_precision";
  Operator group_query{"GroupQueryAttention", RunGroupQuery, {kFloats, kFloats, kFloats, kFloats, kFloats, kInt32, kInt32, kFloats, kFloats, kInt64, kFloats}};
  group_query.domain = "com.microsoft";
  group_query.host_inputs = 1u << 6;
  group_query.check = CheckGroupQuery;
  // Those of norms and quantization are of inputs that are refused.
  group_query.attributes =
      "causal do_rotary k_norm_epsilon k_quant_type kv_cache_bit_width kv_num_heads local_window_size num_heads q_norm_epsilon qk_norm_epsilon "
      "qk_output rotary_interleaved scale sliding_window_cache smooth_softmax softcap v_quant_type";
  for (Operator* op : {&attention, &group_query}) {
    op->strided_inputs = 0b111;
    op->outputs = 3;
    op->heavy = true;
  }
  return {attention, group_query};
}

}  // namespace cosetq::ep
