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

struct Node {
  const OrtNode* handle = nullptr;
  std::string name, op, domain;
  int version = 0;  // since which the operator is as it is
  Attributes attributes;
  std::vector<int> inputs, outputs;  // indices of values, -1 where left out
  std::vector<int> implicit;         // values that its subgraphs use
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;  // in topological order
  std::vector<int> inputs, outputs;

  static Graph Of(const OrtGraph* graph);
};

// A constant in place, which is in the mapped file where it is external data; valid as long as the
// graph that it came from.
Tensor ReadConstant(const OrtValueInfo* info);

// A tensor of ONNX Runtime's in place.
Tensor Borrow(const OrtValue* value);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_GRAPH_H_
