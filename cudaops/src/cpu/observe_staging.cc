#include "observe_staging.h"

#include <atomic>
#include <exception>
#include <map>
#include <thread>

#include "dispatch.h"

namespace cosetq {

ObserveStaging*& ThreadStaging() {
  thread_local ObserveStaging* staging = nullptr;
  return staging;
}

void ObserveStaging::Put(const std::shared_ptr<TaggedObservation>& to, const ObservedRows& rows) {
  if (count_ == works_.size()) works_.emplace_back();
  Work& work = works_[count_];
  const int64_t numbers = rows.rows * to->observation.columns();
  work.a.assign(rows.a, rows.a + (rows.a != nullptr ? numbers : 0));
  work.a_half.assign(rows.a_half, rows.a_half + (rows.a_half != nullptr ? numbers : 0));
  work.weights.assign(rows.weights, rows.weights + (rows.weights != nullptr ? rows.rows : 0));
  work.rows = rows.rows;
  work.to = to;
  ++count_;
}

void ObserveStaging::Work::Do() const {
  ObservedRows from;
  from.rows = rows;
  from.a = a_half.empty() ? a.data() : nullptr;
  from.a_half = a_half.empty() ? nullptr : a_half.data();
  from.weights = weights.empty() ? nullptr : weights.data();
  std::lock_guard<std::mutex> lock(to->mutex);
  try {
    to->observation.Add(ActiveKernels(), from, RunSerially);
  } catch (const std::exception&) {  // out of memory
    to->failed = true;
  }
}

void ObserveStaging::Commit(int threads) {
  std::map<TaggedObservation*, std::vector<const Work*>> by_tag;  // what goes to one place keeps its order
  for (size_t i = 0; i < count_; ++i) by_tag[works_[i].to.get()].push_back(&works_[i]);
  std::vector<const std::vector<const Work*>*> lists;
  for (const auto& entry : by_tag) lists.push_back(&entry.second);
  std::atomic<size_t> next{0};
  const auto add = [&] {
    for (size_t i = next++; i < lists.size(); i = next++) {
      for (const Work* work : *lists[i]) work->Do();
    }
  };
  std::vector<std::thread> others;
  try {
    for (int i = 1; i < threads; ++i) others.emplace_back(add);
  } catch (const std::exception&) {  // fewer threads do as well
  }
  add();
  for (std::thread& t : others) t.join();
  for (size_t i = 0; i < count_; ++i) works_[i].to.reset();
  count_ = 0;
}

}  // namespace cosetq
