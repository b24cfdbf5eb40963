// Attention of ONNX, and MultiHeadAttention and GroupQueryAttention of ONNX Runtime.

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <iterator>
#include <stdexcept>

#include "attention.h"

namespace cosetq::ep {
namespace {

int64_t Quotient(const Call& call, int64_t whole, int64_t parts) {
  if (parts < 1 || whole % parts != 0)
    throw std::invalid_argument(call.node.op + ": " + std::to_string(whole) + " do not divide among " + std::to_string(parts) + " heads");
  return whole / parts;
}

void Want(const Call& call, size_t input, const Shape& shape) {
  if (call.in(input).shape != shape)
    throw std::invalid_argument(call.node.op + ": input " + std::to_string(input) + " is " + Text(call.in(input).shape) + ", want " + Text(shape));
}

bool Wants(const Call& call, size_t output) { return output < call.node.outputs.size() && call.node.outputs[output] >= 0; }

// Queries, keys or values as they come: [batch, heads, tokens, width], or [batch, tokens, heads * width].
struct Operand {
  const void* data = nullptr;
  int heads = 0, tokens = 0, width = 0;
  Places at;
};

Operand Read(const Call& call, size_t input, int64_t heads) {
  const Tensor& x = call.in(input);
  if (x.shape.empty() || x.shape[0] != call.in(0).shape[0])
    throw std::invalid_argument(call.node.op + ": input " + std::to_string(input) + " is " + Text(x.shape) + ", for queries of " + Text(call.in(0).shape));
  if (x.shape.size() == 4)
    return {x.data(), Extent(x.shape[1]), Extent(x.shape[2]), Extent(x.shape[3]), Places::ByHead(x.shape[1], x.shape[2], x.shape[3])};
  if (x.shape.size() != 3) throw std::invalid_argument(call.node.op + " of " + Text(x.shape));
  const int64_t width = Quotient(call, x.shape[2], heads);
  return {x.data(), Extent(heads), Extent(x.shape[1]), Extent(width), Places::ByToken(heads, x.shape[1], width)};
}

// A mask or bias that is repeated along batches, heads and queries where it has one of them.
void ReadMask(const Call& call, size_t input, const Attention& a, Places* at, int* keys) {
  Shape shape = call.in(input).shape;
  if (shape.empty()) throw std::invalid_argument(call.node.op + ": a mask without dimensions");
  shape.insert(shape.begin(), shape.size() < 4 ? 4 - shape.size() : 0, 1);
  *keys = Extent(shape[3]);
  const Shape strides = BroadcastStrides(shape, {a.batches, a.heads, a.queries, shape[3]});
  *at = {strides[0], strides[1], strides[2]};
}

// Where keys or values lie once the new ones follow those of the past: in an output of the node, or where they came, if there is no past and
// nothing is done to them.
class Cache {
 public:
  // room: tokens of the result. past: an input, if it is given.
  Cache(Call& call, const Operand& fresh, size_t output, int room, const Tensor* past, const void* bias, bool turned) {
    const Type type = call.in(0).type;
    const int64_t batches = call.in(0).shape[0];
    arranged.heads = fresh.heads;
    arranged.width = fresh.width;
    arranged.added = fresh.tokens;
    arranged.room = room;
    at = fresh.at;
    data = fresh.data;
    if (!Wants(call, output) && past == nullptr && bias == nullptr && !turned && room == fresh.tokens) return;
    const Shape shape = {batches, fresh.heads, room, fresh.width};
    memory_ = Wants(call, output) ? call.Out(output, type, shape) : call.Scratch(type, shape);
    arranged.from = fresh.data;
    arranged.from_at = fresh.at;
    arranged.to = memory_.data();
    arranged.cache = true;
    arranged.bias = bias;
    arranged.turned = turned;
    if (past != nullptr) {
      arranged.past = past->data();
      arranged.past_room = Extent(past->shape[2]);
    }
    at = Places::ByHead(fresh.heads, room, fresh.width);
    data = memory_.data();
  }

  Arranged arranged;
  Places at;
  const void* data = nullptr;

