#include "observe_registry.h"

#include <map>

namespace cosetq {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<TaggedObservation>> observations;
};

Registry& TheRegistry() {
  static Registry registry;
  return registry;
}

}  // namespace

std::shared_ptr<TaggedObservation> ObservationFor(const std::string& tag, int64_t columns,
                                                  bool full, std::string* error) {
  Registry& registry = TheRegistry();
  std::lock_guard<std::mutex> lock(registry.mutex);
  std::shared_ptr<TaggedObservation>& entry = registry.observations[tag];
  if (entry == nullptr) {
    entry = std::make_shared<TaggedObservation>(columns, full);
  } else if (entry->observation.columns() != columns || entry->observation.full() != full) {
    *error = "the tag " + tag + " is in use for " + std::to_string(entry->observation.columns()) +
             " columns or in another mode; this input has " + std::to_string(columns);
    return nullptr;
  }
  return entry;
}

std::shared_ptr<TaggedObservation> FindObservation(const std::string& tag) {
  Registry& registry = TheRegistry();
  std::lock_guard<std::mutex> lock(registry.mutex);
  const auto found = registry.observations.find(tag);
  return found == registry.observations.end() ? nullptr : found->second;
}

std::vector<std::string> ObservationTags() {
  Registry& registry = TheRegistry();
  std::lock_guard<std::mutex> lock(registry.mutex);
  std::vector<std::string> tags;
  for (const auto& entry : registry.observations) {
    if (entry.second != nullptr) tags.push_back(entry.first);
  }
  return tags;
}

void ResetObservation(const std::string& tag) {
  Registry& registry = TheRegistry();
  std::lock_guard<std::mutex> lock(registry.mutex);
  registry.observations.erase(tag);
}

void ResetObservations() {
  Registry& registry = TheRegistry();
  std::lock_guard<std::mutex> lock(registry.mutex);
  registry.observations.clear();
}

}  // namespace cosetq
