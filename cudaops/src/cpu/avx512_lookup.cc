// Value look-up tables in registers, AVX-512 VBMI.
//
// A digit stands for four weights, so its product with the four activations at its place is one of
// 256 numbers. Those are written once per call as 16-bit integers in two byte tables, low and high,
// and every digit of every row then costs a look-up instead of four products: 64 rows at a time,
// whatever the lattice.
//
// Two groups share one step, the value of the integer 1, chosen so that the sum of two products
// fits 16 bits. The rounding error is then about 5e-5 of the result, and one large activation
// spoils no more than its own pair of groups.

#include "avx512_lookup.h"

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#include "kernels.h"

namespace cosetq {
namespace {

constexpr float kLargest = 16382;  // of one product; two make 32764, and rounding adds at most 2

inline __m512i EvenBytes() {
  alignas(64) static const struct Index {
    uint8_t at[64];
    constexpr Index() : at() {
      for (int i = 0; i < 64; ++i) at[i] = static_cast<uint8_t>(2 * i);
    }
  } index;
  return _mm512_load_si512(index.at);
}

inline __m512i EvenWords() {
  alignas(64) static const struct Index {
    uint16_t at[32];
    constexpr Index() : at() {
      for (int i = 0; i < 32; ++i) at[i] = static_cast<uint16_t>(2 * i);
    }
  } index;
  return _mm512_load_si512(index.at);
}

// Products of the 64 codewords from `first` on with four activations in units of the step.
inline void BuildEntries(const float (*centred)[256], int first, const float* a, uint8_t* low,
                         uint8_t* high) {
  __m512i value[4];
  for (int i = 0; i < 4; ++i) {
    __m512 sum = _mm512_mul_ps(_mm512_load_ps(centred[0] + first + 16 * i), _mm512_set1_ps(a[0]));
    for (int j = 1; j < 4; ++j) {
      sum = _mm512_fmadd_ps(_mm512_load_ps(centred[j] + first + 16 * i), _mm512_set1_ps(a[j]), sum);
    }
    value[i] = _mm512_cvtps_epi32(sum);
  }
  const __m512i words = EvenWords(), bytes = EvenBytes();
  const __m512i w0 = _mm512_permutex2var_epi16(value[0], words, value[1]);
  const __m512i w1 = _mm512_permutex2var_epi16(value[2], words, value[3]);
  _mm512_store_si512(low, _mm512_permutex2var_epi8(w0, bytes, w1));
  _mm512_store_si512(high,
                     _mm512_permutex2var_epi8(w0, _mm512_or_si512(bytes, _mm512_set1_epi8(1)), w1));
}

// The 16 products of a four-bit digit.
inline void BuildNibble(const float (*centred)[256], const float* a, uint8_t* table) {
  __m512 sum = _mm512_mul_ps(_mm512_load_ps(centred[0]), _mm512_set1_ps(a[0]));
  for (int j = 1; j < 4; ++j) {
    sum = _mm512_fmadd_ps(_mm512_load_ps(centred[j]), _mm512_set1_ps(a[j]), sum);
  }
  const __m512i value = _mm512_cvtps_epi32(sum);
  _mm_store_si128(reinterpret_cast<__m128i*>(table), _mm512_cvtepi32_epi8(value));
  _mm_store_si128(reinterpret_cast<__m128i*>(table + 16),
                  _mm512_cvtepi32_epi8(_mm512_srai_epi32(value, 8)));
}

// 64 products as 16-bit words: words[0] holds bytes 0 to 7 of every 128-bit lane, words[1] bytes 8
// to 15.
struct Words {
  __m512i half[2];
};

inline Words Join(__m512i low, __m512i high) {
  return {{_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)}};
}

// Products of digits by two tables of bytes, low and high. The digits of several levels share them.
template <int kLevels>
inline ALWAYS_INLINE void Products256(const uint8_t* table, const Digits* digits, Words* out) {
  __m512i low[kLevels], t[4];
  LoadTable(table, t);
  Unroll<kLevels>([&](int i) ALWAYS_INLINE { low[i] = LookUp(t, digits[i]); });
  LoadTable(table + 256, t);
  Unroll<kLevels>([&](int i) ALWAYS_INLINE { out[i] = Join(low[i], LookUp(t, digits[i])); });
}

inline Words Products16(const uint8_t* table, __m512i digits) {
  return Join(Lookup16(table, digits), Lookup16(table + 16, digits));
}

inline Words Add(Words a, Words b) {
  return {{_mm512_add_epi16(a.half[0], b.half[0]), _mm512_add_epi16(a.half[1], b.half[1])}};
}

// Quarter q of the rows as 32-bit lanes, the first group in the low word and the second in the high
// word. Lane 4 * l + i of quarter q is row 16 * l + 4 * q + i.
inline __m512i Interleave(const Words& first, const Words& second, int q) {
  return q % 2 == 0 ? _mm512_unpacklo_epi16(first.half[q / 2], second.half[q / 2])
                    : _mm512_unpackhi_epi16(first.half[q / 2], second.half[q / 2]);
}

template <Form kForm, bool kWholeTile>
void LookupTile(const WeightView& w, int64_t tile, int64_t pair, int64_t count,
                const uint8_t* tables, const float* steps, const uint8_t* next, float* lanes) {
  const __mmask64 rows = TileMask(w);
  // Known of whole tiles, so that addresses need no registers.
  const int64_t stride = kWholeTile ? kTile : w.tile, group_bytes = FormElements(kForm) * stride;
  const uint8_t* codes =
      static_cast<const uint8_t*>(w.codes) + (tile * w.groups + 2 * pair) * group_bytes;
  const __m512i ratio = _mm512_set1_epi16(static_cast<int16_t>(w.tables->ratio_log2));
  const __m512i zero = _mm512_setzero_si512();
  GainStream gains(w, tile, 2 * pair);
  CodesAhead ahead(next);
  __m512 sum[4];
  Unroll<4>([&](int q) ALWAYS_INLINE { sum[q] = _mm512_load_ps(lanes + 16 * q); });
  for (int64_t p = 0; p < count; ++p, tables += LookupTableBytes(w, 2)) {
    Words level[2][2];  // [level][group]
    Unroll<2>([&](int u) ALWAYS_INLINE {
      // The tables of a group past the last are zero; any codes will do.
      if (2 * (pair + p) + u == w.groups) codes -= group_bytes;
      const uint8_t* t = tables + 2 * u * kBlockTable;
      const uint8_t* nibble_table = tables + 4 * kBlockTable + 2 * u * kNibbleTable;
      Words words[2][2];  // [block][level]
      const __m512i both = LoadRows<kWholeTile>(rows, codes);
      ahead.Fetch<FormElements(kForm)>(stride);
      Unroll<2>([&](int b) ALWAYS_INLINE {
        if constexpr (kForm == Form::kNibbleByte) {
          words[b][0] = Products16(nibble_table + b * kNibbleTable, Nibbles(both, b));
          const Digits coarse = LoadDigits<kWholeTile>(rows, codes + (1 + b) * stride);
          Products256<1>(t + b * kBlockTable, &coarse, &words[b][1]);
        } else if constexpr (kForm == Form::kTwoByte) {
          const Digits digits[2] = {LoadDigits<kWholeTile>(rows, codes + b * stride),
                                    LoadDigits<kWholeTile>(rows, codes + (2 + b) * stride)};
          Products256<2>(t + b * kBlockTable, digits, words[b]);
        } else {
          const Digits digits = LoadDigits<kWholeTile>(rows, codes + b * stride);
          Products256<1>(t + b * kBlockTable, &digits, words[b]);
        }
      });
      level[0][u] = Add(words[0][0], words[1][0]);
      if constexpr (kForm != Form::kOneByte) level[1][u] = Add(words[0][1], words[1][1]);
      codes += group_bytes;
    });
    // Gains of the two groups as neighbouring bytes, in the order of Words.
    const __m512i gain0 = gains.Next(), gain1 = gains.Next();
    const Words both_gains = Join(gain0, gain1);
    const __m512 step = _mm512_set1_ps(steps[p]);
    Unroll<4>([&](int q) ALWAYS_INLINE {
      const __m512i of_half = both_gains.half[q / 2];
      const __m512i gain = q % 2 == 0 ? _mm512_unpacklo_epi8(of_half, zero)
                                      : _mm512_unpackhi_epi8(of_half, zero);
      __m512i total = _mm512_madd_epi16(Interleave(level[0][0], level[0][1], q), gain);
      if constexpr (kForm != Form::kOneByte) {
        total = _mm512_dpwssd_epi32(total, Interleave(level[1][0], level[1][1], q),
                                    _mm512_sllv_epi16(gain, ratio));
      }
      sum[q] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), step, sum[q]);
    });
  }
  Unroll<4>([&](int q) ALWAYS_INLINE { _mm512_store_ps(lanes + 16 * q, sum[q]); });
}

