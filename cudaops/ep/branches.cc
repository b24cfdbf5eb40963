#include "branches.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "backend.h"
#include "execution.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

// Before 1.27 ONNX Runtime did not give a node that stands for several what only the bodies in it use.
constexpr int kFirstWithBodies = 27;

const Body* BodyOf(const Node& node, bool truth) {
  const std::string attribute = truth ? "then_branch" : "else_branch";
  const auto found = std::find_if(node.bodies.begin(), node.bodies.end(), [&](const Body& b) { return b.attribute == attribute; });
  return found == node.bodies.end() ? nullptr : &*found;
}

// Puts a node that stands in a branch, or what is in it, behind others.
void Lay(Graph* graph, Node node, int branch, std::vector<Node>* to) {
  node.branch = branch;
  if (!IsBranching(node)) {
    to->push_back(std::move(node));
    return;
  }
  std::vector<Node> outputs;
  for (const bool truth : {true, false}) {
    const Body& body = *BodyOf(node, truth);
    const int own = static_cast<int>(graph->branches.size());
    graph->branches.push_back({node.inputs[0], truth, branch});
    for (const Node& inner : body.nodes) Lay(graph, inner, own, to);
    for (size_t i = 0; i < body.outputs.size() && i < node.outputs.size(); ++i) {
      if (node.outputs[i] < 0) continue;
      Node& same = outputs.emplace_back();
      same.name = node.name;
      same.op = "Identity";
      same.inputs = {body.outputs[i]};
      same.outputs = {node.outputs[i]};
      same.branch = own;
    }
  }
  std::move(outputs.begin(), outputs.end(), std::back_inserter(*to));
}

}  // namespace

bool Truth(const Tensor& condition) {
  if (condition.count() != 1) throw std::invalid_argument("If: a condition of " + Text(condition.shape) + ", want a single truth");
  return *condition.data<bool>();
}

bool IsBranching(const Node& node) { return node.domain.empty() && node.op == "If"; }

void ForEachInside(const Node& node, const std::function<void(const Node&)>& visit) {
  for (const Body& body : node.bodies) {
    for (const Node& inner : body.nodes) {
      visit(inner);
      ForEachInside(inner, visit);
    }
  }
}

std::string RefusalOfBodies(const Graph& graph, const Node& node) {
  if (ort_minor < kFirstWithBodies) return "ONNX Runtime before 1." + std::to_string(kFirstWithBodies) + " does not give it what its branches use";
  const Operator& identity = *FindOperator("", "Identity");
  for (const bool truth : {true, false}) {
    const Body* body = BodyOf(node, truth);
    if (body == nullptr || node.inputs.size() != 1) return "not an If as the GPU kernels know it";
    const std::string where = truth ? "in its then branch, " : "in its else branch, ";
    for (const Node& inner : body->nodes) {
      const std::string why = Refusal(graph, inner);
      if (!why.empty()) return where + inner.op + (inner.name.empty() ? "" : " " + inner.name) + ": " + why;
    }
    for (int v : body->outputs) {
      const Type type = v < 0 ? Type::kNone : graph.values[static_cast<size_t>(v)].type;
      if (type == Type::kNone || (identity.types[0] & Set(type)) == 0) return where + "an output of a type that is not supported";
    }
  }
  return "";
}

Graph WithBranches(Graph graph) {
  std::vector<Node> nodes;
  for (Node& node : std::exchange(graph.nodes, {})) Lay(&graph, std::move(node), -1, &nodes);
  graph.nodes = std::move(nodes);
  return graph;
}

