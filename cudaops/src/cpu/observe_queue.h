// Threads that add rows to observations while the graph that computes them runs on.

#ifndef COSETQ_CPU_OBSERVE_QUEUE_H_
#define COSETQ_CPU_OBSERVE_QUEUE_H_

#include <memory>

#include "observe_registry.h"

namespace cosetq {

// Has so many threads from now on, after all that waits is added. 0, as in the beginning, for none.
void SetObserveWorkers(int count);

// Leaves a copy of the rows to a worker, always the same one for an observation, and returns true; it waits while much is left to
// do. False: there are no workers.
bool HandRows(const std::shared_ptr<TaggedObservation>& to, const ObservedRows& rows);

// Returns when all rows that were handed over are added.
void AwaitObserveWorkers();

}  // namespace cosetq

#endif  // COSETQ_CPU_OBSERVE_QUEUE_H_
