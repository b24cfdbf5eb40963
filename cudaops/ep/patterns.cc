#include "patterns.h"

#include <algorithm>

#include "attention.h"
#include "rotary.h"

namespace cosetq::ep {
namespace {

bool IsOp(const Node& node, const char* op) { return node.domain.empty() && node.op == op; }

}  // namespace

Matcher::Matcher(const Graph& graph, const std::vector<const Node*>& nodes)
    : graph_(graph), nodes_(nodes), uses_(graph.values.size(), 0), maker_(graph.values.size(), -1) {
  for (const Node& node : graph.nodes) {
    for (int v : node.inputs) {
      if (v >= 0) ++uses_[static_cast<size_t>(v)];
    }
  }
  for (int v : graph.outputs) uses_[static_cast<size_t>(v)] += 2;
  for (const Branch& b : graph.branches) uses_[static_cast<size_t>(b.condition)] += 2;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i] == nullptr) continue;
    for (int v : nodes[i]->outputs) {
      if (v >= 0) maker_[static_cast<size_t>(v)] = static_cast<int>(i);
    }
  }
}

// The node that makes a value, if it is of a kind, and, if it is to be alone, nothing else uses the value.
const Node* Matcher::Maker(int value, const char* op, bool alone) const {
  if (value < 0) return nullptr;
  const auto v = static_cast<size_t>(value);
  if (maker_[v] < 0 || (alone && uses_[v] != 1)) return nullptr;
  const Node* node = nodes_[static_cast<size_t>(maker_[v])];
  return IsOp(*node, op) ? node : nullptr;
}

// The node that alone uses a value, if it is of a kind.
const Node* Matcher::User(int value, const char* op) const {
  if (uses_[static_cast<size_t>(value)] != 1) return nullptr;
  for (const Node* node : nodes_) {
    if (node != nullptr && IsOp(*node, op) && std::find(node->inputs.begin(), node->inputs.end(), value) != node->inputs.end()) return node;
  }
  return nullptr;
}

size_t Matcher::At(const Node* node) const { return static_cast<size_t>(maker_[static_cast<size_t>(node->outputs[0])]); }

bool Matcher::Scalar(int value, float* number) const {
  if (value < 0 || Of(value).constant == nullptr || (Set(Of(value).type) & kFloats) == 0) return false;
  const Tensor tensor = ReadConstant(Of(value).constant);
  if (tensor.count() != 1) return false;
  *number = tensor.type == Type::kHalf ? ToFloat(*tensor.data<Half>()) : *tensor.data<float>();
  return true;
}

// The constant number and the other one of two inputs.
bool Matcher::ScalarOf(const Node& node, float* number, int* other) const {
  for (size_t i = 0; i < 2; ++i) {
    if (!Scalar(node.inputs[i], number)) continue;
    *other = node.inputs[1 - i];
    return true;
  }
  return false;
}

bool Matcher::IsNumber(int value, float number) const {
  float own = 0;
  return Scalar(value, &own) && own == number;
}

bool Matcher::OverLastAxis(const Node& reduction) const {
  const int rank = Of(reduction.inputs[0]).rank;
  std::vector<int64_t> axes = reduction.attributes.Ints("axes");
  if (reduction.inputs.size() > 1 && reduction.inputs[1] >= 0) {
    const Value& value = Of(reduction.inputs[1]);
    if (value.constant == nullptr || value.type != Type::kInt64) return false;
    const Tensor tensor = ReadConstant(value.constant);
    axes.assign(tensor.data<int64_t>(), tensor.data<int64_t>() + tensor.count());
  }
  return reduction.attributes.Int("keepdims", 1) != 0 && axes.size() == 1 && (axes[0] == -1 || (rank > 0 && axes[0] == rank - 1));
}

