// What the integer kernels of AVX2 share: codewords as words of four bytes, and blocks of
// activations. For files built with AVX2 only.

#ifndef COSETQ_CPU_AVX2_PANEL_H_
#define COSETQ_CPU_AVX2_PANEL_H_

#include "avx2_rows.h"

namespace cosetq {
namespace {

constexpr int kHalves = 2;  // of a block; with activations of 8 bits each has its scale

// words[2 * g + half][row] are four columns of group g of a block. Groups past the last stay as
// they are.
template <Form kForm>
inline ALWAYS_INLINE void AddCodewords(const WordTables& t, const uint8_t* codes, int tile,
                                       uint32_t* out) {
  for (int b = 0; b < 2; ++b, out += kTile) {
    const uint8_t* fine = codes + (kForm == Form::kNibbleByte ? 0 : b * tile);
    const uint8_t* coarse = codes + (FormElements(kForm) - 2 + b) * tile;
#pragma GCC unroll 8
    for (int r = 0; r < tile; ++r) {
      uint32_t word =
          t.codewords[0][kForm == Form::kNibbleByte ? fine[r] >> (4 * b) & 15 : fine[r]];
      if constexpr (kForm != Form::kOneByte) word += t.codewords[1][coarse[r]];
      out[r] = word;
    }
  }
}

// Four vectors of bytes as words, byte j from v[j]. Word 4 * l + i of out[q] is row 16 * l + 4 * q
// + i.
inline ALWAYS_INLINE void Interleave4(const __m256i* v, __m256i* out) {
  const __m256i low01 = _mm256_unpacklo_epi8(v[0], v[1]), low23 = _mm256_unpacklo_epi8(v[2], v[3]);
  const __m256i high01 = _mm256_unpackhi_epi8(v[0], v[1]),
                high23 = _mm256_unpackhi_epi8(v[2], v[3]);
  out[0] = _mm256_unpacklo_epi16(low01, low23);
  out[1] = _mm256_unpackhi_epi16(low01, low23);
  out[2] = _mm256_unpacklo_epi16(high01, high23);
  out[3] = _mm256_unpackhi_epi16(high01, high23);
}

// Codewords of one column by look-up in registers, eight rows at a time: the even columns of a
// group in one word and the odd ones in another.
class NibbleTable {
 public:
  explicit NibbleTable(const WordTables& t) {
    alignas(16) uint8_t values[16];
    for (int d = 0; d < 16; ++d) values[d] = static_cast<uint8_t>(t.codewords[0][d]);
    table_ = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<__m128i*>(values)));
  }

  ALWAYS_INLINE __m256i Even(__m256i codes) const {
    return _mm256_shuffle_epi8(table_, _mm256_and_si256(codes, _mm256_set1_epi8(15)));
  }
  ALWAYS_INLINE __m256i Odd(__m256i codes) const { return Even(_mm256_srli_epi16(codes, 4)); }

 private:
  __m256i table_;
};

inline ALWAYS_INLINE void LookUpNibbles(const WordTables& t, const uint8_t* codes, int tile,
                                        uint32_t* out) {
  const NibbleTable table(t);
  Rows element[4];
  for (int e = 0; e < 4; ++e) element[e] = LoadRows(codes + e * tile, tile);
  for (int h = 0; h < 2; ++h) {
    __m256i apart[4], four[4];
    for (int e = 0; e < 4; ++e) apart[e] = element[e].half[h];
    Interleave4(apart, four);
    for (int q = 0; q < 4; ++q) {
      const __m256i words[2] = {table.Even(four[q]), table.Odd(four[q])};
      for (int odd = 0; odd < 2; ++odd) {
        uint32_t* to = out + odd * kTile + 32 * h + 4 * q;
        _mm_store_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(words[odd]));
        _mm_store_si128(reinterpret_cast<__m128i*>(to + 16),
                        _mm256_extracti128_si256(words[odd], 1));
      }
    }
  }
}

