// The encoder for AVX-512. Built with its own flags; reached only through encode.cc.

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace cosetq {
namespace {

constexpr int kLanes = 16;

typedef float F __attribute__((vector_size(64)));
typedef uint32_t U __attribute__((vector_size(64)));
typedef __mmask16 M;

constexpr M kNone = 0;

inline __m512i Int(U a) { return reinterpret_cast<__m512i>(a); }
inline U Uint(__m512i a) { return reinterpret_cast<U>(a); }

inline F Splat(float x) { return _mm512_set1_ps(x); }
inline U SplatInt(uint32_t x) { return Uint(_mm512_set1_epi32(static_cast<int32_t>(x))); }

template <typename V>
inline V Load(const void* from) {
  V v;
  memcpy(&v, from, sizeof v);
  return v;
}

inline M Gt(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline M Ge(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
inline M Eq(U a, U b) { return _mm512_cmpeq_epi32_mask(Int(a), Int(b)); }
inline F Select(M m, F a, F b) { return _mm512_mask_blend_ps(m, b, a); }
inline U Select(M m, U a, U b) { return Uint(_mm512_mask_blend_epi32(m, Int(b), Int(a))); }
inline F Max(F a, F b) { return _mm512_max_ps(a, b); }
inline F Min(F a, F b) { return _mm512_min_ps(a, b); }
inline F Abs(F a) { return _mm512_abs_ps(a); }
inline U Sign(F a) { return Uint(_mm512_srai_epi32(_mm512_castps_si512(a), 31)); }
inline uint32_t Bits(M m) { return m; }
inline M FromBits(uint32_t bits) { return static_cast<M>(bits); }

inline U Gather(const uint32_t* table, U at) {
  return Uint(_mm512_i32gather_epi32(Int(at), table, 4));
}

// Turns 16 groups of 8 by taking every second number three times.
inline void LoadTile(const float* groups, F* x) {
  const __m512i even =
      _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  F a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = Load<F>(groups + 16 * i);
  for (int bit = 1; bit < 8; bit *= 2) {
    for (int i = 0; i < 8; ++i) {
      const int low = i & ~bit;
      b[i] = _mm512_permutex2var_ps(a[low], i & bit ? odd : even, a[low | bit]);
    }
    memcpy(a, b, sizeof a);
  }
  memcpy(x, a, sizeof a);
}

}  // namespace
}  // namespace cosetq

#include "encode_lanes.h"

namespace cosetq {

const EncodeKernel kAvx512Encode = {"avx512", Encode};

}  // namespace cosetq
