// Digits of packed points where tables are read one lane at a time.

#ifndef COSETQ_CPU_ENCODE_DIGITS_H_
#define COSETQ_CPU_ENCODE_DIGITS_H_

#include "encode_view.h"

namespace cosetq {
namespace {

// The class of each point at every level, level m in bits 8m and up, and whether the point is in
// the code.
inline void Digits(const EncoderView& codec, const U points[kWide], U classes[kWide],
                   M inside[kWide]) {
  for (int i = 0; i < kWide; ++i) {
    U point = points[i], all = {};
    for (int m = 0; m < codec.levels; ++m) {
      const EncodeLevel& level = codec.level[m];
      const int shift = level.shift;
      // By the inverse of the basis, modulo q, which the bias is a multiple of.
      const U x2 = point >> 16, x3 = point >> 24;
      const U half = ((point + (point >> 8) + x2 + x3) & 0xffu) >> 1;
      const U k = ((U{} - half) & level.mask) | ((point - half) & level.mask) << shift |
                  ((U{} - x2 - x3) & level.mask) << (2 * shift) |
                  ((U{} - x3) & level.mask) << (3 * shift);
      point = (point - Gather(level.leaders, k)) >> shift;
      all |= k << (8 * m);
    }
    classes[i] = all;
    inside[i] = Eq(point, SplatInt(codec.level[codec.levels - 1].zero));
  }
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_ENCODE_DIGITS_H_
