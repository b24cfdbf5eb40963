// Value look-up with tables of one byte, AVX2: as avx512_lookup8.cc, but a table of 256 entries is
// 16 shuffles of 16 entries, of which bits 4 to 7 of the digit choose one.

#include "avx2_rows.h"
#include "store_rows.h"

namespace cosetq {
namespace {

constexpr float kLargest = 127;
constexpr int kUnitGroups = 4;
constexpr int64_t kTable = kBlockTable / 2;     // bytes
constexpr int64_t kNibbles = kNibbleTable / 2;  // bytes

inline ALWAYS_INLINE __m256i Table16(const uint8_t* table) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

// table[digit] for a table of 256 bytes.
inline ALWAYS_INLINE Rows LookUp(const uint8_t* table, const Rows& digits) {
  Rows out, high;
  __m256i bit[2][3];
  for (int h = 0; h < 2; ++h) {
    const __m256i d = digits.half[h];
    // A shuffle gives zero where bit 7 of its index is set.
    high.half[h] = _mm256_xor_si256(d, _mm256_set1_epi8(-128));
    for (int i = 0; i < 3; ++i) bit[h][i] = _mm256_slli_epi16(d, 3 - i);
  }
  __m256i part[2][8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const __m256i low_table = Table16(table + 16 * i), high_table = Table16(table + 128 + 16 * i);
    for (int h = 0; h < 2; ++h) {
      part[h][i] = _mm256_or_si256(_mm256_shuffle_epi8(low_table, digits.half[h]),
                                   _mm256_shuffle_epi8(high_table, high.half[h]));
      // Choose as soon as both are there: few registers hold unfinished choices.
      if (i % 2 == 1) part[h][i] = _mm256_blendv_epi8(part[h][i - 1], part[h][i], bit[h][0]);
      if (i % 4 == 3) part[h][i] = _mm256_blendv_epi8(part[h][i - 2], part[h][i], bit[h][1]);
      if (i % 8 == 7) part[h][i] = _mm256_blendv_epi8(part[h][i - 4], part[h][i], bit[h][2]);
    }
  }
  for (int h = 0; h < 2; ++h) out.half[h] = part[h][7];
  return out;
}

// The low (b = 0) or high four bits of every byte, looked up in 16 entries.
inline ALWAYS_INLINE Rows LookUpNibbles(const uint8_t* table, const Rows& bytes, int b) {
  const __m256i t = Table16(table), mask = _mm256_set1_epi8(15);
  Rows out;
  for (int h = 0; h < 2; ++h) {
    const __m256i v = b == 0 ? bytes.half[h] : _mm256_srli_epi16(bytes.half[h], 4);
    out.half[h] = _mm256_shuffle_epi8(t, _mm256_and_si256(v, mask));
  }
  return out;
}

// sum[2 * h + i] += gain * (a + b) in 16 bits, for bytes 0 to 7 (i = 0) or 8 to 15 of every 128 bits of
// half h. A unit's groups fit: 4 * 16 * 2 * 127 is below 2^15.
inline ALWAYS_INLINE void AddProducts(const __m256i* gain, const Rows& a, const Rows& b,
                                      __m256i* sum) {
  for (int h = 0; h < 2; ++h) {
    const __m256i low = _mm256_unpacklo_epi8(a.half[h], b.half[h]),
                  high = _mm256_unpackhi_epi8(a.half[h], b.half[h]);
    sum[2 * h] = _mm256_add_epi16(sum[2 * h], _mm256_maddubs_epi16(gain[2 * h], low));
    sum[2 * h + 1] =
        _mm256_add_epi16(sum[2 * h + 1], _mm256_maddubs_epi16(gain[2 * h + 1], high));
  }
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
    __m256i fine[4], coarse[4];
    for (int i = 0; i < 4; ++i) fine[i] = coarse[i] = _mm256_setzero_si256();
    const int64_t left = w.groups - (unit + n) * kUnitGroups;
    const int groups = left < kUnitGroups ? static_cast<int>(left) : kUnitGroups;
    for (int g = 0; g < groups; ++g, codes += group_bytes) {
      const Rows one = gains.Next();
      __m256i gain[4];
      for (int h = 0; h < 2; ++h) {
        gain[2 * h] = _mm256_unpacklo_epi8(one.half[h], one.half[h]);
        gain[2 * h + 1] = _mm256_unpackhi_epi8(one.half[h], one.half[h]);
      }
      const uint8_t* t = tables + 2 * g * kTable;
      if constexpr (kForm == Form::kNibbleByte) {
        const uint8_t* nibbles = tables + 2 * kUnitGroups * kTable + 2 * g * kNibbles;
        const Rows both = LoadRows(codes, w.tile);
        AddProducts(gain, LookUpNibbles(nibbles, both, 0),
                    LookUpNibbles(nibbles + kNibbles, both, 1), fine);
      } else {
        AddProducts(gain, LookUp(t, LoadRows(codes, w.tile)),
                    LookUp(t + kTable, LoadRows(codes + w.tile, w.tile)), fine);
      }
      if constexpr (kForm != Form::kOneByte) {
        const uint8_t* from = codes + (FormElements(kForm) - 2) * w.tile;
        AddProducts(gain, LookUp(t, LoadRows(from, w.tile)),
                    LookUp(t + kTable, LoadRows(from + w.tile, w.tile)), coarse);
      }
    }
    const __m256 step = _mm256_set1_ps(steps[n]);
    for (int i = 0; i < 4; ++i) {
      for (int odd = 0; odd < 2; ++odd) {
        const auto widen = [&](__m256i v) {
          return _mm256_srai_epi32(odd ? v : _mm256_slli_epi32(v, 16), 16);
        };
        __m256i total = widen(fine[i]);
        if constexpr (kForm != Form::kOneByte)
          total = _mm256_add_epi32(total, _mm256_sll_epi32(widen(coarse[i]), ratio));
        float* to = lanes + 16 * i + 8 * odd;
        _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), step, _mm256_load_ps(to)));
      }
    }
  }
}

// Products of count codewords with four activations, in units of the step.
inline void BuildEntries(const float (*centred)[256], int count, const float* a, uint8_t* table) {
  for (int c = 0; c < count; c += 16) {
    __m256i value[2];
    for (int i = 0; i < 2; ++i) {
      const int at = c + 8 * i;
      __m256 sum = _mm256_mul_ps(_mm256_load_ps(centred[0] + at), _mm256_set1_ps(a[0]));
      for (int j = 1; j < 4; ++j)
        sum = _mm256_fmadd_ps(_mm256_load_ps(centred[j] + at), _mm256_set1_ps(a[j]), sum);
      value[i] = _mm256_cvtps_epi32(sum);
    }
    const __m256i words =
        _mm256_permute4x64_epi64(_mm256_packs_epi32(value[0], value[1]), 0xd8);
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