std::vector<size_t> Switches(const Graph& graph) {
  if (graph.branches.empty()) return {};
  const auto at = [](int v) { return static_cast<size_t>(v); };
  std::vector<bool> condition(graph.values.size(), false);
  for (const Branch& b : graph.branches) condition[at(b.condition)] = true;
  // What is told by constants, shapes and truths of the graph's inputs.
  std::vector<bool> told(graph.values.size(), false), made(graph.values.size(), false), wanted(graph.values.size(), false);
  for (size_t v = 0; v < told.size(); ++v) told[v] = graph.values[v].constant != nullptr;
  for (int v : graph.inputs) {
    const Value& value = graph.values[at(v)];
    const bool single = value.rank >= 0 && std::all_of(value.shape.begin(), value.shape.end(), [](int64_t size) { return size == 1; });
    told[at(v)] = value.type == Type::kBool && (single || condition[at(v)]);
  }
  for (const Node& node : graph.nodes) {
    bool own = true;
    for (int v : node.inputs) own = own && (v < 0 || TellsShape(node) || told[at(v)]);
    ForEachCondition(graph, node.branch, [&](size_t v) { own = own && told[v]; });
    for (int v : node.outputs) {
      if (v < 0) continue;
      told[at(v)] = own && (!made[at(v)] || told[at(v)]);
      made[at(v)] = true;
    }
  }
  for (const Branch& b : graph.branches) wanted[at(b.condition)] = told[at(b.condition)];
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    if (TellsShape(*node) || std::none_of(node->outputs.begin(), node->outputs.end(), [&](int v) { return v >= 0 && wanted[at(v)]; })) continue;
    for (int v : node->inputs) {
      if (v >= 0) wanted[at(v)] = true;
    }
    ForEachCondition(graph, node->branch, [&](size_t v) { wanted[v] = true; });
  }
  std::vector<size_t> switches;
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    if (told[at(graph.inputs[i])] && wanted[at(graph.inputs[i])]) switches.push_back(i);
  }
  return switches;
}

std::vector<bool> Program::ReadSwitches(Stream& stream, const std::vector<Tensor>& inputs) const {
  std::vector<bool> truths;
  for (size_t i : switches_) {
    Tensor truth{inputs[i].type, inputs[i].shape, Buffer::OnHost(inputs[i].bytes())};
    backend::CopyToHost(truth.data(), inputs[i].data(), truth.bytes(), stream.handle());
    backend::Synchronize(stream.handle());
    CountDownload(truth.bytes());
    truths.push_back(Truth(truth));
  }
  return truths;
}

// Has what is in a branch make the If's output itself, where an Identity would give it on. Other passes see values that are made in one place.
void Program::GiveOutputs() {
  if (graph_.branches.empty()) return;
  const auto at = [](int i) { return static_cast<size_t>(i); };
  std::vector<std::vector<int>> from(graph_.values.size());  // by value: the branches that it is made in
  std::vector<int> name(graph_.values.size());
  std::iota(name.begin(), name.end(), 0);
  for (const Step& step : steps_) {
    for (int v : step.node->outputs) {
      if (v >= 0) from[at(v)].push_back(step.branch);
    }
  }
  const auto within = [&](int branch, int outer) {
    while (branch > outer) branch = graph_.branches[at(branch)].outer;
    return branch == outer;
  };
  const auto named = [&](int v) {
    while (v >= 0 && name[at(v)] != v) v = name[at(v)];
    return v;
  };
  std::vector<bool> gone(steps_.size(), false);
  for (size_t s = 0; s < steps_.size(); ++s) {
    if (!GivesOutput(*steps_[s].node)) continue;
    const int x = named(steps_[s].node->inputs[0]), y = steps_[s].node->outputs[0], own = steps_[s].branch;
    const bool here = !from[at(x)].empty() && std::all_of(from[at(x)].begin(), from[at(x)].end(), [&](int b) { return within(b, own); });
    if (!here || fixed_[at(x)] || fixed_[at(y)]) continue;
    from[at(y)].erase(std::find(from[at(y)].begin(), from[at(y)].end(), own));
    from[at(y)].insert(from[at(y)].end(), from[at(x)].begin(), from[at(x)].end());
    name[at(x)] = y;
    gone[s] = true;
  }
  for (Step& step : steps_) {
    const auto other = [&](int v) { return named(v) != v; };
    if (std::none_of(step.node->inputs.begin(), step.node->inputs.end(), other) && std::none_of(step.node->outputs.begin(), step.node->outputs.end(), other)) continue;
    Node& node = joined_.emplace_back(*step.node);
    for (auto* list : {&node.inputs, &node.outputs}) std::transform(list->begin(), list->end(), list->begin(), named);
    step.node = &node;
  }
  for (Branch& b : graph_.branches) b.condition = named(b.condition);
  Leave(gone);
}

}  // namespace cosetq::ep