 private:
  Tensor memory_;
};

// Has queries arranged to memory of their own, which is to be kept: with a bias, or turned.
Tensor ArrangeQueries(const Call& call, const Operand& q, const void* bias, bool turned, Attention* a, Arranged* out) {
  const Tensor to = call.Scratch(call.in(0).type, {a->batches, a->heads, a->queries, a->width});
  out->from = q.data;
  out->from_at = q.at;
  out->to = to.data();
  out->heads = q.heads;
  out->width = q.width;
  out->added = out->room = q.tokens;
  out->bias = bias;
  out->turned = turned;
  a->q = to.data();
  a->q_at = Places::ByHead(a->heads, a->queries, a->width);
  return to;
}

void Prepare(Call& call, const Arrangement& arrangement) {
  const bool any = std::any_of(std::begin(arrangement.parts), std::end(arrangement.parts), [](const Arranged& a) { return a.from != nullptr; });
  if (any) Arrange(call.stream, call.in(0).type, arrangement);
}

const Tensor* Given(const Call& call, size_t input) { return call.has(input) ? &call.in(input) : nullptr; }

int PastTokens(const Call& call, size_t input, const Operand& fresh) {
  if (!call.has(input)) return 0;
  const Shape& shape = call.in(input).shape;
  if (shape.size() != 4) throw std::invalid_argument(call.node.op + ": a past of " + Text(shape));
  Want(call, input, {call.in(0).shape[0], fresh.heads, shape[2], fresh.width});
  return Extent(shape[2]);
}

// Of keys, and of values in the input that follows.
int PastTokens(const Call& call, size_t input, const Operand& k, const Operand& v) {
  const int keys = PastTokens(call, input, k), values = PastTokens(call, input + 1, v);
  if (keys != values)
    throw std::invalid_argument(call.node.op + ": a past of " + std::to_string(keys) + " keys and " + std::to_string(values) + " values");
  return keys;
}

float ScaleOf(const Call& call, int width) {
  const float scale = call.node.attributes.Float("scale", 0);
  return scale != 0 ? scale : 1 / std::sqrt(static_cast<float>(width));
}

void SetOperands(Attention* a, const Operand& q, const Cache& k, const Cache& v) {
  a->heads = q.heads;
  a->kv_heads = k.arranged.heads;
  a->queries = q.tokens;
  a->keys = k.arranged.room;
  a->width = q.width;
  a->value_width = v.arranged.width;
  a->q = q.data;
  a->q_at = q.at;
  a->k = k.data;
  a->v = v.data;
  a->k_at = k.at;
  a->v_at = v.at;
  if (k.arranged.width != q.width || v.arranged.heads != k.arranged.heads || v.arranged.room != k.arranged.room)
    throw std::invalid_argument("attention with keys of another width than queries, or another number than values");
  if (a->kv_heads < 1 || a->heads % a->kv_heads != 0)
    throw std::invalid_argument("attention of " + std::to_string(a->heads) + " heads over " + std::to_string(a->kv_heads));
}

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

// Inputs: queries, keys, values, bias, padding mask, a bias of scores, the past of both.
void RunMultiHead(Call& call) {
  const Attributes& attributes = call.node.attributes;
  const Type type = call.in(0).type;
  const int64_t heads = attributes.Int("num_heads", 0);
  const Operand q = Read(call, 0, heads), k = Read(call, 1, heads), v = Read(call, 2, heads);
  const size_t size = SizeOf(type);
  const auto bias_at = [&](int64_t from) { return call.has(3) ? call.in(3).data<char>() + static_cast<size_t>(from) * size : nullptr; };
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
  if (call.has(5)) {
    a.mask_kind = Attention::kAdd;
    a.mask = call.in(5).data();
    ReadMask(call, 5, a, &a.mask_at, &a.mask_keys);
  } else if (call.has(4)) {
    Want(call, 4, {a.batches, a.keys});
    a.mask_kind = Attention::kPadding;
    a.mask = call.in(4).data();
    a.mask_at.batch = a.mask_keys = a.keys;
    a.filter = attributes.Float("mask_filter_value", -10000);
  }
  const Tensor y = call.Out(0, type, {a.batches, a.queries, int64_t{a.heads} * a.value_width});
  a.y = y.data();
  a.y_at = Places::ByToken(a.heads, a.queries, a.value_width);
  Attend(call, type, a);
}

// The queries, keys and values of one tensor, [batch, tokens, (heads + 2 kv_heads) * width].
void Unpack(const Call& call, int64_t heads, int64_t kv_heads, Operand* q, Operand* k, Operand* v) {
  const Operand all = Read(call, 0, heads + 2 * kv_heads);
  const size_t head = static_cast<size_t>(all.width) * SizeOf(call.in(0).type);
  const auto from = [&](int64_t first, int64_t count) {
    Operand o = all;
    o.data = static_cast<const char*>(all.data) + static_cast<size_t>(first) * head;
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
  a.causal = true;
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

bool Has(const Node& node, size_t input) { return input < node.inputs.size() && node.inputs[input] >= 0; }

const Value& ValueOf(const Graph& graph, const Node& node, size_t input) { return graph.values[static_cast<size_t>(node.inputs[input])]; }

std::string CheckTypes(const Graph& graph, const Node& node, std::initializer_list<size_t> alike) {
  for (size_t i : alike) {
    if (Has(node, i) && ValueOf(graph, node, i).type != ValueOf(graph, node, 0).type) return "inputs of different types";
  }
  return "";
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

std::string CheckMultiHead(const Graph& graph, const Node& node) {
  if (!Has(node, 1) || !Has(node, 2)) return "queries, keys and values in one input";
  if (ValueOf(graph, node, 0).rank != 3) return "queries of other than three dimensions";
  for (size_t i = 1; i < 3; ++i) {
    if (ValueOf(graph, node, i).rank != 3 && ValueOf(graph, node, i).rank != 4) return "keys and values in one input";
  }
  if (ValueOf(graph, node, 1).rank == 4 && Has(node, 3)) return "a bias of keys that are ordered by heads";
  if (Has(node, 4) && ValueOf(graph, node, 4).rank != 2) return "a padding mask of other than two dimensions";
  if (Has(node, 4) && Has(node, 5)) return "both a padding mask and a bias of scores";
  if (Has(node, 6) != Has(node, 7)) return "a past of one of keys and values";
  if (Has(node, 8) || Has(node, 9)) return "a cache that is written in place, or with beams";
  return CheckTypes(graph, node, {1, 2, 3, 5, 6, 7});
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
  if (attributes.Int("causal", 1) != 1) return "queries that see later keys";
  if (attributes.Int("do_rotary", 0) != 0 && (!Has(node, 7) || !Has(node, 8))) return "rotary embedding without cosines and sines";
  return CheckTypes(graph, node, {1, 2, 3, 4, 7, 8, 10, 11});
}

}  // namespace

std::vector<Operator> AttentionOperators() {
  constexpr TypeSet kInt32 = Set(Type::kInt32), kInt64 = Set(Type::kInt64);
  Operator attention{"Attention", RunAttention, {kFloats, kFloats, kFloats, kFloats | kBool, kFloats, kFloats, kInt64}};
  attention.check = CheckAttention;
  attention.attributes = "is_causal kv_num_heads left_window_size q_num_heads qk_matmul_output_mode right_window_size scale softcap softmax_precision";
  Operator multi_head{"MultiHeadAttention", RunMultiHead, {kFloats, kFloats, kFloats, kFloats, kInt32, kFloats}};
  multi_head.domain = "com.microsoft";
  multi_head.check = CheckMultiHead;
  multi_head.attributes = "mask_filter_value num_heads scale unidirectional";
  Operator group_query{"GroupQueryAttention", RunGroupQuery, {kFloats, kFloats, kFloats, kFloats, kFloats, kInt32, kInt32, kFloats, kFloats, kInt64, kFloats}};
  group_query.domain = "com.microsoft";
  group_query.host_inputs = 1u << 6;
  group_query.check = CheckGroupQuery;
  // Those of norms and quantization are of inputs that are refused.
  group_query.attributes =
      "causal do_rotary k_norm_epsilon k_quant_type kv_cache_bit_width kv_num_heads local_window_size num_heads q_norm_epsilon qk_norm_epsilon "
      "qk_output rotary_interleaved scale sliding_window_cache smooth_softmax softcap v_quant_type";
  for (Operator* op : {&attention, &multi_head, &group_query}) {
    op->outputs = 3;
    op->heavy = true;
  }
  return {attention, multi_head, group_query};
}

}  // namespace cosetq::ep
