#include "observe_queue.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "dispatch.h"

namespace cosetq {
namespace {

// How many numbers may wait before whoever hands over more has to: about what a model computes forward and backward before the
// gradients of its last layer are known, while the workers are at those of the sample before.
constexpr int64_t kWaitingNumbers = 8 << 20;
constexpr size_t kSpare = 32;  // works whose memory is kept for others

struct Work {
  std::shared_ptr<TaggedObservation> to;
  std::vector<float> a;
  std::vector<uint16_t> a_half;
  std::vector<double> weights;
  int64_t rows = 0;

  int64_t Numbers() const { return static_cast<int64_t>(a.size() + a_half.size()); }

  void Do() const {
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
};

struct Queue {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::deque<Work>> waiting;  // of each worker
  std::vector<std::thread> workers;
  std::vector<Work> spare;
  int64_t numbers = 0;  // handed over and not added yet
  bool stop = false;
};

Queue& TheQueue() {
  static Queue* queue = new Queue;  // lives as long as the threads, which nobody may have stopped
  return *queue;
}

void Run(size_t worker) {
  Queue& queue = TheQueue();
  std::unique_lock<std::mutex> lock(queue.mutex);
  for (;;) {
    std::deque<Work>& mine = queue.waiting[worker];
    queue.changed.wait(lock, [&] { return queue.stop || !mine.empty(); });
    if (mine.empty()) return;
    Work work = std::move(mine.front());
    mine.pop_front();
    lock.unlock();
    work.Do();
    work.to.reset();
    lock.lock();
    queue.numbers -= work.Numbers();
    if (queue.spare.size() < kSpare) queue.spare.push_back(std::move(work));
    queue.changed.notify_all();
  }
}

}  // namespace

void SetObserveWorkers(int count) {
  static std::mutex setting;
  std::lock_guard<std::mutex> one_at_a_time(setting);
  Queue& queue = TheQueue();
  std::vector<std::thread> old;
  {
    std::lock_guard<std::mutex> lock(queue.mutex);
    queue.stop = true;
    old.swap(queue.workers);
  }
  queue.changed.notify_all();
  for (std::thread& t : old) t.join();
  std::lock_guard<std::mutex> lock(queue.mutex);
  queue.stop = false;
  queue.waiting.clear();
  queue.spare.clear();
  queue.waiting.resize(static_cast<size_t>(count));
  try {
    for (size_t i = 0; i < queue.waiting.size(); ++i) queue.workers.emplace_back(Run, i);
  } catch (const std::exception&) {
    queue.waiting.resize(queue.workers.size());
    throw;
  }
}

bool HandRows(const std::shared_ptr<TaggedObservation>& to, const ObservedRows& rows) {
  Queue& queue = TheQueue();
  Work work;
  {
    std::lock_guard<std::mutex> lock(queue.mutex);
    if (queue.workers.empty()) return false;
    if (!queue.spare.empty()) {
      work = std::move(queue.spare.back());
      queue.spare.pop_back();
    }
  }
  const int64_t count = rows.a != nullptr ? rows.rows * to->observation.columns() : 0;
  const int64_t half_count = rows.a_half != nullptr ? rows.rows * to->observation.columns() : 0;
  work.to = to;
  work.rows = rows.rows;
  work.a.assign(rows.a, rows.a + count);
  work.a_half.assign(rows.a_half, rows.a_half + half_count);
  work.weights.assign(rows.weights, rows.weights + (rows.weights != nullptr ? rows.rows : 0));
  std::unique_lock<std::mutex> lock(queue.mutex);
  queue.changed.wait(lock, [&] { return queue.numbers < kWaitingNumbers; });
  queue.numbers += work.Numbers();
  queue.waiting[static_cast<size_t>(to->serial) % queue.waiting.size()].push_back(std::move(work));
  lock.unlock();
  queue.changed.notify_all();
  return true;
}

void AwaitObserveWorkers() {
  Queue& queue = TheQueue();
  std::unique_lock<std::mutex> lock(queue.mutex);
  queue.changed.wait(lock, [&] { return queue.numbers == 0; });
}

}  // namespace cosetq