inline void DecodeWords(const WeightView& w, const uint8_t* codes, uint32_t* out) {
  const WordTables& t = w.tables->words;
  switch (w.form) {
    case Form::kOneByte:
      return AddCodewords<Form::kOneByte>(t, codes, w.tile, out);
    case Form::kTwoByte:
      return AddCodewords<Form::kTwoByte>(t, codes, w.tile, out);
    case Form::kNibbleByte:
      return AddCodewords<Form::kNibbleByte>(t, codes, w.tile, out);
    case Form::kNibbles:
      return LookUpNibbles(t, codes, w.tile, out);
    case Form::kTwoBits:
    case Form::kGeneral:
      return;
  }
}

inline const uint8_t* GroupCodes(const WeightView& w, int64_t tile, int64_t group) {
  return static_cast<const uint8_t*>(w.codes) + (tile * w.groups + group) * w.elements * w.tile;
}

inline ALWAYS_INLINE void Store(void* to, __m256i v) {
  _mm256_store_si256(static_cast<__m256i*>(to), v);
}

inline ALWAYS_INLINE __m256i Word(const uint8_t* from) {
  int32_t word;
  memcpy(&word, from, sizeof word);
  return _mm256_set1_epi32(word);
}

inline ALWAYS_INLINE float LargestLane(__m128i m) {
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

// One block of a row of A: 8 groups in lanes, 8 columns.
struct Block {
  __m256 v[kGroup];

  // Scales numbers to integers up to limit, both halves alike or each by its own. Writes what 1
  // stands for, the second scale a stride behind the first.
  template <int kScales>
  ALWAYS_INLINE void Scale(__m256i largest, float limit, float unit, int64_t stride,
                           float* scales) {
    __m128i half[2] = {_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1)};
    if (kScales == 1) half[0] = half[1] = _mm_max_epu32(half[0], half[1]);
    __m128 inverse[2];
    for (int h = 0; h < 2; ++h) {
      const float top = LargestLane(half[h]);
      const bool any = top > 1e-30f;  // below, and its inverse would leave float's range
      inverse[h] = _mm_set1_ps(any ? limit / top : 0);
      // NaN when an activation is NaN or infinite.
      if (h < kScales) scales[h * stride] = (any ? top / limit * unit : top) + 0 * top;
    }
    for (int j = 0; j < kGroup; ++j)
      v[j] = _mm256_mul_ps(v[j], _mm256_set_m128(inverse[1], inverse[0]));
  }

  // Returns the largest size of each group, as the bits of a float, so that a NaN is larger than
  // every number.
  ALWAYS_INLINE __m256i Load(const WeightView& w, const float* a, int64_t first) {
    const __m256 sign_off = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i largest = _mm256_setzero_si256();
    for (int j = 0; j < kGroup; ++j) {
      const int64_t at = PlaceColumn(w, j) * w.groups + first;
      const int64_t in_row = w.cols - at, in_run = w.groups - first;
      const int64_t left = in_row < in_run ? in_row : in_run;
      const int take = left >= 8 ? 8 : left <= 0 ? 0 : static_cast<int>(left);
      v[j] = take == 0
                 ? _mm256_setzero_ps()
                 : _mm256_maskload_ps(a + at, _mm256_cmpgt_epi32(_mm256_set1_epi32(take), lane));
      largest = _mm256_max_epu32(largest, _mm256_castps_si256(_mm256_and_ps(v[j], sign_off)));
    }
    return largest;
  }
};

// The low bytes of four vectors of integers side by side.
inline ALWAYS_INLINE __m256i JoinBytes(const __m256i* v) {
  const __m256i low = _mm256_set1_epi32(255);
  const __m256i a = _mm256_or_si256(_mm256_and_si256(v[0], low),
                                    _mm256_slli_epi32(_mm256_and_si256(v[1], low), 8));
  const __m256i b = _mm256_or_si256(_mm256_slli_epi32(_mm256_and_si256(v[2], low), 16),
                                    _mm256_slli_epi32(v[3], 24));
  return _mm256_or_si256(a, b);
}

// The low halves of two vectors of integers side by side.
inline ALWAYS_INLINE __m256i JoinHalves(__m256i a, __m256i b) {
  return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa);
}

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_AVX2_PANEL_H_
