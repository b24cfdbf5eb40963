// Which nodes of a graph the provider takes, and why not the others.

#ifndef COSETQ_EP_PLACEMENT_H_
#define COSETQ_EP_PLACEMENT_H_

#include <string>
#include <vector>

#include "graph.h"

namespace cosetq::ep {

struct Placement {
  std::vector<std::string> refusals;       // by node; "" for those that are taken
  std::vector<std::vector<size_t>> parts;  // nodes that can be fused into one without a cycle
};

// Parts without a product of matrices are left out, unless all are wanted.
Placement Place(const Graph& graph, bool all);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_PLACEMENT_H_
