// From sums to rows of Y. Everything has internal linkage, see weight_view.h.

#ifndef COSETQ_CPU_STORE_ROWS_H_
#define COSETQ_CPU_STORE_ROWS_H_

#include "kernels.h"

namespace cosetq {
namespace {

inline __attribute__((always_inline)) void ScaleRows(const float* __restrict sums, const RowScales& rows, int64_t count,
                                                     float* __restrict y) {
  const float* __restrict scales = rows.scales;
  const float* __restrict bias = rows.bias;
  if (bias == nullptr) {
    for (int64_t r = 0; r < count; ++r) y[r] = sums[r] * scales[r];
  } else {
    for (int64_t r = 0; r < count; ++r) y[r] = sums[r] * scales[r] + bias[r];
  }
}

// A StoreRowsFn; turn(lanes, sums) puts 64 sums into the order of the rows.
template <typename Turn>
inline __attribute__((always_inline)) void StoreRows(const float* lanes, int64_t columns, const RowScales& rows, float* y,
                                                     int64_t stride, const Turn& turn) {
  for (int64_t c = 0; c < columns; ++c, lanes += kTile, y += stride) {
    alignas(64) float sums[kTile];
    turn(lanes, sums);
    if (rows.count == kTile) {
      ScaleRows(sums, rows, kTile, y);
    } else {
      ScaleRows(sums, rows, rows.count, y);
    }
  }
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_STORE_ROWS_H_
