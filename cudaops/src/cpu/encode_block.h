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

// Coordinate j of a packed point.
inline F Coordinate(U point, int j) {
  // An integer below 2^23 in the low bits of the float 2^23 is their sum.
  const U biased = (point >> (8 * j)) & 0xffu;
  return AsFloat(biased | 0x4b000000u) - Splat((1 << 23) + kEncodeBias);
}

// By how much the largest magnitude of y, and the sum of the two largest, exceed the reach, or 0.
inline void Excess(const EncoderView& codec, const F y[4], F* one, F* two) {
  const F a = Abs(y[0]), b = Abs(y[1]), c = Abs(y[2]), d = Abs(y[3]);
  const F ab = Max(a, b), cd = Max(c, d);
  const F first = Max(ab, cd), second = Max(Min(ab, cd), Max(Min(a, b), Min(c, d)));
  *one = Max(first - Splat(codec.reach_one), F{});
  *two = Max(first + second - Splat(codec.reach_two), F{});
}

// A lower bound on the squared distance from y to the code, by more than rounding makes of it where it is not small: how
// far y lies outside of the hull.
inline F Bound(const CodeHull& hull, const F y[4]) {
  F one = {}, two = {};
  for (int i = 0, pair = 0; i < 4; ++i) {
    one = Max(one, Abs(y[i] - Splat(hull.coordinate[i])));
    for (int j = i + 1; j < 4; ++j, ++pair) {
      two = Max(two, Abs(y[i] + y[j] - Splat(hull.sum[pair])));
      two = Max(two, Abs(y[i] - y[j] - Splat(hull.difference[pair])));
    }
  }
  one = Max(one - Splat(hull.half_coordinate), F{});
  two = Max(two - Splat(hull.half_pair), F{});
  return Max(one * one, two * two * Splat(0.5f)) * Splat(1 - 0x1p-12f);
}

// A little less than the squared distance from y to the second nearest point of D4, by more than rounding makes of it: where the
// nearest point is not in the code, no point of the code is nearer.
inline F SecondNearest(const F y[4], U point, F error) {
  F r[4];
  for (int j = 0; j < 4; ++j) r[j] = Abs(y[j] - Coordinate(point, j));
  const F low = Max(r[0], r[1]), high = Max(r[2], r[3]);
  const F second = Max(Min(low, high), Max(Min(r[0], r[1]), Min(r[2], r[3])));
  // The vector of norm 2 towards the two largest residuals leads there.
  return (error + Splat(2) * (Splat(1) - Max(low, high) - second)) * Splat(1 - 0x1p-14f);
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

// Blocks that overload, one vector of them, on their way into the code. Candidates are looked at
// kWide at a time, since that is how Digits is fast, and the first that will do is taken.
struct Clamped {
  F y[kEncodeDim];
  U point;
  U classes;

  // Moves lanes to the first candidate that is in the code and wanted there. Returns the lanes that
  // did not move.
  M Take(const EncoderView& codec, M lanes, const U candidate[kWide], const M wanted[kWide]) {
    U k[kWide];
    M inside[kWide];
    Digits(codec, candidate, k, inside);
    for (int i = 0; i < kWide; ++i) {
      const M taken = lanes & wanted[i] & inside[i];
      point = Select(taken, candidate[i], point);
      classes = Select(taken, k[i], classes);
      lanes = lanes & ~taken;
    }
    return lanes;
  }

  // Finds the first point along the ray to the centre of the code.
  void FollowRay(const EncoderView& codec, M lanes) {
    F s = Shrink(codec, y);
    while (Bits(lanes) != 0) {
      U nearest[kWide];
      M wanted[kWide];
      for (int i = 0; i < kWide; ++i) {
        F u[kEncodeDim], unused;
        for (int j = 0; j < kEncodeDim; ++j) {
          const F centre = Splat(codec.centre[j]);
          u[j] = s * (y[j] - centre) + centre;
        }
        nearest[i] = Nearest(u, &unused);
        wanted[i] = lanes;
        s = s * Splat(codec.ray_shrink);
      }
      lanes = Take(codec, lanes, nearest, wanted);
    }
  }

  // The residual and its square.
  F Measure(F r[kEncodeDim]) const {
    for (int j = 0; j < kEncodeDim; ++j) r[j] = y[j] - Coordinate(point, j);
    return SumSquares(r);
  }

  // Moves lanes by the first minimal vector that shortens the residual and stays in the code: a
  // step along two of the largest residuals, or along one and against another. Returns the lanes
  // that moved.
  M Refine(const EncoderView& codec, M lanes, const F r[kEncodeDim]) {
    struct Vector {
      int along, other;
      bool against;
    };
    static constexpr Vector kOrder[] = {{0, 1, false}, {0, 2, false}, {0, 3, false}, {1, 2, false},
                                        {1, 3, false}, {2, 3, false}, {0, 3, true},  {0, 2, true},
                                        {0, 1, true},  {1, 3, true},  {1, 2, true},  {2, 3, true}};
    const Residual s = Sorted(r);
    const U from = point;
    M searching = lanes;
    for (int first = 0; first < 12; first += kWide) {
      U candidate[kWide];
      M wanted[kWide], any = kNone;
      for (int i = 0; i < kWide; ++i) {
        const Vector& v = kOrder[first + i];
        const F a = s.size[v.along], b = s.size[v.other];
        wanted[i] = searching & Gt(v.against ? a - b : a + b, Splat(1));
        any = any | wanted[i];
        const U towards = from + s.step[v.along];
        candidate[i] = v.against ? towards - s.step[v.other] : towards + s.step[v.other];
      }
      if (Bits(any) != 0) searching = Take(codec, searching, candidate, wanted);
    }
    return lanes & ~searching;
  }
};

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_ENCODE_BLOCK_H_
