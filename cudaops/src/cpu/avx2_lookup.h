// Table look-ups of the rows of a tile. For files built with AVX2 only.
//
// A table of 256 entries is 16 shuffles of 16 entries, of which bits 4 to 7 of the digit choose one.

#ifndef COSETQ_CPU_AVX2_LOOKUP_H_
#define COSETQ_CPU_AVX2_LOOKUP_H_

#include "avx2_rows.h"
#include "store_rows.h"

namespace cosetq {
namespace {

inline ALWAYS_INLINE __m256i Table16(const uint8_t* table) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

// table[digit] for a table of 256 bytes.
inline ALWAYS_INLINE __m256i LookUp(const uint8_t* table, __m256i digits) {
  // A shuffle gives zero where bit 7 of its index is set.
  const __m256i high = _mm256_xor_si256(digits, _mm256_set1_epi8(-128));
  const __m256i bit[3] = {_mm256_slli_epi16(digits, 3), _mm256_slli_epi16(digits, 2), _mm256_slli_epi16(digits, 1)};
  __m256i part[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    part[i] = _mm256_or_si256(_mm256_shuffle_epi8(Table16(table + 16 * i), digits), _mm256_shuffle_epi8(Table16(table + 128 + 16 * i), high));
    // Choose as soon as both are there: few registers hold unfinished choices.
    if (i % 2 == 1) part[i] = _mm256_blendv_epi8(part[i - 1], part[i], bit[0]);
    if (i % 4 == 3) part[i] = _mm256_blendv_epi8(part[i - 2], part[i], bit[1]);
    if (i % 8 == 7) part[i] = _mm256_blendv_epi8(part[i - 4], part[i], bit[2]);
  }
  return part[7];
}

// The low (b = 0) or high four bits of every byte, looked up in 16 entries.
inline ALWAYS_INLINE __m256i LookUpNibbles(const uint8_t* table, __m256i bytes, int b) {
  return _mm256_shuffle_epi8(Table16(table), _mm256_and_si256(b == 0 ? bytes : _mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15)));
}

// Products of the 16 codewords from `first` on with four activations, in units of the step, as words.
inline __m256i ProductWords(const float (*centred)[256], int first, const float* a) {
  __m256i value[2];
  for (int i = 0; i < 2; ++i) {
    const int at = first + 8 * i;
    __m256 sum = _mm256_mul_ps(_mm256_load_ps(centred[0] + at), _mm256_set1_ps(a[0]));
    for (int j = 1; j < 4; ++j)
      sum = _mm256_fmadd_ps(_mm256_load_ps(centred[j] + at), _mm256_set1_ps(a[j]), sum);
    value[i] = _mm256_cvtps_epi32(sum);
  }
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(value[0], value[1]), 0xd8);
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_AVX2_LOOKUP_H_
