// Sums of squares and of outer products of rows, for second moments. Included after generic.h, whose Vec has the width of the
// registers.

#ifndef COSETQ_CPU_MOMENTS_H_
#define COSETQ_CPU_MOMENTS_H_

#include <string.h>

#include "kernels.h"

namespace cosetq {
namespace {

constexpr int kMomentVecs = 2;                           // of a strip
constexpr int kMomentRows = sizeof(Vec) == 64 ? 12 : 6;  // of a slip: its sums with a strip fill the registers
constexpr int64_t kFloatRows = 256;                      // whose products are added in float before they go to double
constexpr int64_t kStrip = kMomentVecs * kLanes;
static_assert(kMomentUnit % kStrip == 0 && kMomentUnit % kMomentRows == 0);

// A double for each number of half a Vec.
typedef float HalfVec __attribute__((vector_size(sizeof(Vec) / 2)));
typedef double DoubleVec __attribute__((vector_size(sizeof(Vec))));

inline DoubleVec Widen(const float* from) {
  HalfVec half;
  memcpy(&half, from, sizeof half);
  return __builtin_convertvector(half, DoubleVec);
}

double SumSquares(const float* values, int64_t count) {
  constexpr int64_t kSums = 8, kPart = kLanes / 2, kParts = kSums / kPart;
  DoubleVec parts[kParts] = {};
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    for (int64_t p = 0; p < kParts; ++p) {
      const DoubleVec v = Widen(values + i + p * kPart);
      parts[p] = parts[p] + v * v;
    }
  }
  double sums[kSums];
  memcpy(sums, parts, sizeof sums);
  for (; i < count; ++i) sums[i % kSums] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

bool CopyRow(const float* from, int64_t count, float* to) {
  uint32_t special = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    memcpy(&bits, from + i, sizeof bits);
    memcpy(to + i, &bits, sizeof bits);
    special |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return special == 0;
}

void SummariseRows(const MomentRows& w, const MomentSums& to) {
  for (int64_t r = 0; r < w.rows; ++r) {
    const float* row = w.from + r * w.stride;
    const double weight = to.weights[r];
    for (int64_t c = 0; c < w.columns; ++c) to.low[c] = row[c] < to.low[c] ? row[c] : to.low[c];
    for (int64_t c = 0; c < w.columns; ++c) to.high[c] = row[c] > to.high[c] ? row[c] : to.high[c];
    for (int64_t c = 0; c < w.columns; ++c) to.sums[c] += weight * static_cast<double>(row[c]);
    if (to.squares == nullptr) continue;
    for (int64_t c = 0; c < w.columns; ++c) {
      to.squares[c] += weight * static_cast<double>(row[c]) * static_cast<double>(row[c]);
    }
  }
}

template <int64_t Width>
inline void SpreadRow(const float* unit, int64_t depth, float* to) {
  for (int64_t c = 0; c < kMomentUnit; c += Width) memcpy(to + c * depth, unit + c, Width * sizeof(float));
}

void PackRows(const MomentRows& w, const MomentPanels& to) {
  alignas(64) float unit[kMomentUnit] = {};  // zero past the last column
  for (int64_t r = 0; r < w.rows; ++r) {
    const float* row = w.from + r * w.stride;
    for (int64_t c = 0; c < w.columns; ++c) unit[c] = to.roots[r] * row[c];
    SpreadRow<kStrip>(unit, to.depth, to.strips + (to.first + r) * kStrip);
    SpreadRow<kMomentRows>(unit, to.depth, to.slips + (to.first + r) * kMomentRows);
  }
}

// sums[r][c] += sum over rows of slip[r] * strip[c]. They stay in registers only where all loops over them are unrolled.
__attribute__((noinline)) void MultiplyTile(const float* strip, const float* slip, int64_t rows, float* sums) {
  Vec sum[kMomentRows][kMomentVecs];
#pragma GCC unroll 16
  for (int r = 0; r < kMomentRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kMomentVecs; ++v) memcpy(&sum[r][v], sums + r * kStrip + v * kLanes, sizeof(Vec));
  }
  for (int64_t k = 0; k < rows; ++k) {
    Vec row[kMomentVecs];
#pragma GCC unroll 16
    for (int v = 0; v < kMomentVecs; ++v) memcpy(&row[v], strip + k * kStrip + v * kLanes, sizeof(Vec));
#pragma GCC unroll 16
    for (int r = 0; r < kMomentRows; ++r) {
      const Vec factor = slip[k * kMomentRows + r] - Vec{};
#pragma GCC unroll 16
      for (int v = 0; v < kMomentVecs; ++v) sum[r][v] = MulAdd(row[v], factor, sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kMomentRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kMomentVecs; ++v) memcpy(sums + r * kStrip + v * kLanes, &sum[r][v], sizeof(Vec));
  }
}

// to[r][c] += sums[r][c].
inline void AddTile(const float* sums, double* to) {
  for (int r = 0; r < kMomentRows; ++r, to += kMomentUnit) {
    for (int64_t c = 0; c < kStrip; c += kLanes / 2) {
      DoubleVec total;
      memcpy(&total, to + c, sizeof total);
      total = total + Widen(sums + r * kStrip + c);
      memcpy(to + c, &total, sizeof total);
    }
  }
}

void AddMoments(const MomentBlock& w) {
  for (int64_t j = 0; j < w.strip_columns; j += kStrip) {
    const float* strip = w.strips + j * w.depth;
    // On the diagonal, what lies below it whole is left out.
    const int64_t height = w.diagonal && j + kStrip < w.slip_columns ? j + kStrip : w.slip_columns;
    for (int64_t i = 0; i < height; i += kMomentRows) {
      const float* slip = w.slips + i * w.depth;
      double* to = w.to + i * kMomentUnit + j;
      for (int r = 0; r < kMomentRows; ++r) {
        for (int64_t c = 0; c < kStrip; c += 8) __builtin_prefetch(to + r * kMomentUnit + c, 1);
      }
      for (int64_t k = 0; k < w.rows; k += kFloatRows) {
        const int64_t rows = w.rows - k < kFloatRows ? w.rows - k : kFloatRows;
        alignas(64) float sums[kMomentRows * kStrip] = {};
        MultiplyTile(strip + k * kStrip, slip + k * kMomentRows, rows, sums);
        AddTile(sums, to);
      }
    }
  }
}

constexpr MomentKernels kMomentKernels = {CopyRow, SumSquares, SummariseRows, PackRows, AddMoments};

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_MOMENTS_H_