std::optional<Match> Matcher::Norm(size_t i) const {
  const Node& square = *nodes_[i];
  const bool power = IsOp(square, "Pow") && IsNumber(square.inputs[1], 2);
  if (!power && !(IsOp(square, "Mul") && square.inputs[0] == square.inputs[1])) return std::nullopt;
  const int x = square.inputs[0];
  // From here on by the only use of each value, which is the node that takes it.
  Match match;
  match.taken = {i};
  size_t at = i;
  const auto next = [&](const char* op) -> const Node* {
    const int v = nodes_[at]->outputs[0];
    if (uses_[static_cast<size_t>(v)] != 1) return nullptr;
    for (size_t s = at + 1; s < nodes_.size(); ++s) {
      if (nodes_[s] == nullptr || std::find(nodes_[s]->inputs.begin(), nodes_[s]->inputs.end(), v) == nodes_[s]->inputs.end()) continue;
      if (!IsOp(*nodes_[s], op)) return nullptr;
      match.taken.push_back(s);
      at = s;
      return nodes_[s];
    }
    return nullptr;
  };
  const Node* mean = next("ReduceMean");
  if (mean == nullptr || !OverLastAxis(*mean)) return std::nullopt;
  float epsilon = 0;
  int unused = 0;
  const Node* sum = next("Add");
  if (sum == nullptr || !ScalarOf(*sum, &epsilon, &unused) || next("Sqrt") == nullptr) return std::nullopt;
  const int root = nodes_[at]->outputs[0];
  const Node* scaled = next("Div");
  if (scaled != nullptr && scaled->inputs[1] == root && IsNumber(scaled->inputs[0], 1)) {
    scaled = nullptr;  // 1 / root
  } else if (scaled == nullptr && next("Reciprocal") == nullptr) {
    return std::nullopt;
  }
  if (scaled == nullptr) {
    const int inverse = nodes_[at]->outputs[0];
    scaled = next("Mul");
    if (scaled == nullptr || (scaled->inputs[0] == inverse ? scaled->inputs[1] : scaled->inputs[0]) != x) return std::nullopt;
  } else if (scaled->inputs[0] != x || scaled->inputs[1] != root) {
    return std::nullopt;
  }
  const Value& value = Of(x);
  const Value& result = Of(scaled->outputs[0]);  // of more dimensions if a number is a tensor of more
  if ((Set(value.type) & kFloats) == 0 || result.type != value.type || result.rank != value.rank || value.rank < 0) return std::nullopt;
  match.node = *scaled;
  match.node.inputs = {x};
  // A constant row by which all is multiplied.
  const std::vector<size_t> without = match.taken;
  const int normal = scaled->outputs[0];
  if (const Node* product = next("Mul")) {
    const int weight = product->inputs[0] == normal ? product->inputs[1] : product->inputs[0];
    const Value& w = Of(weight);
    const int64_t columns = value.rank > 0 && value.shape.size() == static_cast<size_t>(value.rank) ? value.shape.back() : -1;
    if (weight != normal && w.constant != nullptr && w.type == value.type && w.rank > 0 && w.rank <= value.rank && columns > 0 && w.shape.back() == columns &&
        Count(w.shape) == columns) {
      match.node.inputs.push_back(weight);
      match.node.outputs = product->outputs;
    } else {
      match.taken = without;
    }
  }
  match.node.op = "RMSNormalization";
  match.node.attributes = Attributes();
  match.node.attributes.Set("epsilon", epsilon);
  match.op = FindOperator(match.node.domain, match.node.op);
  return match;
}

