// Blocks, one per lane: the nearest point of D4, and the clamp of blocks that overload. The
// arithmetic is that of the package lattice (Encoder, Codec.clamp), which specifies every rounding
// and order. Included by encode_lanes.h.

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

// The factor that brings y within the reach as seen from 0.
inline F Shrink(const EncoderView& codec, const F y[4]) {
  F one, two;
  Excess(codec, y, &one, &two);
  const F reach_one = Splat(codec.reach_one), reach_two = Splat(codec.reach_two);
  return Min(reach_one / (reach_one + one), reach_two / (reach_two + two));
}

// The coordinates of a residual in descending order of magnitude, the lowest first among equals.
struct Residual {
  F size[4];
  U step[4];
};

inline Residual Sorted(const F r[4]) {
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

// kWide vectors of blocks on their way from far out into the code.
struct WideBlocks {
  F y[kWide][kEncodeDim];
  U point[kWide];
  U classes[kWide];
  M lanes[kWide];  // in use

  bool Any(const M m[kWide]) const {
    M all = m[0];
    for (int i = 1; i < kWide; ++i) all = all | m[i];
    return Bits(all) != 0;
  }

  // Moves the points of some lanes to candidates that are in the code. Returns the lanes that moved
  // in moved.
  void Take(const EncoderView& codec, const U candidate[kWide], const M of[kWide],
            M moved[kWide]) {
    U k[kWide];
    M inside[kWide];
    Digits(codec, candidate, k, inside);
    for (int i = 0; i < kWide; ++i) {
      moved[i] = of[i] & inside[i];
      point[i] = Select(moved[i], candidate[i], point[i]);
      classes[i] = Select(moved[i], k[i], classes[i]);
    }
  }

  // Finds a first point along the ray to the centre of the code.
  void FollowRay(const EncoderView& codec) {
    F s[kWide];
    M outside[kWide];
    for (int i = 0; i < kWide; ++i) {
      s[i] = Shrink(codec, y[i]);
      outside[i] = lanes[i];
    }
    while (Any(outside)) {
      U nearest[kWide];
      for (int i = 0; i < kWide; ++i) {
        F u[kEncodeDim], unused;
        for (int j = 0; j < kEncodeDim; ++j) {
          const F centre = Splat(codec.centre[j]);
          u[j] = s[i] * (y[i][j] - centre) + centre;
        }
        nearest[i] = Nearest(u, &unused);
        s[i] = s[i] * Splat(codec.ray_shrink);
      }
      M inside[kWide];
      Take(codec, nearest, outside, inside);
      for (int i = 0; i < kWide; ++i) outside[i] = outside[i] & ~inside[i];
    }
  }

  // The residuals of all blocks and their squares.
  void Measure(F r[kWide][kEncodeDim], F error[kWide]) const {
    for (int i = 0; i < kWide; ++i) {
      for (int j = 0; j < kEncodeDim; ++j) {
        // An integer below 2^23 in the low bits of the float 2^23 is their sum.
        const U biased = (point[i] >> (8 * j)) & 0xffu;
        const F v = AsFloat(biased | 0x4b000000u) - Splat((1 << 23) + kEncodeBias);
        r[i][j] = y[i][j] - v;
      }
      error[i] = SumSquares(r[i]);
    }
  }

  // Moves blocks by the first minimal vector that shortens the residual and stays in the code;
  // lanes then holds those that moved.
  void Refine(const EncoderView& codec, const F r[kWide][kEncodeDim]) {
    Residual s[kWide];
    U from[kWide];
    M searching[kWide];
    for (int i = 0; i < kWide; ++i) {
      s[i] = Sorted(r[i]);
      from[i] = point[i];
      searching[i] = lanes[i];
    }
    const auto attempt = [&](int a, int b, bool against) {
      U candidate[kWide];
      M better[kWide];
      for (int i = 0; i < kWide; ++i) {
        const F size = against ? s[i].size[a] - s[i].size[b] : s[i].size[a] + s[i].size[b];
        better[i] = searching[i] & Gt(size, Splat(1));
        candidate[i] = from[i] + s[i].step[a] + (against ? U{} - s[i].step[b] : s[i].step[b]);
      }
      if (!Any(better)) return;
      M moved[kWide];
      Take(codec, candidate, better, moved);
      for (int i = 0; i < kWide; ++i) searching[i] = searching[i] & ~moved[i];
    };
    for (int a = 0; a < 3; ++a) {
      for (int b = a + 1; b < 4; ++b) attempt(a, b, false);
    }
    for (int a = 0; a < 3; ++a) {
      for (int b = 3; b > a; --b) attempt(a, b, true);
    }
    for (int i = 0; i < kWide; ++i) lanes[i] = lanes[i] & ~searching[i];
  }
};

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_ENCODE_BLOCK_H_
