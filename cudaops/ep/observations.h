// Second moments of what passes ai.coset::Observe on the device: what libcosetq sums up on the processor (cpu/observe.h), behind the same functions
// of cosetq/cosetq.h.

#ifndef COSETQ_EP_OBSERVATIONS_H_
#define COSETQ_EP_OBSERVATIONS_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tensor.h"

namespace cosetq::ep {

// On the device.
struct Totals {
  int64_t rows, bad_rows;
  double weight;
  float minimum, maximum;
};

// Sums over the rows a of one activation. They stay on the device until they are asked for.
class Observation {
 public:
  // Throws a DeviceError or std::bad_alloc.
  Observation(int64_t columns, bool full);
  ~Observation();
  Observation(const Observation&) = delete;
  Observation& operator=(const Observation&) = delete;

  // What is added up on one stream is done before what comes later on another.
  std::mutex mutex;
  void Begin(Stream& stream);
  void End(Stream& stream);

  // To the host, when what was begun is done.
  Totals ReadTotals();
  void ReadSums(double* out);
  void ReadMoments(int64_t first, int64_t last, double* out);

  // The place of the diagonal's element i, which is followed by the rest of its row; without a matrix, of entry i of the diagonal alone.
  int64_t Place(int64_t i) const { return full ? i * columns - i * (i - 1) / 2 : i; }

  const int64_t columns;
  const bool full;
  Totals* totals() const { return static_cast<Totals*>(totals_); }
  double* sums() const { return static_cast<double*>(sums_); }  // sum of w a
  double* moments() const { return static_cast<double*>(moments_); }

 private:
  void Read(const void* from, size_t bytes, void* to);
  void Clear();

  void *totals_ = nullptr, *sums_ = nullptr, *moments_ = nullptr, *last_ = nullptr;
  // What the device has, unless something was begun since: readers of few numbers ask for them each time.
  Totals known_ = {};
  bool is_known_ = true;
};

// The observation of that tag, made if there is none. Throws where there is one of another size or mode.
std::shared_ptr<Observation> ObservationFor(const std::string& tag, int64_t columns, bool full);

}  // namespace cosetq::ep

#endif  // COSETQ_EP_OBSERVATIONS_H_
