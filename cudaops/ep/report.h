// What the provider tells about itself, see cosetq/ep.h.

#ifndef COSETQ_EP_REPORT_H_
#define COSETQ_EP_REPORT_H_

#include "graph.h"
#include "placement.h"

namespace cosetq::ep {

// Remembers where the nodes of the graph that is being loaded go. A graph that is not the body of a node
// begins a new list.
void ReportPlacement(const Graph& graph, const Placement& placement, bool is_body);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_REPORT_H_
