// Products of the same rows with coded weights, as one.

#ifndef COSETQ_EP_LINEAR_OPS_H_
#define COSETQ_EP_LINEAR_OPS_H_

#include <memory>
#include <vector>

#include "operator.h"

namespace cosetq::ep {

// The state of an HNLQLinear node with the rows of two of them, the first's and then the second's; null where no weight has both, as for want of memory,
// or they are of other accuracies.
std::unique_ptr<State> JoinProducts(const State& first, const State& second);

// Memory on the device of the coded weights of all sessions.
int64_t WeightBytes();

// The numbers of rows of the weights that such a state was made of.
const std::vector<int64_t>& PartsOf(const State& product);

// Multiplies its input by weights at once, and gives the product of each, in the order of the state's parts.
const Operator& PartsOperator();

// Multiplies its input by two weights of as many rows at once, and runs the chain on the results. Its state is made of that of both and the chain's.
const Operator& JoinedOperator();
std::unique_ptr<State> WithChain(std::shared_ptr<const State> both, std::shared_ptr<const State> chain);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_LINEAR_OPS_H_
