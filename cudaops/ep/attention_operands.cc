#include "attention_operands.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <stdexcept>

namespace cosetq::ep {

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

Operand Read(Call& call, size_t input, int64_t heads) {
  const Tensor& x = call.in(input);
  if (x.shape.empty() || x.shape[0] != call.in(0).shape[0])
    throw std::invalid_argument(call.node.op + ": input " + std::to_string(input) + " is " + Text(x.shape) + ", for queries of " + Text(call.in(0).shape));
  const bool by_head = x.shape.size() == 4;
  if (!by_head && x.shape.size() != 3) throw std::invalid_argument(call.node.op + " of " + Text(x.shape));
  if (by_head) heads = x.shape[1];
  const int64_t tokens = x.shape[by_head ? 2 : 1], width = by_head ? x.shape[3] : Quotient(call, x.shape[2], heads);
  Operand operand = {x.data(), Extent(heads), Extent(tokens), Extent(width), by_head ? Places::ByHead(heads, tokens, width) : Places::ByToken(heads, tokens, width)};
  if (call.lies(input) == nullptr) return operand;
  const std::optional<Strided> own = by_head ? *call.lies(input) : call.lies(input)->Reshaped({x.shape[0], tokens, heads, width});
  const std::optional<Shape> steps = own ? own->Simple() : std::nullopt;
  if (!steps || (width > 1 && steps->back() != 1)) {
    operand.data = call.Whole(input).data();
    return operand;
  }
  const auto step = [&](size_t d, int64_t* place) {
    if ((*own)[d].size() == 1) *place = (*steps)[d];
  };
  step(0, &operand.at.batch);
  step(by_head ? 1 : 2, &operand.at.head);
  step(by_head ? 2 : 1, &operand.at.token);
  return operand;
}

void ReadMask(const Call& call, size_t input, const Attention& a, Places* at, int* keys) {
  Shape shape = call.in(input).shape;
  if (shape.empty()) throw std::invalid_argument(call.node.op + ": a mask without dimensions");
  shape.insert(shape.begin(), shape.size() < 4 ? 4 - shape.size() : 0, 1);
  *keys = Extent(shape[3]);
  const Shape strides = BroadcastStrides(shape, {a.batches, a.heads, a.queries, shape[3]});
  *at = {strides[0], strides[1], strides[2]};
}

Cache::Cache(Call& call, const Operand& fresh, size_t output, int room, const Tensor* past, const void* bias, bool turned) {
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

static int PastTokens(const Call& call, size_t input, const Operand& fresh) {
  if (!call.has(input)) return 0;
  const Shape& shape = call.in(input).shape;
  if (shape.size() != 4) throw std::invalid_argument(call.node.op + ": a past of " + Text(shape));
  Want(call, input, {call.in(0).shape[0], fresh.heads, shape[2], fresh.width});
  return Extent(shape[2]);
}

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

bool Has(const Node& node, size_t input) { return input < node.inputs.size() && node.inputs[input] >= 0; }

const Value& ValueOf(const Graph& graph, const Node& node, size_t input) { return graph.values[static_cast<size_t>(node.inputs[input])]; }

std::string CheckTypes(const Graph& graph, const Node& node, std::initializer_list<size_t> alike) {
  for (size_t i : alike) {
    if (Has(node, i) && ValueOf(graph, node, i).type != ValueOf(graph, node, 0).type) return "inputs of different types";
  }
  return "";
}

}  // namespace cosetq::ep
