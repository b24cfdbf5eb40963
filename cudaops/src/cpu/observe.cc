#include "observe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

namespace cosetq {
namespace {

// Rows of a panel: enough that the sums in double, which no cache holds, are not read and written too often.
constexpr int64_t kPanelRows = 512;
// Rows that a laid out panel has room for: some more, so that its strips do not share the same places of a cache.
constexpr int64_t kPanelDepth = kPanelRows + 8;
constexpr int64_t kPackRows = 32;  // read twice while they are near
// Columns are worked on in units. The matrix is stored as blocks of kUnit × kUnit, one per pair of units.
constexpr int64_t kUnit = kMomentUnit;
constexpr int64_t kPieceNumbers = 1 << 15;  // worth handing to a thread

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Place of the block of units p ≤ q.
size_t PairPlace(int64_t p, int64_t q) {
  return static_cast<size_t>((q * (q + 1) / 2 + p) * kUnit * kUnit);
}

// Memory of a laid out panel.
struct Scratch {
  std::vector<float> strips, slips, roots;
};

// A Scratch as long as this lives. They go from hand to hand, so that there are as many as panels at one time: threads are more.
class Borrowed {
 public:
  Borrowed() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) {
      scratch_ = std::make_unique<Scratch>();
    } else {
      scratch_ = std::move(free_.back());
      free_.pop_back();
    }
  }
  ~Borrowed() {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(scratch_));
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  Scratch* operator->() const { return scratch_.get(); }

