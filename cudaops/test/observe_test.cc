#include "cpu/observe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/dispatch.h"
#include "cpu/half.h"
#include "cpu/observe_registry.h"

namespace cosetq::test {
namespace {

// Pieces in reverse order, standing in for other threads.
bool RunBackwards(void (*body)(void*, size_t), size_t total, void* data) {
  while (total > 0) body(data, --total);
  return true;
}

std::vector<float> RandomRows(int64_t rows, int64_t columns) {
  std::mt19937_64 random(static_cast<uint64_t>(rows * 1000 + columns));
  std::normal_distribution<float> normal(0.3f, 1.0f);
  std::vector<float> a(static_cast<size_t>(rows * columns));
  for (float& v : a) v = HalfToFloat(FloatToHalf(normal(random)));  // the same numbers in both types
  return a;
}

std::vector<double> Moments(const Observation& o) {
  const int64_t k = o.columns();
  std::vector<double> m(static_cast<size_t>(o.full() ? k * (k + 1) / 2 : k));
  // In two parts, the first of one row, as a reader of rows would.
  o.CopyMoments(0, 1, m.data());
  o.CopyMoments(1, k, m.data() + (o.full() ? k : 1));
  return m;
}

// Feeds rows in calls of the given height.
Observation Observe(const std::vector<float>& a, int64_t columns, bool full, int64_t height,
                    bool half, const ParallelFor& parallel) {
  Observation o(columns, full);
  const int64_t rows = static_cast<int64_t>(a.size()) / columns;
  std::vector<uint16_t> halves(a.size());
  for (size_t i = 0; i < a.size(); ++i) halves[i] = FloatToHalf(a[i]);
  for (int64_t r = 0; r < rows; r += height) {
    ObservedRows call;
    call.rows = std::min(height, rows - r);
    if (half) {
      call.a_half = halves.data() + r * columns;
    } else {
      call.a = a.data() + r * columns;
    }
    Check(o.Add(ActiveKernels(), call, parallel), "observe: add");
  }
  o.Finish(ActiveKernels());
  return o;
}

void CheckAgainstReference(int64_t rows, int64_t columns) {
  const std::string what = "observe " + std::string(ActiveKernels().name) + " " +
                           std::to_string(rows) + " × " + std::to_string(columns);
  const std::vector<float> a = RandomRows(rows, columns);
  std::vector<double> sums(static_cast<size_t>(columns));
  std::vector<double> want;
  for (int64_t i = 0; i < columns; ++i) {
    for (int64_t r = 0; r < rows; ++r)
      sums[static_cast<size_t>(i)] += static_cast<double>(a[static_cast<size_t>(r * columns + i)]);
    for (int64_t j = i; j < columns; ++j) {
      double sum = 0;
      for (int64_t r = 0; r < rows; ++r) {
        sum += static_cast<double>(a[static_cast<size_t>(r * columns + i)]) *
               static_cast<double>(a[static_cast<size_t>(r * columns + j)]);
      }
      want.push_back(sum);
    }
  }
  const Observation o = Observe(a, columns, true, rows, false, RunSerially);
  const std::vector<double> got = Moments(o);
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i)
    worst = std::max(worst, std::abs(got[i] - want[i]) / (1.1 * static_cast<double>(rows)));
  Check(worst < 1e-6, what + ": moments differ by " + std::to_string(worst));
  Check(o.rows() == rows && o.bad_rows() == 0, what + ": rows");
  double off = 0;
  for (size_t i = 0; i < sums.size(); ++i) off = std::max(off, std::abs(o.sums()[i] - sums[i]));
  Check(off < 1e-9 * static_cast<double>(rows), what + ": sums differ by " + std::to_string(off));

  Check(Moments(Observe(a, columns, true, 7, false, RunBackwards)) == got,
        what + ": depends on calls or threads");
  Check(Moments(Observe(a, columns, true, 100, true, RunBackwards)) == got,
        what + ": float16 differs");
  const Observation diagonal = Observe(a, columns, false, 13, true, RunBackwards);
  const std::vector<double> squares = Moments(diagonal);
  size_t at = 0;
  double apart = 0;
  for (int64_t i = 0; i < columns; ++i) {
    apart = std::max(apart, std::abs(squares[static_cast<size_t>(i)] - want[at]));
    at += static_cast<size_t>(columns - i);
  }
  Check(apart < 1e-9 * static_cast<double>(rows), what + ": diagonal");
  Check(diagonal.sums() == o.sums() && diagonal.maximum() == o.maximum(), what + ": diagonal sums");
}

void TestBadRows() {
  std::vector<float> a = RandomRows(300, 5);
  std::vector<float> clean(a.begin() + 10, a.end() - 5);
  clean.erase(clean.begin() + 5, clean.begin() + 10);  // row 3 of a
  a[7] = std::numeric_limits<float>::quiet_NaN();
  a[2] = std::numeric_limits<float>::infinity();
  a[3 * 5 + 4] = -std::numeric_limits<float>::infinity();
  a[299 * 5] = std::numeric_limits<float>::quiet_NaN();
  const Observation o = Observe(a, 5, true, 256, false, RunSerially);
  Check(o.bad_rows() == 4 && o.rows() == 296, "observe: counts bad rows");
  Check(Moments(o) == Moments(Observe(clean, 5, true, 296, false, RunSerially)),
        "observe: bad rows leave no trace");
  float low = clean[0], high = clean[0];
  for (float v : clean) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  Check(o.minimum() == low && o.maximum() == high, "observe: extremes");
}

void TestRegistry() {
  std::string error;
  ResetObservations();
  const auto a = ObservationFor("a", 4, true, &error);
  Check(a != nullptr && ObservationFor("a", 4, true, &error) == a, "observe: one per tag");
  Check(ObservationFor("a", 5, true, &error) == nullptr && !error.empty(), "observe: other size");
  Check(ObservationFor("a", 4, false, &error) == nullptr, "observe: other mode");
  ObservationFor("b", 4, false, &error);
  Check(ObservationTags() == std::vector<std::string>{"a", "b"}, "observe: tags");
  ResetObservation("a");
  Check(FindObservation("a") == nullptr && FindObservation("b") != nullptr, "observe: reset");
  ResetObservations();
  Check(ObservationTags().empty(), "observe: reset all");
}

}  // namespace

void TestObserve() {
  int count = 0;
  const char* const* names = AvailableIsas(&count);
  for (int i = 0; i < count; ++i) {
    std::string error;
    SelectIsa(names[i], &error);
    for (const int64_t columns : {1, 6, 63, 64, 65, 191, 192, 193, 400}) {
      for (const int64_t rows : {1, 128, 256, 512, 513, 1100}) CheckAgainstReference(rows, columns);
    }
    TestBadRows();
  }
  std::string error;
  SelectIsa("", &error);
  TestRegistry();
}

}  // namespace cosetq::test
