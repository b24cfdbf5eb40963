// Groups of nodes that exporters write where there is an operator for the whole.

#ifndef COSETQ_EP_PATTERNS_H_
#define COSETQ_EP_PATTERNS_H_

#include <optional>
#include <vector>

#include "graph.h"
#include "operator.h"

namespace cosetq::ep {

// One node in place of several.
struct Match {
  Node node;
  const Operator* op = nullptr;
  std::vector<size_t> taken;  // those that it stands for, the last one behind the others
};

class Matcher {
 public:
  // Nodes in order; null for those that are not to be taken.
  Matcher(const Graph& graph, const std::vector<const Node*>& nodes);

  // x / sqrt(mean(x^2) + epsilon), of the last axis, and times a constant if that is all that is done with it, that begins with node i.
  std::optional<Match> Norm(size_t i) const;
  // softmax(scale q k^T + mask) v that ends with node i.
  std::optional<Match> Attention(size_t i) const;
  // x * cosine + (-x2, x1) * sine of the halves of the last axis, that ends with node i.
  std::optional<Match> Rotation(size_t i) const;

 private:
  const Node* Maker(int value, const char* op, bool alone = true) const;
  const Node* User(int value, const char* op) const;
  size_t At(const Node* node) const;
  bool Scalar(int value, float* number) const;
  bool ScalarOf(const Node& node, float* number, int* other) const;
  bool IsNumber(int value, float number) const;
  bool OverLastAxis(const Node& reduction) const;
  bool IsLastAxis(int64_t axis, int value) const;
  std::optional<std::vector<int64_t>> Integers(const Node& node, size_t input, const char* attribute) const;
  bool SwapsHeads(const Node& transpose) const;
  bool IsHalf(const Node& slice, bool second) const;
  int HalvesOf(const Node& concat, std::vector<size_t>* taken) const;
  const Value& Of(int value) const { return graph_.values[static_cast<size_t>(value)]; }

  const Graph& graph_;
  const std::vector<const Node*>& nodes_;
  std::vector<int> uses_, maker_;  // by value
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_PATTERNS_H_
