// One block per lane: the nearest point of D4, its digits, and the clamp of blocks that overload. The arithmetic is that of
// the package lattice (Encoder, Codec.clamp), which specifies every rounding and order. Included by encode_lanes.h.

#ifndef COSETQ_CPU_ENCODE_BLOCK_H_
#define COSETQ_CPU_ENCODE_BLOCK_H_

#include "encode_view.h"

namespace cosetq {
namespace {

// Added to a number below 2^22, rounds it to the nearest integer, halves to even, and leaves that
// with its bias in the low 8 bits.
constexpr float kRound = (3 << 22) + kEncodeBias;

inline U AsInt(F a) { return reinterpret_cast<U>(a); }
inline F AsFloat(U a) { return reinterpret_cast<F>(a); }

// The packed step of one in coordinate unit, in the direction of r.
inline U Step(U unit, F r) { return (unit ^ Sign(r)) - Sign(r); }

inline U Unit(int j) { return SplatInt(1u << (8 * j)); }

inline F SumSquares(const F r[4]) {
  return (r[0] * r[0] + r[1] * r[1]) + (r[2] * r[2] + r[3] * r[3]);
}

// The point nearest to y, packed, and its squared error.
inline U Nearest(const F y[4], F* error) {
  const F round = Splat(kRound);
  U point = {}, parity = {};
  F r[4];
  for (int j = 0; j < 4; ++j) {
    const F t = y[j] + round;
    r[j] = y[j] - (t - round);
    point |= (AsInt(t) & 0xffu) << (8 * j);
    parity ^= AsInt(t);
  }
  // The largest residual, the lowest coordinate first among equals.
  const M second = Gt(Abs(r[1]), Abs(r[0])), fourth = Gt(Abs(r[3]), Abs(r[2]));
  const F low = Select(second, r[1], r[0]), high = Select(fourth, r[3], r[2]);
  const M upper = Gt(Abs(high), Abs(low));
  const F worst = Select(upper, high, low);
  const U unit =
      Select(upper, Select(fourth, Unit(3), Unit(2)), Select(second, Unit(1), Unit(0)));
  const U odd = U{} - (parity & 1u);
  point += Step(unit, worst) & odd;
  const F extra = Splat(1) - Splat(2) * Abs(worst);
  *error = SumSquares(r) + AsFloat(AsInt(extra) & odd);
  return point;
}

// The class of a point at every level, level m in bits 8m and up, and whether the point is in the
// code.
inline M Digits(const EncoderView& codec, U point, U* classes) {
  U all = {};
  for (int m = 0; m < codec.levels; ++m) {
    const EncodeLevel& level = codec.level[m];
    const int shift = level.shift;
    // Digits by the inverse of the basis, modulo q, which the bias is a multiple of.
    const U x2 = point >> 16, x3 = point >> 24;
    const U half = ((point + (point >> 8) + x2 + x3) & 0xffu) >> 1;
    const U k = ((U{} - half) & level.mask) | ((point - half) & level.mask) << shift |
                ((U{} - x2 - x3) & level.mask) << (2 * shift) |
                ((U{} - x3) & level.mask) << (3 * shift);
    point = (point - Gather(level.leaders, k)) >> shift;
    all |= k << (8 * m);
  }
  *classes = all;
  return Eq(point, SplatInt(codec.level[codec.levels - 1].zero));
}

// By how much the largest magnitude of y, and the sum of the two largest, exceed the reach, or 0.
inline void Excess(const EncoderView& codec, const F y[4], F* one, F* two) {
  const F a = Abs(y[0]), b = Abs(y[1]), c = Abs(y[2]), d = Abs(y[3]);
  const F ab = Max(a, b), cd = Max(c, d);
  const F first = Max(ab, cd), second = Max(Min(ab, cd), Max(Min(a, b), Min(c, d)));
  *one = Max(first - Splat(codec.reach_one), F{});
  *two = Max(first + second - Splat(codec.reach_two), F{});
}

// A lower bound on the squared distance from y to the code.
inline F Bound(const EncoderView& codec, const F y[4]) {
  F one, two;
  Excess(codec, y, &one, &two);
  return Max(one * one, two * two * Splat(0.5f));
}

// Coordinates of a residual in descending order of magnitude, the lowest first among equals.
struct Residual {
  F size[4];
  U step[4];
};

inline Residual SortedResidual(const F r[4]) {
  Residual s;
  for (int j = 0; j < 4; ++j) {
    s.size[j] = Abs(r[j]);
    s.step[j] = Step(Unit(j), r[j]);
  }
  // Only neighbours change places, and only if they must: the order of equals stays.
  for (int end = 3; end > 0; --end) {
    for (int j = 0; j < end; ++j) {
      const M swap = Gt(s.size[j + 1], s.size[j]);
      const F small = Min(s.size[j], s.size[j + 1]);
      s.size[j] = Max(s.size[j], s.size[j + 1]);
      s.size[j + 1] = small;
      const U later = Select(swap, s.step[j], s.step[j + 1]);
      s.step[j] = Select(swap, s.step[j + 1], s.step[j]);
      s.step[j + 1] = later;
    }
  }
  return s;
}

// Moves the lanes of a search whose candidates, taken in order, are better and in the code.
struct Move {
  const EncoderView& codec;
  M searching;  // lanes that have not moved yet
  const U point;
  U moved;  // where the others are
  U* classes;

