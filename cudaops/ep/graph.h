// A graph of ONNX Runtime, copied into plain structures.

#ifndef COSETQ_EP_GRAPH_H_
#define COSETQ_EP_GRAPH_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api.h"
#include "tensor.h"

namespace cosetq::ep {

// The attributes of a node. A getter returns the default where the attribute is missing.
class Attributes {
 public:
  static Attributes Of(const OrtNode* node);

  bool Has(const std::string& name) const;
  int64_t Int(const std::string& name, int64_t value) const;
  float Float(const std::string& name, float value) const;
  std::string String(const std::string& name, const std::string& value) const;
  std::vector<int64_t> Ints(const std::string& name) const;
  std::vector<float> Floats(const std::string& name) const;
  // On the host; no buffer where the attribute is missing.
  Tensor Value(const std::string& name) const;
  void Set(const std::string& name, int value) { ints_[name] = {value}; }
  void Set(const std::string& name, float value) { floats_[name] = {value}; }
  std::vector<std::string> Names() const;
  // Alike for attributes that are.
  std::string Key() const;
  // A subgraph, or something else without a getter.
  bool has_other() const { return has_other_; }

 private:
  std::map<std::string, std::vector<int64_t>> ints_;
  std::map<std::string, std::vector<float>> floats_;
  std::map<std::string, std::string> strings_;
  std::map<std::string, Tensor> tensors_;
  bool has_other_ = false;
};

// What is known of a value before a run.
struct Value {
  std::string name;
  Type type = Type::kNone;  // kNone: not a tensor, or of a type that the provider does not handle
  int type_number = 0;      // ONNX's
  int rank = -1;            // -1: unknown
  Shape shape;              // -1: unknown; empty where the rank is
  const OrtValueInfo* constant = nullptr;  // an initializer that cannot be overridden
};

struct Node;

// What a node holds in an attribute, such as a branch of an If. Its values stand among those of the graph around it.
struct Body {
  std::string attribute;
  std::vector<Node> nodes;
  std::vector<int> outputs;
};

struct Node {
  const OrtNode* handle = nullptr;
  std::string name, op, domain;
  int version = 0;  // since which the operator is as it is
  Attributes attributes;
  std::vector<int> inputs, outputs;  // indices of values, -1 where left out
  std::vector<int> implicit;         // values around it that its bodies use
  std::vector<Body> bodies;
  int branch = -1;  // the one that it stands in, see branches.h; -1: none
};

// What runs where a condition, a value, is true, or where it is not; and the branch that the condition stands in, -1 for none.
struct Branch {
  int condition;
  bool truth;
  int outer;
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;  // in topological order
  std::vector<int> inputs, outputs;
  std::vector<Branch> branches;  // outer ones first

  static Graph Of(const OrtGraph* graph);
};

// A constant in place, which is in the mapped file where it is external data; valid as long as the
// graph that it came from.
Tensor ReadConstant(const OrtValueInfo* info);

// A tensor of ONNX Runtime's in place.
Tensor Borrow(const OrtValue* value);

// Whether two tensors of the host are of one type and shape and have the same bytes.
bool Same(const Tensor& a, const Tensor& b);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_GRAPH_H_
