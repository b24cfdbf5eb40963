// The words in which encode_lanes.h is written, for vectors as the compiler offers them anywhere.
// The file that includes this has defined kLanes.

#ifndef COSETQ_CPU_ENCODE_VECTORS_H_
#define COSETQ_CPU_ENCODE_VECTORS_H_

#include <stdint.h>
#include <string.h>

namespace cosetq {
namespace {

typedef float F __attribute__((vector_size(4 * kLanes)));
typedef uint32_t U __attribute__((vector_size(4 * kLanes)));
typedef int32_t M __attribute__((vector_size(4 * kLanes)));  // all bits of a lane, or none

constexpr M kNone = {};

inline F Splat(float x) { return F{} + x; }
inline U SplatInt(uint32_t x) { return U{} + x; }

template <typename V>
inline V Load(const void* from) {
  V v;
  memcpy(&v, from, sizeof v);
  return v;
}

inline M Gt(F a, F b) { return a > b; }
inline M Ge(F a, F b) { return a >= b; }
inline M Eq(U a, U b) { return a == b; }
inline F Select(M m, F a, F b) { return m ? a : b; }
inline U Select(M m, U a, U b) { return m ? a : b; }
inline F Max(F a, F b) { return a > b ? a : b; }
inline F Min(F a, F b) { return a < b ? a : b; }
inline F Abs(F a) { return reinterpret_cast<F>(reinterpret_cast<U>(a) & 0x7fffffffu); }
inline U Sign(F a) { return reinterpret_cast<U>(reinterpret_cast<M>(a) >> 31); }

uint32_t Bits(M m);  // bit i for lane i; as Pack and others in the file that includes this

inline U Lane() {
  U lane;
  for (uint32_t i = 0; i < kLanes; ++i) lane[i] = i;
  return lane;
}

inline M FirstLanes(int count) { return Lane() < static_cast<uint32_t>(count); }

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_ENCODE_VECTORS_H_
