// The rotary embedding: pairs of coordinates of a head are turned by the angle of their position.

#ifndef COSETQ_EP_ROTARY_H_
#define COSETQ_EP_ROTARY_H_

#include "scalar.h"

namespace cosetq::ep {

struct Operator;
// The rotary embedding of a graph that has it in pieces: inputs are x, whose halves are turned, and what is as cosines and sines broadcast over it.
const Operator& MatchedRotation();
// Those of queries and keys, by the same cosines and sines, and Concats of earlier keys and values with the new ones along the third of four dimensions: inputs
// are queries, keys, values, cosines, sines and the earlier two, outputs the queries and all keys and values. Attributes "queries_swapped", "keys_swapped".
const Operator& AppendOperator();

// Cosines and sines of the angles, [positions, turned / 2] each, of the first turned coordinates.
struct Angles {
  const void *cosine, *sine;
  int positions, turned;
  bool interleaved;  // pairs are neighbours, else half of turned apart
};

// A coordinate x, the first or second of a pair, and the other one, turned by an angle.
template <typename T>
COSETQ_HD inline T Turn(bool first, float x, float other, float cosine, float sine) {
  return FromFloat<T>(first ? x * cosine - other * sine : x * cosine + other * sine);
}

// Coordinate d < turned of a head. A position that is out of range gives zero.
template <typename T>
COSETQ_HD inline T Turned(const Angles& a, const T* head, int d, int64_t position) {
  if (position < 0 || position >= a.positions) return FromFloat<T>(0);
  const int half = a.turned / 2;
  const int pair = a.interleaved ? d / 2 : d % half;
  const bool first = a.interleaved ? d % 2 == 0 : d < half;
  const int other = a.interleaved ? d ^ 1 : first ? d + half : d - half;
  const float c = ToFloat(static_cast<const T*>(a.cosine)[position * half + pair]);
  const float s = ToFloat(static_cast<const T*>(a.sine)[position * half + pair]);
  return Turn<T>(first, ToFloat(head[d]), ToFloat(head[other]), c, s);
}

}  // namespace cosetq::ep

#endif  // COSETQ_EP_ROTARY_H_
