#include "states.h"

#include <algorithm>

namespace cosetq::ep {

std::shared_ptr<const State> States::Of(const Node& node, const Operator& op, const std::vector<const Tensor*>& constants, const Settings& settings) {
  constexpr size_t kFirst = 64;
  Entry own{&op, node.attributes.Key(), {}, nullptr};
  std::string first;
  for (const Tensor* constant : constants) {
    own.constants.push_back(constant != nullptr ? *constant : Tensor());
    if (constant != nullptr) first.append(constant->data<char>(), std::min(kFirst, constant->bytes()));
  }
  const auto same = [](const Tensor& a, const Tensor& b) { return (a.buffer == nullptr) == (b.buffer == nullptr) && (a.buffer == nullptr || Same(a, b)); };
  std::vector<Entry>& alike = entries_[first];
  for (const Entry& other : alike) {
    if (other.op == own.op && other.attributes == own.attributes &&
        std::equal(other.constants.begin(), other.constants.end(), own.constants.begin(), own.constants.end(), same))
      return other.state;
  }
  own.state = op.prepare(node, constants, settings);
  return alike.emplace_back(std::move(own)).state;
}

}  // namespace cosetq::ep
