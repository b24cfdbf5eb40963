// The encoder for AVX2. Built with its own flags; reached only through encode.cc.

#include <immintrin.h>
#include <stdint.h>

namespace cosetq {
namespace {
constexpr int kLanes = 8;
}  // namespace
}  // namespace cosetq

#include "encode_vectors.h"

namespace cosetq {
namespace {

inline uint32_t Bits(M m) {
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(m)));
}

inline U Gather(const uint32_t* table, U at) {
  return reinterpret_cast<U>(_mm256_i32gather_epi32(reinterpret_cast<const int*>(table),
                                                    reinterpret_cast<__m256i>(at), 4));
}

// Every second number of a and then of b, from the first (0x88) or the second (0xdd) on.
template <int kFrom>
inline F EverySecond(F a, F b) {
  const __m256 halves = _mm256_shuffle_ps(a, b, kFrom);
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(halves), 0xd8));
}

// Turns 8 groups of 8 by taking every second number three times.
inline void LoadTile(const float* groups, F* x) {
  F a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = Load<F>(groups + 8 * i);
  for (int bit = 1; bit < 8; bit *= 2) {
    for (int i = 0; i < 8; ++i) {
      const int low = i & ~bit;
      b[i] = i & bit ? EverySecond<0xdd>(a[low], a[low | bit]) : EverySecond<0x88>(a[low], a[low | bit]);
    }
    memcpy(a, b, sizeof a);
  }
  memcpy(x, a, sizeof a);
}

}  // namespace
}  // namespace cosetq

#include "encode_digits.h"
#include "encode_lanes.h"

namespace cosetq {

const EncodeKernel kAvx2Encode = {"avx2", Encode};

}  // namespace cosetq
