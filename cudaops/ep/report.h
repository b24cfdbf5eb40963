// What the provider tells about itself, see cosetq/ep.h.

#ifndef COSETQ_EP_REPORT_H_
#define COSETQ_EP_REPORT_H_

#include "graph.h"
#include "placement.h"

namespace cosetq::ep {

// Remembers where the nodes of the graph that is being loaded go, those inside of nodes too.
void ReportPlacement(const Graph& graph, const Placement& placement);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_REPORT_H_
