#include "placement.h"

#include <algorithm>
#include <climits>
#include <map>
#include <set>

#include "branches.h"
#include "operator.h"

namespace cosetq::ep {
namespace {

// Whether a node that is taken is worth the way to the device.
bool IsHeavy(const Node& node) {
  if (!IsBranching(node)) return FindOperator(node.domain, node.op)->heavy;
  bool heavy = false;
  ForEachInside(node, [&](const Node& inner) { heavy = heavy || (!IsBranching(inner) && IsHeavy(inner)); });
  return heavy;
}

}  // namespace

// Taken nodes get even stages, others odd ones, and no edge leads to a lower stage. A path that leaves a
// part through a node of another kind comes back in a later stage, so the taken nodes of one stage can be
// fused.
Placement Place(const Graph& graph, bool all) {
  Placement out;
  for (const Node& node : graph.nodes) out.refusals.push_back(Refusal(graph, node));
  const size_t count = graph.nodes.size();
  const auto odd = [&](size_t i) { return out.refusals[i].empty() ? 0 : 1; };
  std::vector<int> stage(count), ready(graph.values.size(), 0);  // by value: the stage of the node that makes it
  std::set<int> worth;
  for (size_t i = 0; i < count; ++i) {
    const Node& node = graph.nodes[i];
    stage[i] = odd(i);
    for (const auto* list : {&node.inputs, &node.implicit}) {
      for (int v : *list) {
        if (v < 0) continue;
        const int from = ready[static_cast<size_t>(v)];
        stage[i] = std::max(stage[i], from + (from % 2 != odd(i)));
      }
    }
    for (int v : node.outputs) {
      if (v >= 0) ready[static_cast<size_t>(v)] = stage[i];
    }
    if (odd(i) == 0 && (all || IsHeavy(node))) worth.insert(stage[i]);
  }
  // What would be left out goes along with those that use it, where it can: shapes and lengths that a later part asks for.
  constexpr int kNever = INT_MAX;
  std::vector<int> wanted(graph.values.size(), kNever);  // by value: the first stage that uses it
  std::map<int, std::vector<size_t>> parts;
  for (size_t i = count; i-- > 0;) {
    const Node& node = graph.nodes[i];
    if (odd(i) == 0 && worth.count(stage[i]) == 0) {
      int latest = kNever;
      for (int v : node.outputs) {
        if (v >= 0) latest = std::min(latest, wanted[static_cast<size_t>(v)]);
      }
      if (latest != kNever) stage[i] = latest / 2 * 2;
    }
    for (const auto* list : {&node.inputs, &node.implicit}) {
      for (int v : *list) {
        if (v >= 0) wanted[static_cast<size_t>(v)] = std::min(wanted[static_cast<size_t>(v)], stage[i]);
      }
    }
    if (odd(i) != 0) continue;
    if (worth.count(stage[i]) != 0) {
      parts[stage[i]].push_back(i);
    } else {
      out.refusals[i] = "not worth the way to the GPU: no product of matrices beside it";
    }
  }
  for (auto& [unused, nodes] : parts) {
    std::reverse(nodes.begin(), nodes.end());
    out.parts.push_back(std::move(nodes));
  }
  return out;
}

}  // namespace cosetq::ep
