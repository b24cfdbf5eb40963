// Blocks of one column, one group per lane: the code is a run of integers, so a block that overloads
// is coded as the end of the run that is nearer. That is where the search that the package lattice
// specifies (Codec.clamp) always ends, and it is never nearer than the bound by which a gain is
// skipped there, so no gain need be skipped. Included by encode_lanes.h.

#ifndef COSETQ_CPU_ENCODE_COLUMNS_H_
#define COSETQ_CPU_ENCODE_COLUMNS_H_

#include "encode_block.h"

namespace cosetq {
namespace {

// The integer of the run nearest to y, in units of one from 0. Lanes that overload join `outside`.
inline F NearestInRun(const EncoderView& codec, F y, M* outside) {
  const F round = Splat(kRound), low = Splat(codec.run_low), high = Splat(codec.run_high);
  const F nearest = y + round - round;
  *outside = *outside | Gt(low, nearest) | Gt(nearest, high);
  return Min(Max(nearest, low), high);
}

// The class of an integer of the run, at block b of kRunBits bits for each.
constexpr int kRunBits = 4;
inline U RunClass(const EncoderView& codec, F v, int b) {
  return (AsInt(v + Splat(kRound)) & codec.level[0].mask) << (kRunBits * b);
}

// Codes a group x with one step and gain, of which inverse is 1 / (step * gain). Returns the squared
// error.
inline F EncodeRuns(const EncoderView& codec, const F x[schema::kGroup], F inverse, U* classes,
                    M* outside) {
  F sum = {};
  *classes = U{};
  *outside = kNone;
  for (int b = 0; b < schema::kGroup; ++b) {
    const F y = x[b] * inverse + Splat(codec.centre[0]);
    const F v = NearestInRun(codec, y, outside);
    const F r = y - v;
    sum = sum + r * r;
    *classes |= RunClass(codec, v, b);
  }
  return sum;
}

// Writes the classes of one lane.
inline void StoreRuns(uint32_t classes, uint16_t* indices) {
  for (int b = 0; b < schema::kGroup; ++b)
    indices[b] = static_cast<uint16_t>(classes >> (kRunBits * b) & ((1 << kRunBits) - 1));
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_ENCODE_COLUMNS_H_
