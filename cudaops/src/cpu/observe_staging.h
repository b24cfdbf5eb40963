// Rows that are kept back until it is their turn: runs at the same time add them up in the order of the data all the same.

#ifndef COSETQ_CPU_OBSERVE_STAGING_H_
#define COSETQ_CPU_OBSERVE_STAGING_H_

#include <memory>
#include <vector>

#include "observe_registry.h"

namespace cosetq {

class ObserveStaging {
 public:
  // Keeps a copy of the rows.
  void Put(const std::shared_ptr<TaggedObservation>& to, const ObservedRows& rows);

  // Adds up what was put, on so many threads, and is empty again. The memory stays, for the next rows.
  void Commit(int threads);

 private:
  struct Work {
    std::shared_ptr<TaggedObservation> to;
    std::vector<float> a;
    std::vector<uint16_t> a_half;
    std::vector<double> weights;
    int64_t rows = 0;

    void Do() const;
  };
  std::vector<Work> works_;  // of which the first count_ are in use
  size_t count_ = 0;
};

// Where the rows go that are observed on this thread; null, as in the beginning, for to where they belong at once.
ObserveStaging*& ThreadStaging();

}  // namespace cosetq

#endif  // COSETQ_CPU_OBSERVE_STAGING_H_
