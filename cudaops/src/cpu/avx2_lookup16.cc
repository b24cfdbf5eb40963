// Value look-up with tables of two bytes, AVX2: as avx512_lookup.cc, with the look-ups of avx2_lookup.h.

#include "avx2_lookup.h"

namespace cosetq {
namespace {

constexpr float kLargest = 16382;  // of one product; two make 32764, and rounding adds at most 2

// Products of `count` codewords with four activations, in units of the step: low bytes, and high ones.
inline void BuildEntries(const float (*centred)[256], int count, const float* a, uint8_t* low, uint8_t* high) {
  for (int c = 0; c < count; c += 16) {
    const __m256i words = ProductWords(centred, c, a);
    const auto pack = [](__m256i bytes, uint8_t* to) {  // words below 256
      _mm_store_si128(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
    };
    pack(_mm256_and_si256(words, _mm256_set1_epi16(255)), low + c);
    pack(_mm256_srli_epi16(words, 8), high + c);
  }
}

// Products of half of the rows as words: half[0] holds those of bytes 0 to 7 of every 128 bits, half[1] of bytes 8 to 15.
struct Words {
  __m256i half[2];
};

inline ALWAYS_INLINE Words Join(__m256i low, __m256i high) {
  return {{_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)}};
}

inline ALWAYS_INLINE Words Add(const Words& a, const Words& b) {
  return {{_mm256_add_epi16(a.half[0], b.half[0]), _mm256_add_epi16(a.half[1], b.half[1])}};
}

// The products of both blocks of a group, of half of the rows.
inline ALWAYS_INLINE Words Products256(const uint8_t* table, const uint8_t* codes, int tile, int h) {
  const __m256i first = LoadHalf(codes, tile, h), second = LoadHalf(codes + tile, tile, h);
  const Words a = Join(LookUp(table, first), LookUp(table + 256, first));
  table += kBlockTable;
  return Add(a, Join(LookUp(table, second), LookUp(table + 256, second)));
}

inline ALWAYS_INLINE Words Products16(const uint8_t* table, __m256i bytes, int b) {
  return Join(LookUpNibbles(table, bytes, b), LookUpNibbles(table + 16, bytes, b));
}

// Quarter q of half of the rows as 32-bit lanes, the first group in the low word and the second in the high word. Lane 4 * l + i
// of quarter q is row 16 * l + 4 * q + i.
inline ALWAYS_INLINE __m256i Interleave(const Words& first, const Words& second, int q) {
  return q % 2 == 0 ? _mm256_unpacklo_epi16(first.half[q / 2], second.half[q / 2])
                    : _mm256_unpackhi_epi16(first.half[q / 2], second.half[q / 2]);
}

template <Form kForm>
void LookupForm(const WeightView& w, int64_t tile, int64_t pair, int64_t count, const uint8_t* tables, const float* steps, float* lanes) {
  const int64_t group_bytes = static_cast<int64_t>(FormElements(kForm)) * w.tile;
  const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + (tile * w.groups + 2 * pair) * group_bytes;
  const __m128i ratio = _mm_cvtsi32_si128(w.tables->ratio_log2);
  const __m256i zero = _mm256_setzero_si256();
  GainStream gains(w, tile, 2 * pair);
  for (int64_t p = 0; p < count; ++p, tables += LookupTableBytes(w, 2)) {
    // The tables of a group past the last are zero; any codes will do.
    const uint8_t* of[2] = {codes, 2 * (pair + p) + 1 == w.groups ? codes : codes + group_bytes};
    codes += 2 * group_bytes;
    const Rows gain0 = gains.Next(), gain1 = gains.Next();
    const __m256 step = _mm256_set1_ps(steps[p]);
    for (int h = 0; h < 2; ++h) {
      Words level[2];  // [group]
      // Gains of the two groups as neighbouring bytes, in the order of Words.
      const Words both_gains = Join(gain0.half[h], gain1.half[h]);
      __m256i gain[4], total[4];
      for (int q = 0; q < 4; ++q)
        gain[q] = q % 2 == 0 ? _mm256_unpacklo_epi8(both_gains.half[q / 2], zero) : _mm256_unpackhi_epi8(both_gains.half[q / 2], zero);
      if constexpr (kForm != Form::kOneByte) {
        const int64_t coarse = (FormElements(kForm) - 2) * w.tile;
        for (int u = 0; u < 2; ++u) level[u] = Products256(tables + 2 * u * kBlockTable, of[u] + coarse, w.tile, h);
        for (int q = 0; q < 4; ++q) total[q] = _mm256_sll_epi32(_mm256_madd_epi16(Interleave(level[0], level[1], q), gain[q]), ratio);
      } else {
        for (int q = 0; q < 4; ++q) total[q] = zero;
      }
      for (int u = 0; u < 2; ++u) {
        if constexpr (kForm == Form::kNibbleByte) {
          const uint8_t* nibbles = tables + 4 * kBlockTable + 2 * u * kNibbleTable;
          const __m256i both = LoadHalf(of[u], w.tile, h);
          level[u] = Add(Products16(nibbles, both, 0), Products16(nibbles + kNibbleTable, both, 1));
        } else {
          level[u] = Products256(tables + 2 * u * kBlockTable, of[u], w.tile, h);
        }
      }
      for (int q = 0; q < 4; ++q) {
        total[q] = _mm256_add_epi32(total[q], _mm256_madd_epi16(Interleave(level[0], level[1], q), gain[q]));
        float* to = lanes + 32 * h + 8 * q;
        _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(total[q]), step, _mm256_load_ps(to)));
      }
    }
  }
}

}  // namespace

void Avx2LookupBuild16(const WeightView& w, const float* a, int64_t count, uint8_t* tables, float* steps) {
  const FormTables& t = *w.tables;
  const bool nibbles = w.form == Form::kNibbleByte;
  for (int64_t p = 0; p < count; ++p, tables += LookupTableBytes(w, 2)) {
    float scaled[2 * kGroup];
    steps[p] = ScaleActivations(w, a + p * 2 * kGroup, 4, kLargest, scaled);
    for (int b = 0; b < 4; ++b) {
      uint8_t* low = tables + b * kBlockTable;
      BuildEntries(t.centred[nibbles ? 1 : 0], 256, scaled + 4 * b, low, low + 256);
      if (!nibbles) continue;
      low = tables + 4 * kBlockTable + b * kNibbleTable;
      BuildEntries(t.centred[0], 16, scaled + 4 * b, low, low + 16);
    }
  }
}

void Avx2Lookup16(const WeightView& w, int64_t tile, int64_t pair, int64_t count, const uint8_t* tables, const float* steps, const uint8_t*,
                  float* lanes) {
  switch (w.form) {
    case Form::kOneByte:
      return LookupForm<Form::kOneByte>(w, tile, pair, count, tables, steps, lanes);
    case Form::kTwoByte:
      return LookupForm<Form::kTwoByte>(w, tile, pair, count, tables, steps, lanes);
    case Form::kNibbleByte:
      return LookupForm<Form::kNibbleByte>(w, tile, pair, count, tables, steps, lanes);
    case Form::kNibbles:
    case Form::kTwoBits:
    case Form::kGeneral:
      return;
  }
}

void Avx2StoreQuarters(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride) {
  StoreRows(lanes, columns, rows, y, stride, [](const float* from, float* sums) {
    for (int h = 0; h < 2; ++h) {
      for (int q = 0; q < 4; ++q) {
        for (int j = 0; j < 8; ++j) sums[32 * h + 16 * (j / 4) + 4 * q + j % 4] = from[32 * h + 8 * q + j];
      }
    }
  });
}

}  // namespace cosetq
