// Decoded weights and integer activations of AVX-512 and AMX: where they stand, and how activations
// become integers. For files built with AVX-512 only.

#ifndef COSETQ_CPU_AVX512_PANEL_H_
#define COSETQ_CPU_AVX512_PANEL_H_

#include <string.h>

#include "avx512_lookup.h"
#include "kernels.h"

namespace cosetq {

// Four groups make eight steps of four columns, four bytes of every row of the tile side by side,
// rows in the order of lanes as in the look-up kernels. With blocks of four columns step 2 * j + r
// holds coordinate j of both blocks of group r and then of group r + 2; with blocks of one column
// step g holds the even columns of group g, step 4 + g its odd ones. The rests of four groups are
// one step more.
constexpr int kQuadGroups = 4;
constexpr int kQuadSteps = 2 * kQuadGroups;
constexpr int kHalves = 2;  // of a block
constexpr int kWeightSteps = kHalves * kQuadSteps;
constexpr int64_t kStepBytes = 4 * kTile;

// For VNNI the rests of half a block follow its weights.
constexpr int kHalfSteps = kQuadSteps + 1;
constexpr int64_t kHalfBytes = kHalfSteps * kStepBytes;
constexpr int64_t kBlockBytes = kHalves * kHalfBytes;

// For AMX the rests of all blocks stand together: a tile of steps for the coarse ones and one for
// the fine ones, both filled up with zeros.
constexpr int kTileBlocks = 8;  // that share their rests
constexpr int kRestTiles = 2;
constexpr int64_t kTileBytes = kWeightSteps * kStepBytes;

// See PanelUsableFn and PanelDecodeFn in kernels.h.
bool Avx512PanelUsable(const FormTables& tables);
void Avx512Decode(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel);
void Avx512DecodeTiles(const WeightView& w, int64_t tile, int64_t first, int64_t count,
                       uint8_t* panel);

namespace {

inline ALWAYS_INLINE __m512i* Step(uint8_t* from, int64_t step) {
  return reinterpret_cast<__m512i*>(from + step * kStepBytes);
}

// The weights of the rests of up to kTileBlocks blocks.
class RestTiles {
 public:
  RestTiles(const WeightView& w, uint8_t* at)
      : at_(at), coarse_(_mm512_set1_epi16(w.tables->panel.coarse)) {}

  // The gains of four groups, the step'th, of some rows.
  ALWAYS_INLINE void Store(int64_t step, int64_t step_bytes, int q, int64_t tile_bytes,
                           __m512i gains) const {
    uint8_t* to = at_ + step * step_bytes + 64 * q;
    _mm512_store_si512(to, _mm512_mullo_epi16(gains, coarse_));
    _mm512_store_si512(to + tile_bytes, gains);
  }

  // Fills up what fewer blocks leave.
  void Clear(int64_t blocks, int64_t tile_bytes) const {
    if (blocks < kTileBlocks) memset(at_, 0, static_cast<size_t>(kRestTiles * tile_bytes));
  }

 private:
  uint8_t* at_;
  __m512i coarse_;
};

// Low bytes of four vectors of integers side by side.
inline __m256i Join(const __m256i* v) {
  const __m256i low = _mm256_set1_epi32(255);
  const __m256i a = _mm256_or_si256(_mm256_and_si256(v[0], low),
                                    _mm256_slli_epi32(_mm256_and_si256(v[1], low), 8));
  const __m256i b = _mm256_or_si256(_mm256_slli_epi32(_mm256_and_si256(v[2], low), 16),
                                    _mm256_slli_epi32(v[3], 24));
  return _mm256_or_si256(a, b);
}

inline void StoreHalf(__m128i v, uint8_t* out) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), v);
}

