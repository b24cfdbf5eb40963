// Value look-up with tables of one byte, AVX-512 VBMI and VNNI: as avx512_lookup.cc, with half the
// look-ups and about 1 % of error.
//
// The four products of two groups at one level come together in the bytes of one lane, and a dot
// product with the gains adds them up.

#include "avx512_lookup.h"
#include "kernels.h"

namespace cosetq {
namespace {

constexpr float kLargest = 127;
constexpr int kUnitGroups = 8;
constexpr int64_t kTable = kBlockTable / 2;     // bytes
constexpr int64_t kNibbles = kNibbleTable / 2;  // bytes

template <Form kForm>
void LookupForm(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                const uint8_t* tables, const float* steps, float* lanes) {
  const __mmask64 rows = TileMask(w);
  const int64_t group_bytes = static_cast<int64_t>(FormElements(kForm)) * w.tile;
  const uint8_t* codes =
      static_cast<const uint8_t*>(w.codes) + (tile * w.groups + unit * kUnitGroups) * group_bytes;
  const __m128i ratio = _mm_cvtsi32_si128(w.tables->ratio_log2);
  GainStream gains(w, tile, unit * kUnitGroups);
  const int64_t ahead = count * kUnitGroups * group_bytes;
  for (int64_t n = 0; n < count; ++n, tables += LookupTableBytes(w, 1)) {
    __m512i sum[2][4];  // [level][quarter]
    Unroll<4>([&](int q) ALWAYS_INLINE { sum[0][q] = sum[1][q] = _mm512_setzero_si512(); });
    const int64_t first = (unit + n) * kUnitGroups;
    const int64_t left = w.groups - first;
    const int pairs = left < kUnitGroups ? static_cast<int>((left + 1) / 2) : kUnitGroups / 2;
    for (int p = 0; p < pairs; ++p) {
      __m512i product[2][4];  // [level][block of the pair]
      Unroll<2>([&](int u) ALWAYS_INLINE {
        // The tables of a group past the last are zero; any codes will do.
        if (2 * p + u == left) codes -= group_bytes;
        const __m512i both = _mm512_maskz_loadu_epi8(rows, codes);
        Unroll<2>([&](int b) ALWAYS_INLINE {
          const int block = 2 * u + b;
          __m512i t[4];
          LoadTable(tables + (4 * p + block) * kTable, t);
          PrefetchCodes(codes + ahead + b * w.tile);
          if constexpr (kForm == Form::kNibbleByte) {
            const uint8_t* fine = tables + 2 * kUnitGroups * kTable + (4 * p + block) * kNibbles;
            product[0][block] = Lookup16(fine, Nibbles(both, b));
            product[1][block] = LookUp(t, LoadDigits(rows, codes + (1 + b) * w.tile));
          } else {
            product[0][block] = LookUp(t, LoadDigits(rows, codes + b * w.tile));
          }
          if constexpr (kForm == Form::kTwoByte) {
            PrefetchCodes(codes + ahead + (2 + b) * w.tile);
            product[1][block] = LookUp(t, LoadDigits(rows, codes + (2 + b) * w.tile));
          }
        });
        codes += group_bytes;
      });
      const __m512i gain0 = gains.Next(), gain1 = gains.Next();
      const __m512i four_gains[4] = {gain0, gain0, gain1, gain1};
      __m512i gain[4], by_row[2][4];
      Interleave4(four_gains, gain);
      Interleave4(product[0], by_row[0]);
      if constexpr (kForm != Form::kOneByte) Interleave4(product[1], by_row[1]);
      Unroll<4>([&](int q) ALWAYS_INLINE {
        AddDots(gain[q], by_row[0][q], &sum[0][q]);
        if constexpr (kForm != Form::kOneByte) AddDots(gain[q], by_row[1][q], &sum[1][q]);
      });
    }
    const __m512 step = _mm512_set1_ps(steps[n]);
    Unroll<4>([&](int q) ALWAYS_INLINE {
      __m512i total = sum[0][q];
      if constexpr (kForm != Form::kOneByte)
        total = _mm512_add_epi32(total, _mm512_sll_epi32(sum[1][q], ratio));
      float* to = lanes + 16 * q;
      _mm512_store_ps(to,
                      _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), step, _mm512_load_ps(to)));
    });
  }
}

// Products of count codewords with four activations, in units of the step.
inline void BuildEntries(const float (*centred)[256], int count, const float* a, uint8_t* table) {
  for (int c = 0; c < count; c += 16) {
    __m512 sum = _mm512_mul_ps(_mm512_load_ps(centred[0] + c), _mm512_set1_ps(a[0]));
    for (int j = 1; j < 4; ++j)
      sum = _mm512_fmadd_ps(_mm512_load_ps(centred[j] + c), _mm512_set1_ps(a[j]), sum);
    _mm_store_si128(reinterpret_cast<__m128i*>(table + c),
                    _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(sum)));
  }
}

}  // namespace

void Avx512LookupBuild8(const WeightView& w, const float* a, int64_t unit, int64_t count,
                        uint8_t* tables, float* steps) {
  const FormTables& t = *w.tables;
  const bool nibbles = w.form == Form::kNibbleByte;
  constexpr int kBlocks = 2 * kUnitGroups;
  for (int64_t n = 0; n < count; ++n, tables += LookupTableBytes(w, 1)) {
    const float* from = a + (unit + n) * kUnitGroups * kGroup;
    float scaled[kUnitGroups * kGroup];
    steps[n] = ScaleActivations(w, from, kBlocks, kLargest, scaled);
    for (int b = 0; b < kBlocks; ++b) {
      BuildEntries(t.centred[nibbles ? 1 : 0], 256, scaled + 4 * b, tables + b * kTable);
      if (!nibbles) continue;
      BuildEntries(t.centred[0], 16, scaled + 4 * b, tables + kBlocks * kTable + b * kNibbles);
    }
  }
}

void Avx512Lookup8(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                   const uint8_t* tables, const float* steps, float* lanes) {
  switch (w.form) {
    case Form::kOneByte:
      return LookupForm<Form::kOneByte>(w, tile, unit, count, tables, steps, lanes);
    case Form::kTwoByte:
      return LookupForm<Form::kTwoByte>(w, tile, unit, count, tables, steps, lanes);
    case Form::kNibbleByte:
      return LookupForm<Form::kNibbleByte>(w, tile, unit, count, tables, steps, lanes);
    case Form::kGeneral:
      return;
  }
}

}  // namespace cosetq
