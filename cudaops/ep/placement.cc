#include "placement.h"

#include <algorithm>
#include <map>

#include "operator.h"

namespace cosetq::ep {

// Taken nodes get even stages, others odd ones, and no edge leads to a lower stage. A path that leaves a
// part through a node of another kind comes back in a later stage, so the taken nodes of one stage can be
// fused.
Placement Place(const Graph& graph, bool all) {
  Placement out;
  std::vector<int> ready(graph.values.size(), 0);  // by value: the stage of the node that makes it
  std::map<int, std::vector<size_t>> parts;
  for (const Node& node : graph.nodes) out.refusals.push_back(Refusal(graph, node));
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    const int odd = out.refusals[i].empty() ? 0 : 1;
    int stage = odd;
    for (const auto* list : {&node.inputs, &node.implicit}) {
      for (int v : *list) {
        if (v < 0) continue;
        const int from = ready[static_cast<size_t>(v)];
        stage = std::max(stage, from + (from % 2 != odd));
      }
    }
    for (int v : node.outputs) {
      if (v >= 0) ready[static_cast<size_t>(v)] = stage;
    }
    if (odd == 0) parts[stage].push_back(i);
  }
  for (auto& [stage, nodes] : parts) {
    const bool worth = all || std::any_of(nodes.begin(), nodes.end(), [&](size_t i) {
      return FindOperator(graph.nodes[i].domain, graph.nodes[i].op)->heavy;
    });
    if (worth) {
      out.parts.push_back(std::move(nodes));
    } else {
      for (size_t i : nodes) out.refusals[i] = "not worth the way to the GPU: no product of matrices beside it";
    }
  }
  return out;
}

}  // namespace cosetq::ep