// Writes one byte of each of the integers of a block, 8 columns of 8 groups, in the order of its
// steps.
inline void StoreSteps(const WeightView& w, const __m256i* v, uint8_t* out) {
  constexpr int kHalf = 4 * kQuadSteps;
  if (w.form == Form::kNibbles) {
    for (int odd = 0; odd < 2; ++odd) {
      const __m256i steps = Join(v + 4 * odd);
      StoreHalf(_mm256_castsi256_si128(steps), out + 16 * odd);
      StoreHalf(_mm256_extracti128_si256(steps, 1), out + kHalf + 16 * odd);
    }
    return;
  }
  const __m256i low = _mm256_set1_epi32(255);
  for (int j = 0; j < 4; j += 2) {
    __m128i pair[2];
    for (int i = 0; i < 2; ++i) {
      const __m256i both =
          _mm256_or_si256(_mm256_and_si256(v[j + i], low),
                          _mm256_slli_epi32(_mm256_and_si256(v[j + i + 4], low), 8));
      // Words of groups 0, 2, 1, 3 and of 4, 6, 5, 7.
      pair[i] = _mm_shufflehi_epi16(_mm_shufflelo_epi16(_mm256_cvtepi32_epi16(both), 0xd8), 0xd8);
    }
    StoreHalf(_mm_unpacklo_epi64(pair[0], pair[1]), out + 8 * j);
    StoreHalf(_mm_unpackhi_epi64(pair[0], pair[1]), out + kHalf + 8 * j);
  }
}

// And of the 8 rests of a block.
inline void StoreRest(__m256i v, uint8_t* out) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm256_cvtepi32_epi8(v));
}

inline uint32_t LargestLane(__m128i v) {
  v = _mm_max_epu32(v, _mm_shuffle_epi32(v, 0x4e));
  v = _mm_max_epu32(v, _mm_shuffle_epi32(v, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(v));
}

inline uint32_t LargestLane(__m256i v) {
  return LargestLane(_mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

// One block of a row of A: 8 groups in lanes, 8 columns.
struct ActivationBlock {
  __m256 v[kGroup];
  __m256 rest;  // the sum of v[j] * rests[j]

  // Returns the largest size of each group, as the bits of a float, so that a NaN is larger than
  // every number.
  ALWAYS_INLINE __m256i Load(const WeightView& w, const float* a, int64_t first,
                             const float* rests) {
    rest = _mm256_setzero_ps();
    const __m256i sign_off = _mm256_set1_epi32(0x7fffffff);
    __m256i largest = _mm256_setzero_si256();
    for (int j = 0; j < kGroup; ++j) {
      const int64_t at = PlaceColumn(w, j) * w.groups + first;
      const int64_t in_row = w.cols - at, in_run = w.groups - first;
      const int64_t left = in_row < in_run ? in_row : in_run;
      const int mask = left >= 8 ? 0xff : left <= 0 ? 0 : (1 << left) - 1;
      v[j] = _mm256_maskz_loadu_ps(static_cast<__mmask8>(mask), a + at);
      largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(v[j]), sign_off));
      rest = _mm256_fmadd_ps(v[j], _mm256_set1_ps(rests[j]), rest);
    }
    return largest;
  }

  // As integers; inverse holds the scale of each group.
  ALWAYS_INLINE void Round(__m256 inverse, __m256i* out) const {
    for (int j = 0; j < kGroup; ++j) out[j] = _mm256_cvtps_epi32(_mm256_mul_ps(v[j], inverse));
  }
};

// What activations are multiplied with to become integers up to a limit, and what the integer 1
// then stands for: NaN when an activation is NaN or infinite.
struct ActivationScale {
  float inverse, unit;

  ALWAYS_INLINE ActivationScale(uint32_t bits, float limit, float weight_unit) {
    float top;
    __builtin_memcpy(&top, &bits, sizeof top);
    const bool any = top > 1e-30f;  // below, and its inverse would leave float's range
    inverse = any ? limit / top : 0;
    unit = (any ? top / limit * weight_unit : top) + 0 * top;
  }
};

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_AVX512_PANEL_H_
