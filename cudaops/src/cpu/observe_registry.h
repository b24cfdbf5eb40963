// The observations of this process, by tag. Sessions come and go; what they observed stays until it
// is reset.

#ifndef COSETQ_CPU_OBSERVE_REGISTRY_H_
#define COSETQ_CPU_OBSERVE_REGISTRY_H_

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "observe.h"

namespace cosetq {

struct TaggedObservation {
  TaggedObservation(int64_t columns, bool full) : observation(columns, full) {}
  std::mutex mutex;  // to be held while what follows is used
  Observation observation;
  bool failed = false;  // some rows could not be added
};

// The observation of that tag, made if there is none. Null, and an error, when there is one of
// another size or mode.
std::shared_ptr<TaggedObservation> ObservationFor(const std::string& tag, int64_t columns,
                                                  bool full, std::string* error);

// The observation of that tag, or null.
std::shared_ptr<TaggedObservation> FindObservation(const std::string& tag);

std::vector<std::string> ObservationTags();  // in order

// Forgets one observation, or all of them.
void ResetObservation(const std::string& tag);
void ResetObservations();

}  // namespace cosetq

#endif  // COSETQ_CPU_OBSERVE_REGISTRY_H_
