// The states of nodes, one for all that are alike.

#ifndef COSETQ_EP_STATES_H_
#define COSETQ_EP_STATES_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "operator.h"

namespace cosetq::ep {

// Both branches of an If use the same weights, each from constants of its own where the model stores them so: on the device they are once.
class States {
 public:
  // What prepare of the operator makes, or made of equal attributes and constants, which stay where they are as long as this.
  std::shared_ptr<const State> Of(const Node& node, const Operator& op, const std::vector<const Tensor*>& constants, const Settings& settings);

 private:
  struct Entry {
    const Operator* op;
    std::string attributes;
    std::vector<Tensor> constants;  // without a buffer where there is none
    std::shared_ptr<const State> state;
  };
  std::map<std::string, std::vector<Entry>> entries_;  // by the first bytes of the constants
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_STATES_H_
