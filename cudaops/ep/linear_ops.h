// Products of the same rows with coded weights, as one.

#ifndef COSETQ_EP_LINEAR_OPS_H_
#define COSETQ_EP_LINEAR_OPS_H_

#include <memory>

#include "operator.h"

namespace cosetq::ep {

// The state of JoinedOperator, of those of two HNLQLinear nodes and of the chain that alone takes their results, in this order; it takes the chain's
// over. Null, and nothing is taken, where no weight has the rows of both, as for want of memory, or they are of other accuracies or sizes.
std::unique_ptr<State> JoinProducts(const State& first, const State& second, std::unique_ptr<State>* chain);

// Multiplies its input by both weights at once, and runs the chain on the results.
const Operator& JoinedOperator();

}  // namespace cosetq::ep

#endif  // COSETQ_EP_LINEAR_OPS_H_
