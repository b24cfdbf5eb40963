// Products of the same rows, and what is done with their results, as one step.

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <utility>

#include "branches.h"
#include "chain.h"
#include "cosetq/schema.h"
#include "linear_ops.h"
#include "program.h"
#include "rotary.h"

namespace cosetq::ep {

// All steps with the weights of some products of the same rows: for each branch and rows one step of every weight. Nothing where a weight is used
// otherwise: joined with others it would be on the device twice.
std::vector<std::vector<size_t>> Program::Alike(const std::vector<size_t>& products) const {
  std::map<std::pair<int, int>, std::vector<std::optional<size_t>>> found;  // by branch and rows
  for (size_t i = 0; i < products.size(); ++i) {
    for (size_t s = 0; s < steps_.size(); ++s) {
      if (steps_[s].state != steps_[products[i]].state) continue;
      std::vector<std::optional<size_t>>& group = found[{steps_[s].branch, steps_[s].node->inputs[0]}];
      group.resize(products.size());
      if (group[i]) return {};
      group[i] = s;
    }
  }
  std::vector<std::vector<size_t>> groups;
  for (const auto& [unused, group] : found) {
    groups.emplace_back();
    for (const std::optional<size_t>& step : group) {
      if (!step) return {};
      groups.back().push_back(*step);
    }
  }
  return groups;
}

// Makes one step of two products of the same rows and what alone takes both results, as in gated networks.
void Program::FuseGatedProducts() {
  const Operator* const linear = FindOperator(schema::kDomain, schema::kOpName);
  const std::vector<int> uses = Uses();
  std::vector<int> producer(graph_.values.size(), -1);
  for (size_t s = 0; s < steps_.size(); ++s) {
    if (steps_[s].op == linear) producer[static_cast<size_t>(steps_[s].node->outputs[0])] = static_cast<int>(s);
  }
  std::map<std::vector<size_t>, size_t> gates;  // by the two products
  for (size_t s = 0; s < steps_.size(); ++s) {
    const std::vector<int>& inputs = steps_[s].node->inputs;
    if (steps_[s].op != &ChainOperator() || inputs.size() != 2) continue;
    const auto made_for_this = [&](int v) {
      const int from = producer[static_cast<size_t>(v)];
      return uses[static_cast<size_t>(v)] == 1 && from >= 0 && steps_[static_cast<size_t>(from)].branch == steps_[s].branch;
    };
    if (!made_for_this(inputs[0]) || !made_for_this(inputs[1])) continue;
    const auto first = static_cast<size_t>(producer[static_cast<size_t>(inputs[0])]), second = static_cast<size_t>(producer[static_cast<size_t>(inputs[1])]);
    if (steps_[first].node->inputs[0] == steps_[second].node->inputs[0] && PartsOf(*steps_[first].state) == PartsOf(*steps_[second].state)) gates[{first, second}] = s;
  }
  std::vector<bool> gone(steps_.size(), false);
  for (const auto& [products, unused] : gates) {
    if (gone[products[0]]) continue;
    const std::vector<std::vector<size_t>> groups = Alike(products);
    if (groups.empty() || std::any_of(groups.begin(), groups.end(), [&](const auto& group) { return gates.count(group) == 0; })) continue;
    const std::shared_ptr<const State> joined = JoinProducts(*steps_[products[0]].state, *steps_[products[1]].state);
    if (joined == nullptr) continue;
    for (const std::vector<size_t>& group : groups) {
      Step& step = steps_[gates.at(group)];
      Node& node = joined_.emplace_back(*step.node);
      node.inputs = {steps_[group[0]].node->inputs[0]};
      for (size_t product : group) {
        steps_[product].state = nullptr;
        gone[product] = true;
      }
      step.node = &node;
      step.op = &JoinedOperator();
      step.state = WithChain(joined, std::move(step.state));
      CountPattern();
    }
  }
  Leave(gone);
}

// Makes one step of products of the same rows, such as queries, keys and values. Operators that do not read the results as they lie copy them, which of many
// rows takes longer than is gained where the weights are large.
void Program::FuseProducts() {
  constexpr int64_t kMostJoined = 16384;  // rows of a weight
  constexpr size_t kMostParts = 4;
  const Operator* const linear = FindOperator(schema::kDomain, schema::kOpName);
  std::vector<bool> gone(steps_.size(), false);
  for (size_t s = 0; s < steps_.size(); ++s) {
    if (steps_[s].op != linear || steps_[s].fixed || gone[s]) continue;
    std::vector<size_t> products = {s};
    std::shared_ptr<const State> all = steps_[s].state;
    for (size_t next = s + 1; next < steps_.size() && products.size() < kMostParts; ++next) {
      const Step& other = steps_[next];
      if (other.op != linear || gone[next] || other.branch != steps_[s].branch || other.node->inputs[0] != steps_[s].node->inputs[0]) continue;
      int64_t rows = 0;
      for (const State* state : {all.get(), other.state.get()}) {
        for (int64_t part : PartsOf(*state)) rows += part;
      }
      if (rows > kMostJoined) continue;
      products.push_back(next);
      std::shared_ptr<const State> joined = Alike(products).empty() ? nullptr : JoinProducts(*all, *other.state);
      if (joined != nullptr) {
        all = std::move(joined);
      } else {
        products.pop_back();
      }
    }
    if (products.size() == 1) continue;
    for (const std::vector<size_t>& group : Alike(products)) {
      const size_t first = *std::min_element(group.begin(), group.end());
      Node& node = joined_.emplace_back(*steps_[first].node);
      node.inputs.resize(1);
      node.outputs.clear();
      for (size_t product : group) {
        node.outputs.push_back(steps_[product].node->outputs[0]);
        steps_[product].state = nullptr;
        gone[product] = product != first;
      }
      steps_[first].node = &node;
      steps_[first].op = &PartsOperator();
      steps_[first].state = all;
      CountPattern();
    }
  }
  Leave(gone);
}

// Puts a node in place of several steps, and those that use what it gives behind it; false, and nothing is done, if it would have to wait for some of these.
bool Program::JoinSteps(std::vector<size_t> steps, const Node& node, const Operator* op) {
  std::sort(steps.begin(), steps.end());
  const size_t first = steps.front(), end = steps.back() + 1;
  std::vector<bool> of_it(graph_.values.size(), false);  // by value
  const auto any = [&](const std::vector<int>& values) { return std::any_of(values.begin(), values.end(), [&](int v) { return v >= 0 && of_it[static_cast<size_t>(v)]; }); };
  const auto mark = [&](const std::vector<int>& values) {
    for (int v : values) {
      if (v >= 0) of_it[static_cast<size_t>(v)] = true;
    }
  };
  mark(node.outputs);
  std::vector<size_t> ahead, behind;
  for (size_t s = first; s < end; ++s) {
    if (std::binary_search(steps.begin(), steps.end(), s)) continue;
    bool waits = any(steps_[s].node->inputs);
    ForEachCondition(graph_, steps_[s].branch, [&](size_t v) { waits = waits || of_it[v]; });
    (waits ? behind : ahead).push_back(s);
    if (waits) mark(steps_[s].node->outputs);
  }
  if (any(node.inputs)) return false;
  std::vector<Step> ordered;
  for (size_t s : ahead) ordered.push_back(std::move(steps_[s]));
  Step& joined = ordered.emplace_back();
  joined.node = &joined_.emplace_back(node);
  joined.op = op;
  joined.branch = node.branch;
  for (size_t s : behind) ordered.push_back(std::move(steps_[s]));
  const auto at = steps_.begin() + static_cast<std::ptrdiff_t>(first);
  std::move(ordered.begin(), ordered.end(), at);
  steps_.erase(at + static_cast<std::ptrdiff_t>(ordered.size()), steps_.begin() + static_cast<std::ptrdiff_t>(end));
  CountPattern();
  return true;
}

// Makes one step of what is done to queries, keys and values between their products and attention over a cache that grows: so many launches would take the
// host longer than the GPU.
void Program::FuseAppends() {
  const Operator* const concat = FindOperator("", "Concat");
  const std::vector<int> uses = Uses();
  const auto of = [&](int v) -> const Value& { return graph_.values[static_cast<size_t>(v)]; };
  std::vector<const Step*> maker;
  const auto find_makers = [&] {
    maker.assign(graph_.values.size(), nullptr);
    for (const Step& step : steps_) {
      for (int v : step.node->outputs) {
        if (v >= 0) maker[static_cast<size_t>(v)] = &step;
      }
    }
  };
  const auto turns = [&](const Step& step) { return step.op == &MatchedRotation() && of(step.node->outputs[0]).rank == 4; };
  const auto added = [&](const Step& append) { return maker[static_cast<size_t>(append.node->inputs[1])]; };
  const auto appends = [&](const Step& step, bool turned) {
    const Node& node = *step.node;
    if (step.op != concat || step.fixed || step.on_host || node.inputs.size() != 2) return false;
    const Value& all = of(node.outputs[0]);
    const int64_t axis = node.attributes.Int("axis", 1);
    const Step* by = added(step);
    return all.rank == 4 && (axis == 2 || axis == -2) && (Set(all.type) & kFloats) != 0 && (by != nullptr && turns(*by)) == turned;
  };
  find_makers();
  // The one next to another that is wanted.
  const auto nearest = [&](const Step& to, const auto& wanted) -> const Step* {
    const Step* best = nullptr;
    const auto far = [&](const Step& step) { return std::abs(&step - &to); };
    for (const Step& step : steps_) {
      if (&step != &to && wanted(step) && (best == nullptr || far(step) < far(*best))) best = &step;
    }
    return best;
  };
  for (size_t s = 0; s < steps_.size();) {
    const Step& all_keys = steps_[s++];
    if (!appends(all_keys, true) || uses[static_cast<size_t>(all_keys.node->inputs[1])] != 1) continue;
    const Step& keys = *added(all_keys);
    const Type type = of(all_keys.node->outputs[0]).type;
    const Step* queries = nearest(keys, [&](const Step& step) {
      const std::vector<int>& inputs = step.node->inputs;
      return turns(step) && step.branch == all_keys.branch && inputs[1] == keys.node->inputs[1] && inputs[2] == keys.node->inputs[2] && of(step.node->outputs[0]).type == type;
    });
    const Step* all_values = nearest(all_keys, [&](const Step& step) { return appends(step, false) && step.branch == all_keys.branch && of(step.node->outputs[0]).type == type; });
    if (queries == nullptr || all_values == nullptr) continue;
    Node node = *all_keys.node;
    node.attributes = Attributes();
    node.attributes.Set("queries_swapped", static_cast<int>(queries->node->attributes.Int("swapped", 0)));
    node.attributes.Set("keys_swapped", static_cast<int>(keys.node->attributes.Int("swapped", 0)));
    node.inputs = {queries->node->inputs[0],    keys.node->inputs[0],       all_values->node->inputs[1], keys.node->inputs[1], keys.node->inputs[2],
                   all_keys.node->inputs[0], all_values->node->inputs[0]};
    node.outputs = {queries->node->outputs[0], all_keys.node->outputs[0], all_values->node->outputs[0]};
    std::vector<size_t> places;
    for (const Step* step : {queries, &keys, &all_keys, all_values}) places.push_back(static_cast<size_t>(step - steps_.data()));
    if (!JoinSteps(places, node, &AppendOperator())) continue;
    find_makers();
    s = *std::min_element(places.begin(), places.end());  // from which on steps have other places
  }
}

}  // namespace cosetq::ep
