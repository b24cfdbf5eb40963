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

// Turns 8 groups of 8 by taking every second number three times.
inline void LoadTile(const float* groups, F* x) {
  const M even = {0, 2, 4, 6, 8, 10, 12, 14};
  F a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = Load<F>(groups + 8 * i);
  for (int bit = 1; bit < 8; bit *= 2) {
    for (int i = 0; i < 8; ++i) {
      const int low = i & ~bit;
      b[i] = __builtin_shuffle(a[low], a[low | bit], i & bit ? even + 1 : even);
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
