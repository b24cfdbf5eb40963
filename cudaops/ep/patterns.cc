#include "patterns.h"

#include <algorithm>

#include "attention.h"

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
  return match;
}

}  // namespace cosetq::ep
