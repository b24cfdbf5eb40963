// Table look-ups of 64 bytes at once, and the value look-up kernels. For files built with AVX-512
// VBMI only.

#ifndef COSETQ_CPU_AVX512_LOOKUP_H_
#define COSETQ_CPU_AVX512_LOOKUP_H_

#include <immintrin.h>

#include "weight_view.h"

#define ALWAYS_INLINE __attribute__((always_inline))

namespace cosetq {

// See LookupBuildFn, LookupFn and LaneRowsFn in kernels.h.
void Avx512LookupBuild(const WeightView& w, const float* a, int64_t pair, int64_t count,
                       uint8_t* tables, float* steps);
void Avx512Lookup(const WeightView& w, int64_t tile, int64_t pair, int64_t count,
                  const uint8_t* tables, const float* steps, float* lanes);
void Avx512LaneRows(const float* lanes, float* sums);

// See PanelDecodeFn, PanelQuantizeFn and PanelMultiplyFn in kernels.h.
void Avx512PanelDecode(const WeightView& w, int64_t tile, int64_t first, int64_t count,
                       int8_t* panel);
void Avx512PanelQuantize(const WeightView& w, const float* a, int parts, int64_t columns,
                         uint8_t* out, float* scales);
void Avx512PanelMultiply(const int8_t* panel, const uint8_t* a, const float* scales, int64_t count,
                         int columns, int parts, float* sums);

namespace {

// body(0) … body(kCount - 1), unrolled before anything else: arrays indexed by the argument then live
// in registers.
template <int kCount, typename Body>
inline ALWAYS_INLINE void Unroll(const Body& body) {
  if constexpr (kCount > 0) {
    Unroll<kCount - 1>(body);
    body(kCount - 1);
  }
}

// Rows of a tile; a load under this mask reads no byte past the tile and gives zero digits to the
// missing rows.
inline __mmask64 TileMask(const WeightView& w) { return ~__mmask64{0} >> (kTile - w.tile); }

// table[index] for a table of 256 bytes on a 64-byte boundary.
inline __m512i Lookup256(const void* table, __m512i index) {
  const __m512i* t = static_cast<const __m512i*>(table);
  const __m512i low =
      _mm512_permutex2var_epi8(_mm512_load_si512(t), index, _mm512_load_si512(t + 1));
  const __m512i high =
      _mm512_permutex2var_epi8(_mm512_load_si512(t + 2), index, _mm512_load_si512(t + 3));
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
}

// table[index] for a table of 16 bytes; index must be below 16.
inline __m512i Lookup16(const void* table, __m512i index) {
  return _mm512_shuffle_epi8(
      _mm512_broadcast_i32x4(_mm_load_si128(static_cast<const __m128i*>(table))), index);
}

// Low (which = 0) or high four bits of every byte.
inline __m512i Nibbles(__m512i bytes, int which) {
  return _mm512_and_si512(_mm512_srli_epi16(bytes, static_cast<unsigned>(4 * which)),
                          _mm512_set1_epi8(15));
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_AVX512_LOOKUP_H_