  void Try(M better, U by) {
    const M lanes = searching & better;
    if (Bits(lanes) == 0) return;
    const U candidate = point + by;
    U k;
    const M taken = lanes & Digits(codec, candidate, &k);
    moved = Select(taken, candidate, moved);
    *classes = Select(taken, k, *classes);
    searching = searching & ~taken;
  }
};

// Moves each of the lanes by the first minimal vector that shortens its residual and stays in the
// code. Returns the lanes that moved.
inline M Refine(const EncoderView& codec, M lanes, const F r[4], U* point, U* classes) {
  const Residual s = SortedResidual(r);
  Move move{codec, lanes, *point, *point, classes};
  for (int i = 0; i < 3; ++i) {
    for (int j = i + 1; j < 4; ++j)
      move.Try(Gt(s.size[i] + s.size[j], Splat(1)), s.step[i] + s.step[j]);
  }
  for (int i = 0; i < 3; ++i) {
    for (int j = 3; j > i; --j)
      move.Try(Gt(s.size[i] - s.size[j], Splat(1)), s.step[i] - s.step[j]);
  }
  *point = move.moved;
  return lanes & ~move.searching;
}

// Codes the blocks y of these lanes, which overload.
inline void Clamp(const EncoderView& codec, const F y[4], M lanes, U* classes, F* error) {
  F one, two;
  Excess(codec, y, &one, &two);
  const F reach_one = Splat(codec.reach_one), reach_two = Splat(codec.reach_two);
  F s = Min(reach_one / (reach_one + one), reach_two / (reach_two + two));
  U point = {}, all = {};
  for (M outside = lanes; Bits(outside) != 0; s = s * Splat(codec.ray_shrink)) {
    F u[4], unused;
    for (int j = 0; j < 4; ++j) {
      const F centre = Splat(codec.centre[j]);
      u[j] = s * (y[j] - centre) + centre;
    }
    const U nearest = Nearest(u, &unused);
    U k;
    const M inside = outside & Digits(codec, nearest, &k);
    point = Select(inside, nearest, point);
    all = Select(inside, k, all);
    outside = outside & ~inside;
  }
  M moving = lanes;
  for (int moves = 0;; ++moves) {
    F r[4];
    for (int j = 0; j < 4; ++j) {
      const U biased = point >> (8 * j) & 0xffu;
      // An integer below 2^23 in the low bits of 2^23 is that sum.
      const F v = AsFloat(biased | 0x4b000000u) - Splat((1 << 23) + kEncodeBias);
      r[j] = y[j] - v;
    }
    *error = SumSquares(r);
    if (moves == codec.max_refinements || Bits(moving) == 0) break;
    moving = Refine(codec, moving, r, &point, &all);
  }
  *classes = all;
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_ENCODE_BLOCK_H_
