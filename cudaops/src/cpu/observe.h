// Weighted second moments of the rows that pass a point of a graph: what calibration needs to know
// of a layer's input.
//
// Rows are gathered into panels of a fixed height whatever calls they come in, and every sum is
// added in one order, so the result depends on the rows alone: not on how they were batched, nor on
// the number of threads.

#ifndef COSETQ_CPU_OBSERVE_H_
#define COSETQ_CPU_OBSERVE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels.h"

namespace cosetq {

// Calls body(data, i) for i < total, in any order, on any threads, and returns when all are done.
// False: could not.
using ParallelFor = std::function<bool(void (*body)(void* data, size_t i), size_t total, void* data)>;

// Runs all pieces on the calling thread.
bool RunSerially(void (*body)(void* data, size_t i), size_t total, void* data);

// Rows [rows × columns], contiguous. Exactly one of the pointers is set.
struct ObservedRows {
  int64_t rows = 0;
  const float* a = nullptr;
  const uint16_t* a_half = nullptr;
  const double* weights = nullptr;  // one per row, not negative; null for ones
};

// Not safe for concurrent use.
class Observation {
 public:
  // full: the whole matrix Σ w a aᵀ; otherwise its diagonal.
  Observation(int64_t columns, bool full);

  // Adds rows. Rows with NaN or infinity are counted and left out. False: no threads, and the
  // observation is of no use any more.
  bool Add(const Kernels& kernels, const ObservedRows& rows, const ParallelFor& parallel);

  // Adds the rows that wait for their panel to fill. To be called before reading; more rows may
  // follow. The panel that it ends early makes the result differ, in rounding only.
  void Finish(const Kernels& kernels);

  int64_t columns() const { return columns_; }
  bool full() const { return full_; }
  int64_t rows() const { return rows_; }
  int64_t bad_rows() const { return bad_rows_; }
  float minimum() const { return minimum_; }  // of all numbers; 0 before the first row
  float maximum() const { return maximum_; }

  // Σ w, and Σ w a, one per column.
  double weight() const { return weight_; }
  const std::vector<double>& sums() const { return sums_; }

  // Writes Σ w a aᵀ of rows first … last−1, of each the columns from the diagonal on; or the diagonal
  // alone, entries first … last−1, where that is all there is.
  void CopyMoments(int64_t first, int64_t last, double* out) const;

 private:
  struct Panel;
  struct Gathering;

  bool Flush(const Kernels& kernels, const ParallelFor& parallel);
  static void GatherRows(void* data, size_t piece);
  static void PackUnit(void* data, size_t unit);
  static void MultiplyUnits(void* data, size_t pair);

  int64_t columns_;
  bool full_;
  int64_t units_;  // of columns, see observe.cc
  int64_t rows_ = 0;
  int64_t bad_rows_ = 0;
  float minimum_ = 0;
  float maximum_ = 0;
  std::vector<double> sums_;
  std::vector<double> moments_;  // pairs of units, or the diagonal
  double weight_ = 0;
  std::vector<float> waiting_;   // rows of a panel
  std::vector<double> waiting_weights_;
  int64_t waiting_rows_ = 0;
};

}  // namespace cosetq

#endif  // COSETQ_CPU_OBSERVE_H_
