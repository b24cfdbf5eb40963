// Decoded weights and integer activations of AVX-512 and AMX: where they stand, and how activations
// become integers. For files built with AVX-512 only.

#ifndef COSETQ_CPU_AVX512_PANEL_H_
#define COSETQ_CPU_AVX512_PANEL_H_

#include "avx512_lookup.h"
#include "kernels.h"

namespace cosetq {

// A step is four columns, four bytes of every row of the tile side by side, rows in the order of
// lanes as in the look-up kernels. A block takes the lower four columns of each group, then the upper
// four (with blocks of one column the even ones and the odd ones); its rests are the weights of the rests of groups 0 to 3 and of groups 4 to 7.
constexpr int kWeightSteps = 2 * kBlockGroups;
constexpr int kRestSteps = 2;
constexpr int64_t kStepBytes = 4 * kTile;

// For VNNI the rests of a block follow it, and then, in 32 bits, -128 times the sum of each row's
// weights, of groups 0 to 3 and of groups 4 to 7.
constexpr int kBlockSteps = kWeightSteps + kRestSteps;
constexpr int kHalves = 2;
constexpr int64_t kBlockBytes = (kBlockSteps + kHalves) * kStepBytes;

// For AMX the rests of all blocks stand together, filled up with zeros to the size of a block.
constexpr int kTileBlocks = 8;  // that share their rests
constexpr int64_t kTileBytes = kWeightSteps * kStepBytes;

constexpr int kAheadBlocks = 3;  // that codes are fetched ahead

// See PanelUsableFn and PanelDecodeFn in kernels.h.
bool Avx512PanelUsable(const FormTables& tables);
void Avx512Decode(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel);
void Avx512DecodeTiles(const WeightView& w, int64_t tile, int64_t first, int64_t count,
                       uint8_t* panel);

namespace {

// Low bytes of four vectors of integers side by side.
inline __m256i Join(const __m256i* v) {
  const __m256i low = _mm256_set1_epi32(255);
  const __m256i a = _mm256_or_si256(_mm256_and_si256(v[0], low),
                                    _mm256_slli_epi32(_mm256_and_si256(v[1], low), 8));
  const __m256i b = _mm256_or_si256(_mm256_slli_epi32(_mm256_and_si256(v[2], low), 16),
                                    _mm256_slli_epi32(v[3], 24));
  return _mm256_or_si256(a, b);
}

// Writes one byte of each of the integers of a block: 8 columns of 8 groups, or the 8 rests.
inline void StoreSteps(const __m256i* v, uint8_t* out) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), Join(v));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 4 * kBlockGroups), Join(v + 4));
}

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

// The column of a group that stands in place j: elements of two columns give the even ones first.
inline int Column(const WeightView& w, int j) {
  return w.form == Form::kNibbles ? 2 * j % kGroup + j / 4 : j;
}

// One block of a row of A: 8 groups in lanes, 8 columns.
struct ActivationBlock {
  __m256 v[kGroup];

  // Returns the largest size of each group, as the bits of a float, so that a NaN is larger than every
  // number.
  ALWAYS_INLINE __m256i Load(const WeightView& w, const float* a, int64_t first) {
    const __m256i sign_off = _mm256_set1_epi32(0x7fffffff);
    __m256i largest = _mm256_setzero_si256();
    for (int j = 0; j < kGroup; ++j) {
      const int64_t at = Column(w, j) * w.groups + first;
      const int64_t in_row = w.cols - at, in_run = w.groups - first;
      const int64_t left = in_row < in_run ? in_row : in_run;
      const int mask = left >= 8 ? 0xff : left <= 0 ? 0 : (1 << left) - 1;
      v[j] = _mm256_maskz_loadu_ps(static_cast<__mmask8>(mask), a + at);
      largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(v[j]), sign_off));
    }
    return largest;
  }

  // As integers, and their rests; inverse holds the scale of each group.
  ALWAYS_INLINE void Round(const PanelTables& t, __m256 inverse, __m256i* out) const {
    __m256 rest = _mm256_setzero_ps();
    for (int j = 0; j < kGroup; ++j) {
      rest = _mm256_fmadd_ps(v[j], _mm256_set1_ps(t.rest[j]), rest);
      out[j] = _mm256_cvtps_epi32(_mm256_mul_ps(v[j], inverse));
    }
    out[kGroup] = _mm256_cvtps_epi32(_mm256_mul_ps(rest, inverse));
  }
};

// What activations are multiplied with to become integers up to a limit, and what the integer 1 then
// stands for: NaN when an activation is NaN or infinite.
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
