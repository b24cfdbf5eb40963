#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "chain.h"
#include "movement.h"
#include "patterns.h"
#include "program.h"

namespace cosetq::ep {

namespace {

std::atomic<int64_t> patterns, elementwise_nodes;

}  // namespace

Joined TotalJoined() { return {patterns, elementwise_nodes}; }

void CountPattern() { ++patterns; }

// How often each value is used; what the graph puts out, or a branch hangs on, more than once.
std::vector<int> Program::Uses() const {
  std::vector<int> uses(graph_.values.size(), 0);
  for (const Step& step : steps_) {
    for (int v : step.node->inputs) {
      if (v >= 0) ++uses[static_cast<size_t>(v)];
    }
  }
  for (int v : graph_.outputs) uses[static_cast<size_t>(v)] += 2;
  for (const Branch& b : graph_.branches) uses[static_cast<size_t>(b.condition)] += 2;
  return uses;
}

void Program::Leave(const std::vector<bool>& gone) {
  std::vector<Step> left;
  for (size_t s = 0; s < steps_.size(); ++s) {
    if (!gone[s]) left.push_back(std::move(steps_[s]));
  }
  steps_ = std::move(left);
}

// Makes one step of those that stand for an operator, where the last of them was. What is made in a branch is used there, so what a branch alone uses
// of what is around it is computed in it.
void Program::FusePatterns() {
  std::vector<const Node*> nodes;
  for (const Step& step : steps_) nodes.push_back(step.fixed || step.on_host ? nullptr : step.node);
  const Matcher matcher(graph_, nodes);
  std::vector<std::optional<Match>> matches(steps_.size());
  std::vector<bool> gone(steps_.size(), false);
  for (size_t s = 0; s < steps_.size(); ++s) {
    if (nodes[s] == nullptr) continue;
    std::optional<Match> match = matcher.Norm(s);
    if (!match) match = matcher.Attention(s);
    if (!match) match = matcher.Rotation(s);
    if (!match || std::any_of(match->taken.begin(), match->taken.end(), [&](size_t t) { return gone[t] || matches[t]; })) continue;
    for (size_t t : match->taken) gone[t] = true;
    const size_t last = *std::max_element(match->taken.begin(), match->taken.end());
    gone[last] = false;
    matches[last] = std::move(match);
    CountPattern();
  }
  std::vector<Step> left;
  for (size_t s = 0; s < steps_.size(); ++s) {
    if (gone[s]) continue;
    Step& step = steps_[s];
    if (matches[s]) {
      step.node = &joined_.emplace_back(std::move(matches[s]->node));
      step.op = matches[s]->op;
    }
    left.push_back(std::move(step));
  }
  steps_ = std::move(left);
}

// Reads constant single indices of Gather now, so that what they name is known without a look at the device.
void Program::FindPicks() {
  const Operator* const gather = FindOperator("", "Gather");
  for (Step& step : steps_) {
    if (step.op != gather || step.fixed || step.on_host) continue;
    const Value& index = graph_.values[static_cast<size_t>(step.node->inputs[1])];
    if (index.constant == nullptr || index.rank != 0) continue;
    const Tensor number = ReadConstant(index.constant);
    const int64_t at = number.type == Type::kInt32 ? *number.data<int32_t>() : *number.data<int64_t>();
    if (at < INT32_MIN || at > INT32_MAX) continue;
    Node& node = joined_.emplace_back(*step.node);
    node.inputs.resize(1);
    node.attributes.Set("index", static_cast<int>(at));
    step.node = &node;
    step.op = &PickOperator();
  }
}

// Makes one step of a sum and the norm of its last dimension, which may be broadcast.
void Program::FuseSums() {
  const std::vector<int> uses = Uses();
  std::vector<int> producer(graph_.values.size(), -1);
  for (size_t s = 0; s < steps_.size(); ++s) {
    for (int v : steps_[s].node->outputs) {
      if (v >= 0) producer[static_cast<size_t>(v)] = static_cast<int>(s);
    }
  }
  const auto value = [&](int v) -> const Value& { return graph_.values[static_cast<size_t>(v)]; };
  const Operator *const add = FindOperator("", "Add"), *const layer = FindOperator("", "LayerNormalization"), *const root = FindOperator("", "RMSNormalization"),
                 *const simplified = FindOperator("", "SimplifiedLayerNormalization");
  std::vector<bool> gone(steps_.size(), false);
  for (size_t s = 0; s < steps_.size(); ++s) {
    Step& norm = steps_[s];
    const Node& own = *norm.node;
    if (norm.fixed || norm.on_host || (norm.op != layer && norm.op != root && norm.op != simplified)) continue;
    const int x = own.inputs[0], from = producer[static_cast<size_t>(x)];
    if (from < 0 || gone[static_cast<size_t>(from)]) continue;
    Step& sum = steps_[static_cast<size_t>(from)];
    const Value& of = value(x);
    const int64_t axis = own.attributes.Int("axis", -1), width = of.shape.empty() ? -1 : of.shape.back();
    if (sum.op != add || sum.branch != norm.branch || sum.fixed || sum.on_host || width < 1 || (axis != -1 && axis != of.rank - 1) || (Set(of.type) & kFloats) == 0) continue;
    const auto row = [&](size_t i) { return value(own.inputs[i]).constant != nullptr && value(own.inputs[i]).type == of.type && Count(value(own.inputs[i]).shape) == width; };
    bool rows = own.inputs.size() > 1;
    for (size_t i = 1; rows && i < own.inputs.size(); ++i) rows = own.inputs[i] < 0 ? i > 1 : row(i);
    for (size_t i = 1; rows && i < own.outputs.size(); ++i) rows = own.outputs[i] < 0;
    Instruction instruction;
    if (!rows || !sum.op->step(*sum.node, &instruction)) continue;
    Node& node = joined_.emplace_back(own);
    // Of the shapes that a run brings only those of the sum may not go together.
    node.name = sum.node->name;
    node.op = sum.node->op;
    node.inputs.erase(node.inputs.begin());
    node.inputs.insert(node.inputs.begin(), sum.node->inputs.begin(), sum.node->inputs.end());
    node.attributes.Set("centre", norm.op == layer ? 1 : 0);
    node.outputs = {own.outputs[0], uses[static_cast<size_t>(x)] == 1 ? -1 : x};
    // Where the sum was, which others may use before the norm.
    sum.state = ChainStateOf({{Instruction::kLoad, 0}, {Instruction::kLoad, 1}, instruction});
    sum.node = &node;
    sum.op = &SumNormOperator();
    gone[s] = true;
    CountPattern();
  }
  Leave(gone);
}

// Makes one step of elementwise ones each of which alone uses what the one before it gives.
void Program::FuseElementwise() {
  struct Candidate {
    Chain chain;
    Type type;                  // of all numbers in it
    std::vector<size_t> taken;  // steps that it stands for, beside the last
  };
  const std::vector<int> uses = Uses();
  std::vector<int> producer(graph_.values.size(), -1);
  const auto type_of = [&](int v) { return graph_.values[static_cast<size_t>(v)].type; };
  // The type of the numbers that a step takes one element at a time, kNone if it is another kind of step.
  const auto elementwise = [&](const Step& step, Instruction* instruction) {
    const Node& node = *step.node;
    if (step.fixed || step.on_host || step.op->step == nullptr || node.outputs.size() != 1 || !step.op->step(node, instruction) ||
        instruction->takes() != static_cast<int>(node.inputs.size()))
      return Type::kNone;
    Type type = Type::kNone;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] < 0) return Type::kNone;
      if (instruction->kind == Instruction::kSelect && i == 0) continue;
      const Type own = type_of(node.inputs[i]);
      if (type != Type::kNone && own != type) return Type::kNone;
      type = own;
    }
    const bool truth = instruction->kind == Instruction::kIsNaN;
    if ((Set(type) & kFloats) == 0 || (!truth && type_of(node.outputs[0]) != type)) return Type::kNone;
    return type;
  };

  std::vector<std::optional<Candidate>> candidates(steps_.size());
  for (size_t s = 0; s < steps_.size(); ++s) {
    const Node& node = *steps_[s].node;
    for (int v : node.outputs) {
      if (v >= 0) producer[static_cast<size_t>(v)] = static_cast<int>(s);
    }
    Instruction instruction;
    const Type type = elementwise(steps_[s], &instruction);
    if (type == Type::kNone) continue;
    Candidate candidate{{}, type, {}};
    bool fits = true;
    for (int v : node.inputs) {
      const int from = producer[static_cast<size_t>(v)];
      Chain longer = candidate.chain;
      if (from >= 0 && uses[static_cast<size_t>(v)] == 1 && candidates[static_cast<size_t>(from)] &&
          candidates[static_cast<size_t>(from)]->type == type && longer.Push(candidates[static_cast<size_t>(from)]->chain)) {
        candidate.chain = longer;
        candidate.taken.push_back(static_cast<size_t>(from));
      } else {
        fits = fits && candidate.chain.Push(v);
      }
    }
    if (!fits || !candidate.chain.Take(instruction)) {
      candidate = {{}, type, {}};
      for (int v : node.inputs) candidate.chain.Push(v);
      candidate.chain.Take(instruction);
    }
    candidates[s] = std::move(candidate);
  }
  std::vector<bool> gone(steps_.size(), false);
  // A truth is no number that a chain can end with: what a step of its own takes stays, unless a later chain has both.
  for (size_t s = steps_.size(); s-- > 0;) {
    if (!candidates[s]) continue;
    if (!gone[s] && type_of(steps_[s].node->outputs[0]) == Type::kBool) {
      candidates[s].reset();
      continue;
    }
    for (size_t taken : candidates[s]->taken) gone[taken] = true;
  }

  std::vector<Step> left;
  for (size_t s = 0; s < steps_.size(); ++s) {
    if (gone[s]) {
      ++elementwise_nodes;
      continue;
    }
    Step& step = steps_[s];
    if (candidates[s]) {
      Node& node = joined_.emplace_back(*step.node);
      node.inputs = candidates[s]->chain.operands;
      step.node = &node;
      step.op = &ChainOperator();
      step.state = ChainStateOf(candidates[s]->chain.steps);
    }
    left.push_back(std::move(step));
  }
  steps_ = std::move(left);
}

}  // namespace cosetq::ep
