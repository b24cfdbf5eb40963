// Calibration adds up rows of any floats in any batches and keeps to its memory.

#include <cstdlib>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/observe.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cosetq;
  fuzz::Input in(data, size);
  const int64_t columns = 1 + in.Below(150);
  const bool full = in.Below(2) != 0, half = in.Below(2) != 0;
  Observation observation(columns, full);
  int64_t seen = 0;
  while (!in.empty() && seen < 1000) {
    ObservedRows rows;
    rows.rows = in.Below(80);
    const size_t count = static_cast<size_t>(rows.rows * columns);
    std::vector<float> a(half ? 0 : count);
    std::vector<uint16_t> a_half(half ? count : 0);
    for (float& v : a) v = in.Below(64) == 0 ? in.Take<float>() : static_cast<float>(in.Take<int16_t>());
    if (half) {
      in.Fill(a_half.data(), count * sizeof(uint16_t));
      rows.a_half = a_half.data();
    } else {
      rows.a = a.data();
    }
    if (!observation.Add(ActiveKernels(), rows, RunSerially)) std::abort();
    seen += rows.rows;
  }
  observation.Finish(ActiveKernels());
  if (observation.rows() + observation.bad_rows() != seen) std::abort();
  const int64_t middle = columns / 2;
  size_t numbers = 0;
  for (int64_t i = middle; i < columns; ++i) numbers += static_cast<size_t>(full ? columns - i : 1);
  std::vector<double> out(numbers);
  observation.CopyMoments(middle, columns, out.data());
  return 0;
}