std::optional<Match> Matcher::Attention(size_t i) const {
  const Node& last = *nodes_[i];
  if (!IsOp(last, "MatMul")) return std::nullopt;
  Match match;
  const auto taken = [&](const Node* node) {
    match.taken.push_back(At(node));
    return node;
  };
  const Node* softmax = Maker(last.inputs[0], "Softmax");
  bool nan_is_zero = false;
  if (const Node* where = Maker(last.inputs[0], "Where")) {
    const Node* test = Maker(where->inputs[0], "IsNaN");
    if (test == nullptr || test->inputs[0] != where->inputs[2] || !IsNumber(where->inputs[1], 0) || uses_[static_cast<size_t>(where->inputs[2])] != 2)
      return std::nullopt;
    softmax = Maker(where->inputs[2], "Softmax", false);
    nan_is_zero = true;
    taken(where);
    taken(test);
  }
  if (softmax == nullptr) return std::nullopt;
  taken(softmax);
  const int rank = Of(softmax->inputs[0]).rank;
  const int64_t axis = softmax->attributes.Int("axis", softmax->version < 13 ? 1 : -1);
  if ((rank != 3 && rank != 4) || (axis != -1 && axis != rank - 1)) return std::nullopt;
  int scores = softmax->inputs[0], mask = -1;
  if (const Node* sum = Maker(scores, "Add")) {
    taken(sum);
    const auto product = [&](int v) {
      const Node* scaled = Maker(v, "Mul") != nullptr ? Maker(v, "Mul") : Maker(v, "Div");
      return Maker(v, "MatMul") != nullptr || (scaled != nullptr && (Maker(scaled->inputs[0], "MatMul") != nullptr || Maker(scaled->inputs[1], "MatMul") != nullptr));
    };
    const size_t first = product(sum->inputs[0]) ? 0 : 1;
    scores = sum->inputs[first];
    mask = sum->inputs[1 - first];
    if (Of(mask).rank < 1 || Of(mask).rank > rank) return std::nullopt;
  }
  float scale = 1;
  if (const Node* scaled = Maker(scores, "Mul")) {
    if (!ScalarOf(*scaled, &scale, &scores)) return std::nullopt;
    taken(scaled);
  } else if (const Node* divided = Maker(scores, "Div")) {
    if (!Scalar(divided->inputs[1], &scale)) return std::nullopt;
    scores = divided->inputs[0];
    scale = 1 / scale;
    taken(divided);
  }
  const Node* product = Maker(scores, "MatMul");
  if (product == nullptr) return std::nullopt;
  taken(product);
  // What queries or keys are multiplied by first is a part of the scale.
  const auto unscaled = [&](int v) {
    float factor = 1;
    int other = v;
    if (const Node* scaled = Maker(v, "Mul")) {
      if (!ScalarOf(*scaled, &factor, &other) || Of(other).rank != rank) return v;
      taken(scaled);
      scale *= factor;
    } else if (const Node* divided = Maker(v, "Div")) {
      if (!Scalar(divided->inputs[1], &factor) || Of(divided->inputs[0]).rank != rank) return v;
      other = divided->inputs[0];
      taken(divided);
      scale /= factor;
    }
    return other;
  };
  const int queries = unscaled(product->inputs[0]);
  int keys = unscaled(product->inputs[1]);
  bool across = true;
  if (const Node* transpose = Maker(keys, "Transpose")) {
    std::vector<int64_t> perm = transpose->attributes.Ints("perm");
    for (size_t d = 0; d < perm.size(); ++d) perm[d] -= static_cast<int64_t>(d);
    const std::vector<int64_t> swap = rank == 3 ? std::vector<int64_t>{0, 1, -1} : std::vector<int64_t>{0, 0, 1, -1};
    if (perm == swap) {
      taken(transpose);
      keys = unscaled(transpose->inputs[0]);
      across = false;
    }
  }
  match.node = last;
  match.node.inputs = {queries, keys, last.inputs[1]};
  if (mask >= 0) match.node.inputs.push_back(mask);
  for (int v : match.node.inputs) {
    if (Of(v).type != Of(last.outputs[0]).type || (v != mask && Of(v).rank != rank)) return std::nullopt;
  }
  match.node.attributes = Attributes();
  match.node.attributes.Set("scale", scale);
  match.node.attributes.Set("across", across ? 1 : 0);
  match.node.attributes.Set("nan_is_zero", nan_is_zero ? 1 : 0);
  match.op = &MatchedAttention();
  match.taken.push_back(i);
  // Results may be written where a Transpose would move them.
  const Node* swap = User(last.outputs[0], "Transpose");
  if (swap != nullptr && rank == 4 && SwapsHeads(*swap)) {
    match.node.outputs = swap->outputs;
    match.node.attributes.Set("swapped", 1);
    match.taken.push_back(At(swap));
  }
  return match;
}

bool Matcher::IsLastAxis(int64_t axis, int value) const { return axis == -1 || (Of(value).rank > 0 && axis == Of(value).rank - 1); }

// Constant integers, of an input or, in old versions, an attribute; empty where there are neither.
std::optional<std::vector<int64_t>> Matcher::Integers(const Node& node, size_t input, const char* attribute) const {
  if (input >= node.inputs.size() || node.inputs[input] < 0) return node.attributes.Ints(attribute);
  const Value& value = Of(node.inputs[input]);
  if (value.constant == nullptr || (value.type != Type::kInt64 && value.type != Type::kInt32)) return std::nullopt;
  const Tensor tensor = ReadConstant(value.constant);
  if (tensor.type == Type::kInt64) return std::vector<int64_t>(tensor.data<int64_t>(), tensor.data<int64_t>() + tensor.count());
  return std::vector<int64_t>(tensor.data<int32_t>(), tensor.data<int32_t>() + tensor.count());
}

