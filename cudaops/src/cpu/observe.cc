#include "observe.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace cosetq {
namespace {

// Rows of a panel, whose products are added in float before they go to double: enough that this is cheap beside the products.
constexpr int64_t kPanelRows = 256;
// Columns are worked on in units: a whole number of wide blocks (the kernel's rows) and of slim
// ones (its columns). The matrix is stored as blocks of kUnit × kUnit, one per pair of units.
constexpr int64_t kUnit = 192;
constexpr int64_t kWide = kTile;
constexpr int64_t kSlim = kColumns;
static_assert(kUnit % kWide == 0 && kUnit % kSlim == 0);
constexpr int64_t kPieceNumbers = 1 << 15;  // worth handing to a thread

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool IsFinite(const float* row, int64_t count) {
  uint32_t special = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, row + i, sizeof bits);
    special |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return special == 0;
}

// Place of the block of units p ≤ q.
size_t PairPlace(int64_t p, int64_t q) {
  return static_cast<size_t>((q * (q + 1) / 2 + p) * kUnit * kUnit);
}

// Memory of the panel that a thread is at.
struct Scratch {
  std::vector<float> wide, slim;
};

Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

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
  float* wide;  // [unit][wide block][row][kWide]
  float* slim;  // [unit][slim block][row][kSlim]
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
    if (g.from.a != nullptr) {
      std::memcpy(to, g.from.a + r * g.columns, static_cast<size_t>(g.columns) * sizeof(float));
    } else {
      g.kernels->to_float(g.from.a_half + r * g.columns, to, g.columns);
    }
    g.finite[r] = IsFinite(to, g.columns);
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
  Scratch& scratch = ThreadScratch();
  Panel panel{this, &kernels, waiting_rows_, nullptr, nullptr, {}, {}};
  panel.minima.resize(static_cast<size_t>(units_));
  panel.maxima.resize(static_cast<size_t>(units_));
  if (full_) {
    const size_t size = static_cast<size_t>(units_ * kUnit * kPanelRows);
    if (scratch.wide.size() < size) scratch.wide.resize(size);
    if (scratch.slim.size() < size) scratch.slim.resize(size);
    panel.wide = scratch.wide.data();
    panel.slim = scratch.slim.data();
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

// Sums, extremes and, where that is all there is, the diagonal of columns first … last−1.
void Observation::Summarise(Panel* panel, int64_t first, int64_t last, size_t unit) {
  const float* rows = waiting_.data();
  float low = rows[first], high = rows[first];
  for (int64_t r = 0; r < panel->rows; ++r) {
    const float* row = rows + r * columns_;
    const double weight = waiting_weights_[static_cast<size_t>(r)];
    for (int64_t c = first; c < last; ++c) {
      low = std::min(low, row[c]);
      high = std::max(high, row[c]);
      sums_[static_cast<size_t>(c)] += weight * static_cast<double>(row[c]);
    }
    if (full_) continue;
    for (int64_t c = first; c < last; ++c) {
      moments_[static_cast<size_t>(c)] +=
          weight * static_cast<double>(row[c]) * static_cast<double>(row[c]);
    }
  }
  panel->minima[unit] = low;
  panel->maxima[unit] = high;
}

void Observation::PackUnit(void* data, size_t unit) {
  Panel& panel = *static_cast<Panel*>(data);
  Observation& self = *panel.self;
  const int64_t first = static_cast<int64_t>(unit) * kUnit;
  const int64_t last = std::min(first + kUnit, self.columns_);
  self.Summarise(&panel, first, last, unit);
  if (!self.full_) return;
  float* wide = panel.wide + first * kPanelRows;
  float* slim = panel.slim + first * kPanelRows;
  float unit_row[kUnit] = {};  // zero past the last column
  for (int64_t r = 0; r < panel.rows; ++r) {
    std::memcpy(unit_row, self.waiting_.data() + r * self.columns_ + first,
                static_cast<size_t>(last - first) * sizeof(float));
    const auto root = static_cast<float>(std::sqrt(self.waiting_weights_[static_cast<size_t>(r)]));
    if (root != 1) {
      for (float& v : unit_row) v *= root;
    }
    for (int64_t b = 0; b < kUnit / kWide; ++b) {
      std::memcpy(wide + (b * kPanelRows + r) * kWide, unit_row + b * kWide, kWide * sizeof(float));
    }
    for (int64_t b = 0; b < kUnit / kSlim; ++b) {
      std::memcpy(slim + (b * kPanelRows + r) * kSlim, unit_row + b * kSlim, kSlim * sizeof(float));
    }
  }
}

void Observation::MultiplyUnits(void* data, size_t pair) {
  const Panel& panel = *static_cast<Panel*>(data);
  Observation& self = *panel.self;
  int64_t q = 0;
  while ((q + 1) * (q + 2) / 2 <= static_cast<int64_t>(pair)) ++q;
  const int64_t p = static_cast<int64_t>(pair) - q * (q + 1) / 2;
  double* block = self.moments_.data() + PairPlace(p, q);
  const int64_t slim_columns = std::min(kUnit, self.columns_ - p * kUnit);
  const int64_t wide_columns = std::min(kUnit, self.columns_ - q * kUnit);
  for (int64_t j = 0; j < wide_columns; j += kWide) {
    const float* wide = panel.wide + (q * kUnit + j) * kPanelRows;
    const int width = static_cast<int>(std::min(kWide, wide_columns - j));
    // On the diagonal, blocks that lie below it whole are left out.
    const int64_t height = p == q ? std::min(slim_columns, j + kWide) : slim_columns;
    for (int64_t i = 0; i < height; i += kSlim) {
      const float* slim = panel.slim + (p * kUnit + i) * kPanelRows;
      alignas(64) float products[kSlim * kTile] = {};
      panel.kernels->multiply(wide, slim, panel.rows, kSlim, width, products);
      for (int64_t s = 0; s < kSlim; ++s) {
        double* to = block + (i + s) * kUnit + j;
        for (int64_t c = 0; c < kWide; ++c) to[c] += static_cast<double>(products[s * kTile + c]);
      }
    }
  }
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
