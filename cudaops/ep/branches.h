// If nodes in a program: both bodies stand in the graph that holds the If, each under a branch, and Identity nodes at their end give the If's outputs. So
// these are made in two places, of which one runs.

#ifndef COSETQ_EP_BRANCHES_H_
#define COSETQ_EP_BRANCHES_H_

#include <functional>
#include <string>
#include <vector>

#include "graph.h"

namespace cosetq::ep {

// Whether a node is an If.
bool IsBranching(const Node& node);

// Whether it is an Identity at the end of a branch.
inline bool GivesOutput(const Node& node) { return node.branch >= 0 && node.handle == nullptr; }

// Calls use for the conditions, by value, that what stands in a branch hangs on.
template <typename Use>
void ForEachCondition(const Graph& graph, int branch, const Use& use) {
  for (; branch >= 0; branch = graph.branches[static_cast<size_t>(branch)].outer) use(static_cast<size_t>(graph.branches[static_cast<size_t>(branch)].condition));
}

// A condition, on the host, as it is where it is a single truth.
bool Truth(const Tensor& condition);

// Calls visit for the nodes in the bodies of a node, and those in theirs.
void ForEachInside(const Node& node, const std::function<void(const Node&)>& visit);

// Why an If cannot be put in the place where it is, "" if it can: the first reason of a node inside.
std::string RefusalOfBodies(const Graph& graph, const Node& node);

// The graph with the bodies of its If nodes in their places.
Graph WithBranches(Graph graph);

// Inputs of the graph that tell alone, or with shapes and constants, which branches run: by position. Reading these, each a truth, before a run leaves no
// condition that depends on them to be read in it.
std::vector<size_t> Switches(const Graph& graph);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_BRANCHES_H_