// Whether a Slice has the first or the second half of the last axis of its input.
bool Matcher::IsHalf(const Node& slice, bool second) const {
  const Value& x = Of(slice.inputs[0]);
  const int64_t width = x.shape.empty() ? -1 : x.shape.back();
  const auto starts = Integers(slice, 1, "starts"), ends = Integers(slice, 2, "ends"), axes = Integers(slice, 3, "axes"), steps = Integers(slice, 4, "steps");
  if (width < 2 || width % 2 != 0 || !starts || !ends || !axes || !steps || starts->size() != 1 || ends->size() != 1 || axes->size() != 1 ||
      !IsLastAxis(axes->front(), slice.inputs[0]) || (!steps->empty() && *steps != std::vector<int64_t>{1}))
    return false;
  const int64_t from = second ? width / 2 : 0, to = second ? width : width / 2, start = starts->front(), end = ends->front();
  // Below 0 they count from the end, but an end of 0 is the begin.
  const auto is = [&](int64_t at, int64_t place) { return at == place || (at < 0 && at + width == place); };
  return is(start, from) && (is(end, to) || (second && end > width));
}

// Of a Concat of the negative second half of something and its first half: that, or -1.
int Matcher::HalvesOf(const Node& concat, std::vector<size_t>* taken) const {
  if (concat.inputs.size() != 2 || !IsLastAxis(concat.attributes.Int("axis", 1), concat.outputs[0])) return -1;
  const Node* negative = Maker(concat.inputs[0], "Neg");
  if (negative == nullptr) return -1;
  const int first = concat.inputs[1], second = negative->inputs[0];
  taken->insert(taken->end(), {At(&concat), At(negative)});
  const Node *low = Maker(first, "Slice"), *high = Maker(second, "Slice"), *split = Maker(first, "Split");
  if (low != nullptr && high != nullptr && low->inputs[0] == high->inputs[0] && IsHalf(*low, false) && IsHalf(*high, true)) {
    taken->insert(taken->end(), {At(low), At(high)});
    return low->inputs[0];
  }
  if (split == nullptr || split != Maker(second, "Split") || split->outputs != std::vector<int>{first, second} ||
      !IsLastAxis(split->attributes.Int("axis", 0), split->inputs[0]))
    return -1;
  const Value& x = Of(split->inputs[0]);
  const auto sizes = Integers(*split, 1, "split");
  if (!sizes || (sizes->empty() ? x.shape.empty() || x.shape.back() < 2 || x.shape.back() % 2 != 0 : sizes->size() != 2 || (*sizes)[0] != (*sizes)[1])) return -1;
  taken->push_back(At(split));
  return split->inputs[0];
}

// Whether a node swaps tokens and heads, the second and third of four dimensions.
bool Matcher::SwapsHeads(const Node& transpose) const { return Of(transpose.inputs[0]).rank == 4 && transpose.attributes.Ints("perm") == std::vector<int64_t>{0, 2, 1, 3}; }

std::optional<Match> Matcher::Rotation(size_t i) const {
  const Node& sum = *nodes_[i];
  if (!IsOp(sum, "Add")) return std::nullopt;
  for (size_t side = 0; side < 2; ++side) {
    const Node *plain = Maker(sum.inputs[side], "Mul"), *turned = Maker(sum.inputs[1 - side], "Mul");
    if (plain == nullptr || turned == nullptr || plain == turned) return std::nullopt;
    for (size_t t = 0; t < 2; ++t) {
      const Node* concat = Maker(turned->inputs[t], "Concat");
      if (concat == nullptr) continue;
      Match match;
      int x = HalvesOf(*concat, &match.taken);
      const auto own = std::find(plain->inputs.begin(), plain->inputs.end(), x) - plain->inputs.begin();
      if (x < 0 || own == 2) continue;
      const int cosine = plain->inputs[static_cast<size_t>(1 - own)], sine = turned->inputs[1 - t];
      match.node = sum;
      match.node.attributes = Attributes();
      // Heads may be read where they are ahead of a Transpose, if nothing else than this uses what it gives: the product, and a Split or two Slices.
      const Node* transpose = Maker(x, "Transpose", false);
      const int of_this = 1 + static_cast<int>(match.taken.size()) - 2;
      if (transpose != nullptr && uses_[static_cast<size_t>(x)] == of_this && cosine != x && sine != x && SwapsHeads(*transpose)) {
        match.taken.push_back(At(transpose));
        match.node.attributes.Set("swapped", 1);
        x = transpose->inputs[0];
      }
      match.node.inputs = {x, cosine, sine};
      match.taken.insert(match.taken.end(), {At(plain), At(turned), i});
      match.op = &MatchedRotation();
      const Value &of = Of(x), &result = Of(sum.outputs[0]);
      if ((Set(of.type) & kFloats) == 0 || result.type != of.type || result.rank != of.rank || of.rank < 1) return std::nullopt;
      return match;
    }
  }
  return std::nullopt;
}

}  // namespace cosetq::ep
