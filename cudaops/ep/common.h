// What steps on the host give in a run of new shapes: every layer of a model asks the same of the same shapes, and takes what the first one got.

#ifndef COSETQ_EP_COMMON_H_
#define COSETQ_EP_COMMON_H_

#include <map>
#include <utility>
#include <vector>

#include "execution.h"

namespace cosetq::ep {

// Results by what was done (Step::kind) and with which numbers (Slot::number), or of which shape.
class Program::Common {
 public:
  // Numbers up to the last are those of others.
  Common(Execution& execution, int& last) : execution_(execution), last_(last) {}

  // Gives a step the results of an earlier one that did the same; false if it has to run.
  bool Take(const Step& step) {
    asked_ = false;
    if (step.kind == 0) return false;
    key_.assign(1, step.kind);
    for (int v : step.node->inputs) {
      const Slot* slot = v < 0 ? nullptr : &execution_.At(v);
      if (slot != nullptr && TellsShape(*step.node)) {
        key_.insert(key_.end(), slot->shape.begin(), slot->shape.end());
      } else {
        if (slot != nullptr && slot->number == 0) return false;
        key_.push_back(slot != nullptr ? slot->number : 0);
      }
    }
    const auto [first, is_new] = done_.emplace(key_, step.node);
    asked_ = is_new;
    if (is_new) return false;
    for (size_t i = 0; i < step.node->outputs.size(); ++i) {
      if (step.node->outputs[i] >= 0) execution_.At(step.node->outputs[i]) = execution_.At(first->second->outputs[i]);
    }
    return true;
  }

  // Numbers what a step has given that was asked for here.
  void Keep(const Step& step) {
    if (!asked_) return;
    for (int v : step.node->outputs) {
      if (v >= 0) execution_.At(v).number = ++last_;
    }
  }

 private:
  Execution& execution_;
  std::map<std::vector<int64_t>, const Node*> done_;
  std::vector<int64_t> key_;
  int& last_;
  bool asked_ = false;
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_COMMON_H_
