// Products of decoded weights and integer activations with AVX-512 VNNI: where activations stand, and how sums end. For
// files built with AVX-512 only.

#ifndef COSETQ_CPU_AVX512_PRODUCTS_H_
#define COSETQ_CPU_AVX512_PRODUCTS_H_

#include "avx512_panel.h"

namespace cosetq {

// Activations of one block and row, of each half an integer that sums begin with, then the bytes in the order of the
// steps. Weights have kPanelCentre added: sums begin with as much less. With two parts they are the high bytes of
// 16-bit numbers, followed by the low bytes.
constexpr int64_t kHalfRowBytes = 4 * (1 + kHalfSteps);
constexpr int64_t kPartBytes = kHalves * kHalfRowBytes;

// See PanelTileFn in kernels.h: blocks of one column, activations in one part, and most rows of A for it.
void Avx512MultiplyTile(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales, int64_t columns,
                        float* sums);
int64_t Avx512TileColumns(const WeightView& w);

namespace {

// to += scale * sum.
inline ALWAYS_INLINE void AddScaled(__m512i sum, float scale, __m512* to) {
  *to = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale), *to);
}

inline ALWAYS_INLINE __m512i Broadcast(const uint8_t* four) {
  int32_t value;
  __builtin_memcpy(&value, four, sizeof value);
  return _mm512_set1_epi32(value);
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_AVX512_PRODUCTS_H_
