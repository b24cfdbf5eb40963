#include "graph.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

namespace cosetq::ep {
namespace {

Type Handled(int number) {
  return SizeOf(static_cast<Type>(number)) == 0 ? Type::kNone : static_cast<Type>(number);
}

std::string Bytes(const OrtOpAttr* attribute, OrtOpAttrType type) {
  size_t size = 0;
  if (OrtStatus* status = ort->ReadOpAttr(attribute, type, nullptr, 0, &size))
    ort->ReleaseStatus(status);  // it told the size
  std::string bytes(size, '\0');
  if (size > 0) Check(ort->ReadOpAttr(attribute, type, bytes.data(), size, &size));
  return bytes;
}

template <typename T>
std::vector<T> List(const OrtOpAttr* attribute, OrtOpAttrType type) {
  const std::string bytes = Bytes(attribute, type);
  std::vector<T> list(bytes.size() / sizeof(T));
  if (!list.empty()) std::memcpy(list.data(), bytes.data(), list.size() * sizeof(T));
  return list;
}

template <typename Map>
const typename Map::mapped_type* Find(const Map& map, const std::string& name) {
  const auto found = map.find(name);
  return found == map.end() ? nullptr : &found->second;
}

Tensor CopyToHost(const Tensor& from) {
  Tensor copy = from;
  copy.buffer = Buffer::OnHost(from.bytes());
  if (from.bytes() > 0) std::memcpy(copy.data(), from.data(), from.bytes());
  return copy;
}

Value ValueOf(const OrtValueInfo* info) {
  Value value;
  const char* name = nullptr;
  Check(ort->GetValueInfoName(info, &name));
  value.name = name;
  const OrtTypeInfo* type = nullptr;
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  Check(ort->GetValueInfoTypeInfo(info, &type));
  if (type != nullptr) Check(ort->CastTypeInfoToTensorInfo(type, &tensor));
  if (tensor != nullptr) {
    ONNXTensorElementDataType element;
    Check(ort->GetTensorElementType(tensor, &element));
    value.type_number = element;
    value.type = Handled(element);
    if (ort->TensorTypeAndShape_HasShape(tensor)) {
      size_t rank = 0;
      Check(ort->GetDimensionsCount(tensor, &rank));
      value.rank = static_cast<int>(rank);
      value.shape.resize(rank);
      Check(ort->GetDimensions(tensor, value.shape.data(), rank));
    }
  }
  bool constant = false;
  Check(ort->ValueInfo_IsConstantInitializer(info, &constant));
  if (constant) value.constant = info;
  return value;
}

}  // namespace

Attributes Attributes::Of(const OrtNode* node) {
  Attributes out;
  size_t count = 0;
  Check(ort->Node_GetNumAttributes(node, &count));
  std::vector<const OrtOpAttr*> list(count);
  if (count > 0) Check(ort->Node_GetAttributes(node, list.data(), count));
  for (const OrtOpAttr* attribute : list) {
    if (attribute == nullptr) continue;  // optional and not set
    const char* name = nullptr;
    OrtOpAttrType type = ORT_OP_ATTR_UNDEFINED;
    Check(ort->OpAttr_GetName(attribute, &name));
    Check(ort->OpAttr_GetType(attribute, &type));
    switch (type) {
      case ORT_OP_ATTR_INT:
      case ORT_OP_ATTR_INTS:
        out.ints_[name] = List<int64_t>(attribute, type);
        break;
      case ORT_OP_ATTR_FLOAT:
      case ORT_OP_ATTR_FLOATS:
        out.floats_[name] = List<float>(attribute, type);
        break;
      case ORT_OP_ATTR_STRING: {
        std::string text = Bytes(attribute, type);
        out.strings_[name] = text.substr(0, text.find('\0'));
        break;
      }
      case ORT_OP_ATTR_TENSOR: {
        OrtValue* raw = nullptr;
        Check(ort->OpAttr_GetTensorAttributeAsOrtValue(attribute, &raw));
        Owner<OrtValue> value(raw);
        out.tensors_[name] = CopyToHost(Borrow(raw));
        break;
      }
      default:
        out.has_other_ = true;
    }
  }
  return out;
}

bool Attributes::Has(const std::string& name) const {
  return Find(ints_, name) || Find(floats_, name) || Find(strings_, name) || Find(tensors_, name);
}

std::vector<std::string> Attributes::Names() const {
  std::vector<std::string> names;
  const auto add = [&](const auto& map) {
    for (const auto& entry : map) names.push_back(entry.first);
  };
  add(ints_);
  add(floats_);
  add(strings_);
  add(tensors_);
  return names;
}

std::string Attributes::Key() const {
  std::string key;
  const auto add = [&](const std::string& name, const void* data, size_t bytes) {
    key += name + ' ' + std::to_string(bytes) + ' ';
    key.append(static_cast<const char*>(data), bytes);
  };
  for (const auto& [name, list] : ints_) add(name, list.data(), list.size() * sizeof(list[0]));
  for (const auto& [name, list] : floats_) add(name, list.data(), list.size() * sizeof(list[0]));
  for (const auto& [name, text] : strings_) add(name, text.data(), text.size());
  for (const auto& [name, tensor] : tensors_) add(name + ' ' + std::to_string(static_cast<int>(tensor.type)) + Text(tensor.shape), tensor.data(), tensor.bytes());
  return key;
}

int64_t Attributes::Int(const std::string& name, int64_t value) const {
  const auto* found = Find(ints_, name);
  return found != nullptr && !found->empty() ? found->front() : value;
}

float Attributes::Float(const std::string& name, float value) const {
  const auto* found = Find(floats_, name);
  return found != nullptr && !found->empty() ? found->front() : value;
}

std::string Attributes::String(const std::string& name, const std::string& value) const {
  const auto* found = Find(strings_, name);
  return found != nullptr ? *found : value;
}

std::vector<int64_t> Attributes::Ints(const std::string& name) const {
  const auto* found = Find(ints_, name);
  return found != nullptr ? *found : std::vector<int64_t>();
}

std::vector<float> Attributes::Floats(const std::string& name) const {
  const auto* found = Find(floats_, name);
  return found != nullptr ? *found : std::vector<float>();
}

Tensor Attributes::Value(const std::string& name) const {
  const auto* found = Find(tensors_, name);
  return found != nullptr ? *found : Tensor();
}

Tensor Borrow(const OrtValue* value) {
  Tensor tensor;
  OrtTensorTypeAndShapeInfo* raw = nullptr;
  Check(ort->GetTensorTypeAndShape(value, &raw));
  Owner<OrtTensorTypeAndShapeInfo> info(raw);
  ONNXTensorElementDataType element;
  size_t rank = 0;
  Check(ort->GetTensorElementType(raw, &element));
  Check(ort->GetDimensionsCount(raw, &rank));
  tensor.type = Handled(element);
  tensor.shape.resize(rank);
  Check(ort->GetDimensions(raw, tensor.shape.data(), rank));
  void* data = nullptr;
  Check(ort->GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  tensor.buffer = Buffer::Borrowed(data);
  return tensor;
}

Tensor ReadConstant(const OrtValueInfo* info) {
  const OrtValue* value = nullptr;
  Check(ort->ValueInfo_GetInitializerValue(info, &value));
  if (value == nullptr) throw std::runtime_error("a constant without a value");
  return Borrow(value);
}

bool Same(const Tensor& a, const Tensor& b) {
  if (a.type != b.type || a.shape != b.shape) return false;
  return a.bytes() == 0 || a.data() == b.data() || std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}

namespace {

// Reads a graph, and the bodies of its nodes with it.
class Reader {
 public:
  explicit Reader(Graph* to) : to_(to) {}

  // The values of a graph by name. A body sees those around it, unless it has others of their names.
  struct Scope {
    const Scope* outer = nullptr;
    std::unordered_map<std::string, int> values = {};
  };

  template <typename Count, typename Get, typename From>
  std::vector<int> Values(Scope* scope, Count count_of, Get get, const From* from, bool own = false) {
    size_t count = 0;
    Check(count_of(from, &count));
    std::vector<const OrtValueInfo*> infos(count);
    if (count > 0) Check(get(from, infos.data(), count));
    std::vector<int> ids;
    for (const OrtValueInfo* info : infos) ids.push_back(Find(scope, info, own));
    return ids;
  }

  std::vector<Node> Nodes(Scope* scope, const OrtGraph* graph) {
    size_t count = 0;
    Check(ort->Graph_GetNumNodes(graph, &count));
    std::vector<const OrtNode*> handles(count);
    if (count > 0) Check(ort->Graph_GetNodes(graph, handles.data(), count));
    std::vector<Node> nodes;
    for (const OrtNode* handle : handles) nodes.push_back(Read(scope, handle));
    return nodes;
  }

 private:
  // Own values are new ones in a body, whatever is around it.
  int Find(Scope* scope, const OrtValueInfo* info, bool own) {
    if (info == nullptr) return -1;
    const char* name = nullptr;
    Check(ort->GetValueInfoName(info, &name));
    if (name == nullptr || *name == 0) return -1;
    for (const Scope* at = scope; at != nullptr; at = own ? nullptr : at->outer) {
      const auto found = at->values.find(name);
      if (found != at->values.end()) return found->second;
    }
    const int id = static_cast<int>(to_->values.size());
    scope->values.emplace(name, id);
    to_->values.push_back(ValueOf(info));
    return id;
  }

  Node Read(Scope* scope, const OrtNode* handle) {
    Node node;
    node.handle = handle;
    const char* text = nullptr;
    Check(ort->Node_GetName(handle, &text));
    node.name = text;
    Check(ort->Node_GetOperatorType(handle, &text));
    node.op = text;
    Check(ort->Node_GetDomain(handle, &text));
    node.domain = text;
    if (node.domain == "ai.onnx") node.domain.clear();
    Check(ort->Node_GetSinceVersion(handle, &node.version));
    node.attributes = Attributes::Of(handle);
    node.inputs = Values(scope, ort->Node_GetNumInputs, ort->Node_GetInputs, handle);
    node.implicit = Values(scope, ort->Node_GetNumImplicitInputs, ort->Node_GetImplicitInputs, handle);
    size_t count = 0;
    Check(ort->Node_GetNumSubgraphs(handle, &count));
    std::vector<const OrtGraph*> bodies(count);
    std::vector<const char*> attributes(count);
    if (count > 0) Check(ort->Node_GetSubgraphs(handle, bodies.data(), count, attributes.data()));
    for (size_t i = 0; i < count; ++i) {
      Scope inner{scope};
      Values(&inner, ort->Graph_GetNumInitializers, ort->Graph_GetInitializers, bodies[i], true);
      Values(&inner, ort->Graph_GetNumInputs, ort->Graph_GetInputs, bodies[i], true);
      Body body;
      body.attribute = attributes[i];
      body.nodes = Nodes(&inner, bodies[i]);
      body.outputs = Values(&inner, ort->Graph_GetNumOutputs, ort->Graph_GetOutputs, bodies[i]);
      node.bodies.push_back(std::move(body));
    }
    node.outputs = Values(scope, ort->Node_GetNumOutputs, ort->Node_GetOutputs, handle, true);
    return node;
  }

  Graph* to_;
};

}  // namespace

Graph Graph::Of(const OrtGraph* graph) {
  Graph out;
  Reader reader(&out);
  Reader::Scope scope;
  out.inputs = reader.Values(&scope, ort->Graph_GetNumInputs, ort->Graph_GetInputs, graph);
  out.nodes = reader.Nodes(&scope, graph);
  out.outputs = reader.Values(&scope, ort->Graph_GetNumOutputs, ort->Graph_GetOutputs, graph);
  return out;
}

}  // namespace cosetq::ep
