// Value look-up with tables of one byte, AVX2: as avx512_lookup8.cc, with the look-ups of avx2_lookup.h.

#include "avx2_lookup.h"

namespace cosetq {
namespace {

constexpr float kLargest = 127;
constexpr int kUnitGroups = 4;
constexpr int64_t kTable = kBlockTable / 2;     // bytes
constexpr int64_t kNibbles = kNibbleTable / 2;  // bytes

// sum[i] += gain * (a + b) in 16 bits, for bytes 0 to 7 (i = 0) or 8 to 15 of every 128 bits. A unit's groups fit: 4 * 16 * 2 * 127
// is below 2^15.
inline ALWAYS_INLINE void AddProducts(__m256i gain, __m256i a, __m256i b, __m256i* sum) {
  sum[0] = _mm256_add_epi16(sum[0], _mm256_maddubs_epi16(_mm256_unpacklo_epi8(gain, gain), _mm256_unpacklo_epi8(a, b)));
  sum[1] = _mm256_add_epi16(sum[1], _mm256_maddubs_epi16(_mm256_unpackhi_epi8(gain, gain), _mm256_unpackhi_epi8(a, b)));
}

template <Form kForm>
void LookupForm(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                const uint8_t* tables, const float* steps, float* lanes) {
  const int64_t group_bytes = static_cast<int64_t>(FormElements(kForm)) * w.tile;
  const uint8_t* codes =
      static_cast<const uint8_t*>(w.codes) + (tile * w.groups + unit * kUnitGroups) * group_bytes;
  const __m128i ratio = _mm_cvtsi32_si128(w.tables->ratio_log2);
  GainStream gains(w, tile, unit * kUnitGroups);
  for (int64_t n = 0; n < count; ++n, tables += LookupTableBytes(w, 1)) {
    const int64_t left = w.groups - (unit + n) * kUnitGroups;
    const int groups = left < kUnitGroups ? static_cast<int>(left) : kUnitGroups;
    Rows gain[kUnitGroups];
    for (int g = 0; g < groups; ++g) gain[g] = gains.Next();
    const __m256 step = _mm256_set1_ps(steps[n]);
    for (int h = 0; h < 2; ++h) {
      __m256i fine[2], coarse[2];
      for (int i = 0; i < 2; ++i) fine[i] = coarse[i] = _mm256_setzero_si256();
      const uint8_t* at = codes;
#pragma GCC unroll 1
      for (int g = 0; g < groups; ++g, at += group_bytes) {
        const uint8_t* t = tables + 2 * g * kTable;
        if constexpr (kForm == Form::kNibbleByte) {
          const uint8_t* nibbles = tables + 2 * kUnitGroups * kTable + 2 * g * kNibbles;
          const __m256i both = LoadHalf(at, w.tile, h);
          AddProducts(gain[g].half[h], LookUpNibbles(nibbles, both, 0), LookUpNibbles(nibbles + kNibbles, both, 1), fine);
        } else {
          AddProducts(gain[g].half[h], LookUp(t, LoadHalf(at, w.tile, h)), LookUp(t + kTable, LoadHalf(at + w.tile, w.tile, h)), fine);
        }
        if constexpr (kForm != Form::kOneByte) {
          const uint8_t* from = at + (FormElements(kForm) - 2) * w.tile;
          AddProducts(gain[g].half[h], LookUp(t, LoadHalf(from, w.tile, h)), LookUp(t + kTable, LoadHalf(from + w.tile, w.tile, h)), coarse);
        }
      }
      for (int i = 0; i < 2; ++i) {
        for (int odd = 0; odd < 2; ++odd) {
          const auto widen = [&](__m256i v) {
            return _mm256_srai_epi32(odd ? v : _mm256_slli_epi32(v, 16), 16);
          };
          __m256i total = widen(fine[i]);
          if constexpr (kForm != Form::kOneByte)
            total = _mm256_add_epi32(total, _mm256_sll_epi32(widen(coarse[i]), ratio));
          float* to = lanes + 32 * h + 16 * i + 8 * odd;
          _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), step, _mm256_load_ps(to)));
        }
      }
    }
    codes += groups * group_bytes;
  }
}

// Products of count codewords with four activations, in units of the step.
inline void BuildEntries(const float (*centred)[256], int count, const float* a, uint8_t* table) {
  for (int c = 0; c < count; c += 16) {
    const __m256i words = ProductWords(centred, c, a);
    _mm_store_si128(reinterpret_cast<__m128i*>(table + c),
                    _mm_packs_epi16(_mm256_castsi256_si128(words),
                                    _mm256_extracti128_si256(words, 1)));
  }
}

}  // namespace

void Avx2LookupBuild8(const WeightView& w, const float* a, int64_t count, uint8_t* tables,
                      float* steps) {
  const FormTables& t = *w.tables;
  const bool nibbles = w.form == Form::kNibbleByte;
  constexpr int kBlocks = 2 * kUnitGroups;
  for (int64_t n = 0; n < count; ++n, tables += LookupTableBytes(w, 1)) {
    float scaled[kUnitGroups * kGroup];
    steps[n] = ScaleActivations(w, a + n * kUnitGroups * kGroup, kBlocks, kLargest, scaled);
    for (int b = 0; b < kBlocks; ++b) {
      BuildEntries(t.centred[nibbles ? 1 : 0], 256, scaled + 4 * b, tables + b * kTable);
      if (!nibbles) continue;
      BuildEntries(t.centred[0], 16, scaled + 4 * b, tables + kBlocks * kTable + b * kNibbles);
    }
  }
}

void Avx2Lookup8(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                 const uint8_t* tables, const float* steps, const uint8_t*, float* lanes) {
  switch (w.form) {
    case Form::kOneByte:
      return LookupForm<Form::kOneByte>(w, tile, unit, count, tables, steps, lanes);
    case Form::kTwoByte:
      return LookupForm<Form::kTwoByte>(w, tile, unit, count, tables, steps, lanes);
    case Form::kNibbleByte:
      return LookupForm<Form::kNibbleByte>(w, tile, unit, count, tables, steps, lanes);
    case Form::kNibbles:
    case Form::kTwoBits:
    case Form::kGeneral:
      return;
  }
}

void Avx2StoreLookup(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride) {
  StoreRows(lanes, columns, rows, y, stride, [](const float* from, float* sums) {
    for (int i = 0; i < 4; ++i) {
      for (int odd = 0; odd < 2; ++odd) {
        for (int j = 0; j < 8; ++j) {
          const int word = 2 * j + odd;  // of the 16 of a vector
          sums[32 * (i / 2) + 16 * (word / 8) + 8 * (i % 2) + word % 8] = from[16 * i + 8 * odd + j];
        }
      }
    }
  });
}

}  // namespace cosetq