template <Form kForm>
void LookupForm(const WeightView& w, int64_t tile, int64_t pair, int64_t count,
                const uint8_t* tables, const float* steps, const uint8_t* next, float* lanes) {
  const auto lookup = w.tile == kTile ? LookupTile<kForm, true> : LookupTile<kForm, false>;
  lookup(w, tile, pair, count, tables, steps, next, lanes);
}

}  // namespace

void Avx512LookupBuild16(const WeightView& w, const float* a, int64_t count, uint8_t* tables,
                         float* steps) {
  const FormTables& t = *w.tables;
  const bool nibbles = w.form == Form::kNibbleByte;
  const auto* centred = t.centred[nibbles ? 1 : 0];
  for (int64_t p = 0; p < count; ++p, tables += LookupTableBytes(w, 2)) {
    const float* from = a + p * 2 * kGroup;
    float scaled[2 * kGroup];
    steps[p] = ScaleActivations(w, from, 4, kLargest, scaled);
    for (int first = 0; first < 256; first += 64) {
      for (int b = 0; b < 4; ++b) {
        uint8_t* low = tables + b * kBlockTable + first;
        BuildEntries(centred, first, scaled + 4 * b, low, low + 256);
      }
    }
    if (!nibbles) continue;
    for (int b = 0; b < 4; ++b)
      BuildNibble(t.centred[0], scaled + 4 * b, tables + 4 * kBlockTable + b * kNibbleTable);
  }
}

void Avx512Lookup16(const WeightView& w, int64_t tile, int64_t pair, int64_t count,
                    const uint8_t* tables, const float* steps, const uint8_t* next, float* lanes) {
  switch (w.form) {
    case Form::kOneByte:
      return LookupForm<Form::kOneByte>(w, tile, pair, count, tables, steps, next, lanes);
    case Form::kTwoByte:
      return LookupForm<Form::kTwoByte>(w, tile, pair, count, tables, steps, next, lanes);
    case Form::kNibbleByte:
      return LookupForm<Form::kNibbleByte>(w, tile, pair, count, tables, steps, next, lanes);
    case Form::kNibbles:
    case Form::kTwoBits:
    case Form::kGeneral:
      return;
  }
}

void Avx512StoreQuarters(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride) {
  StoreRows(lanes, columns, rows, y, stride, [](const float* from, float* sums) ALWAYS_INLINE {
    __m512 quarter[4];
    for (int q = 0; q < 4; ++q) quarter[q] = _mm512_load_ps(from + 16 * q);
    TurnQuarters(quarter, sums);
  });
}

}  // namespace cosetq