 private:
  static inline std::mutex mutex_;
  static inline std::vector<std::unique_ptr<Scratch>> free_;
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace

bool RunSerially(void (*body)(void* data, size_t i), size_t total, void* data) {
  for (size_t i = 0; i < total; ++i) body(data, i);
  return true;
}

// Rows on their way into the panel.
struct Observation::Gathering {
  const Kernels* kernels;
  ObservedRows from;
  int64_t columns;
  int64_t rows_per_piece;
  float* to;
  uint8_t finite[kPanelRows];
};

// A full panel, or what there is of it.
struct Observation::Panel {
  Observation* self;
  const Kernels* kernels;
  int64_t rows;
  float* strips;  // of all units, see MomentRows
  float* slips;
  const float* roots;  // of the weights of the rows
  std::vector<float> minima, maxima;  // one per unit
};

Observation::Observation(int64_t columns, bool full)
    : columns_(columns),
      full_(full),
      units_(CeilDiv(columns, kUnit)),
      sums_(static_cast<size_t>(columns)),
      moments_(full ? PairPlace(0, units_) : static_cast<size_t>(columns)),
      waiting_(static_cast<size_t>(columns * kPanelRows)),
      waiting_weights_(static_cast<size_t>(kPanelRows)) {}

void Observation::GatherRows(void* data, size_t piece) {
  Gathering& g = *static_cast<Gathering*>(data);
  const int64_t first = static_cast<int64_t>(piece) * g.rows_per_piece;
  const int64_t last = std::min(first + g.rows_per_piece, g.from.rows);
  for (int64_t r = first; r < last; ++r) {
    float* to = g.to + r * g.columns;
    const float* from = to;
    if (g.from.a != nullptr) {
      from = g.from.a + r * g.columns;
    } else {
      g.kernels->to_float(g.from.a_half + r * g.columns, to, g.columns);
    }
    g.finite[r] = g.kernels->moments.copy(from, g.columns, to);
  }
}

bool Observation::Add(const Kernels& kernels, const ObservedRows& rows,
                      const ParallelFor& parallel) {
  for (int64_t done = 0; done < rows.rows;) {
    Gathering g;
    g.kernels = &kernels;
    g.columns = columns_;
    g.from.rows = std::min(rows.rows - done, kPanelRows - waiting_rows_);
    if (rows.a != nullptr) {
      g.from.a = rows.a + done * columns_;
    } else {
      g.from.a_half = rows.a_half + done * columns_;
    }
    g.rows_per_piece = std::max<int64_t>(1, kPieceNumbers / columns_);
    g.to = waiting_.data() + waiting_rows_ * columns_;
    double* weights = waiting_weights_.data() + waiting_rows_;
    const int64_t pieces = CeilDiv(g.from.rows, g.rows_per_piece);
    const bool ok = pieces == 1 ? RunSerially(GatherRows, 1, &g)
                                : parallel(GatherRows, static_cast<size_t>(pieces), &g);
    if (!ok) return false;
    int64_t kept = 0;
    for (int64_t r = 0; r < g.from.rows; ++r) {
      const double weight = rows.weights == nullptr ? 1 : rows.weights[done + r];
      if (g.finite[r] == 0 || !std::isfinite(weight)) continue;
      weights[kept] = weight;
      if (kept < r) {
        std::memcpy(g.to + kept * columns_, g.to + r * columns_,
                    static_cast<size_t>(columns_) * sizeof(float));
      }
      ++kept;
    }
    bad_rows_ += g.from.rows - kept;
    waiting_rows_ += kept;
    done += g.from.rows;
    if (waiting_rows_ == kPanelRows && !Flush(kernels, parallel)) return false;
  }
  return true;
}

void Observation::Finish(const Kernels& kernels) {
  if (waiting_rows_ > 0) Flush(kernels, RunSerially);
}

bool Observation::Flush(const Kernels& kernels, const ParallelFor& parallel) {
  const Borrowed scratch;
  Panel panel{this, &kernels, waiting_rows_, nullptr, nullptr, nullptr, {}, {}};
  panel.minima.resize(static_cast<size_t>(units_));
  panel.maxima.resize(static_cast<size_t>(units_));
  if (full_) {
    const size_t size = static_cast<size_t>(units_ * kUnit * kPanelDepth);
    if (scratch->strips.size() < size) scratch->strips.resize(size);
    if (scratch->slips.size() < size) scratch->slips.resize(size);
    scratch->roots.resize(static_cast<size_t>(waiting_rows_));
    for (size_t r = 0; r < scratch->roots.size(); ++r) scratch->roots[r] = static_cast<float>(std::sqrt(waiting_weights_[r]));
    panel.strips = scratch->strips.data();
    panel.slips = scratch->slips.data();
    panel.roots = scratch->roots.data();
  }
  if (!parallel(PackUnit, static_cast<size_t>(units_), &panel)) return false;
  if (full_ && !parallel(MultiplyUnits, static_cast<size_t>(units_ * (units_ + 1) / 2), &panel))
    return false;
  const float low = *std::min_element(panel.minima.begin(), panel.minima.end());
  const float high = *std::max_element(panel.maxima.begin(), panel.maxima.end());
  minimum_ = rows_ == 0 ? low : std::min(minimum_, low);
  maximum_ = rows_ == 0 ? high : std::max(maximum_, high);
  for (int64_t r = 0; r < waiting_rows_; ++r) weight_ += waiting_weights_[static_cast<size_t>(r)];
  rows_ += waiting_rows_;
  waiting_rows_ = 0;
  return true;
}

// Takes the columns of a unit: their sums, extremes and, where that is all there is, squares.
void Observation::PackUnit(void* data, size_t unit) {
  Panel& panel = *static_cast<Panel*>(data);
  Observation& self = *panel.self;
  const MomentKernels& moments = panel.kernels->moments;
  const int64_t first = static_cast<int64_t>(unit) * kUnit;
  const int64_t columns = std::min(kUnit, self.columns_ - first);
  const float* rows = self.waiting_.data() + first;
  float low[kUnit] = {}, high[kUnit] = {};
  std::copy(rows, rows + columns, low);
  std::copy(rows, rows + columns, high);
  for (int64_t r = 0; r < panel.rows; r += kPackRows) {
    const MomentRows part{rows + r * self.columns_, self.columns_, std::min(kPackRows, panel.rows - r), columns};
    moments.summarise(part, {self.waiting_weights_.data() + r, low, high, self.sums_.data() + first,
                             self.full_ ? nullptr : self.moments_.data() + first});
    if (self.full_) moments.pack(part, {panel.roots + r, kPanelDepth, panel.strips + first * kPanelDepth, panel.slips + first * kPanelDepth, r});
  }
  panel.minima[unit] = *std::min_element(low, low + columns);
  panel.maxima[unit] = *std::max_element(high, high + columns);
}

void Observation::MultiplyUnits(void* data, size_t pair) {
  const Panel& panel = *static_cast<Panel*>(data);
  Observation& self = *panel.self;
  int64_t q = 0;
  while ((q + 1) * (q + 2) / 2 <= static_cast<int64_t>(pair)) ++q;
  const int64_t p = static_cast<int64_t>(pair) - q * (q + 1) / 2;
  panel.kernels->moments.add({self.moments_.data() + PairPlace(p, q), panel.strips + q * kUnit * kPanelDepth,
                              panel.slips + p * kUnit * kPanelDepth, panel.rows, kPanelDepth,
                              std::min(kUnit, self.columns_ - q * kUnit), std::min(kUnit, self.columns_ - p * kUnit), p == q});
}

void Observation::CopyMoments(int64_t first, int64_t last, double* out) const {
  if (!full_) {
    std::copy(moments_.begin() + first, moments_.begin() + last, out);
    return;
  }
  for (int64_t i = first; i < last; ++i) {
    for (int64_t j = i; j < columns_;) {
      const int64_t q = j / kUnit;
      const int64_t end = std::min((q + 1) * kUnit, columns_);
      const double* from = moments_.data() + PairPlace(i / kUnit, q) + i % kUnit * kUnit;
      out = std::copy(from + j % kUnit, from + j % kUnit + (end - j), out);
      j = end;
    }
  }
}

}  // namespace cosetq
