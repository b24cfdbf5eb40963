// AVX-512 with BW, VBMI and VNNI. Built with its own flags; reached only through dispatch.cc.

#include <immintrin.h>
#include <stdint.h>

namespace cosetq {
namespace {

typedef float Vec __attribute__((vector_size(64)));
inline Vec MulAdd(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }

}  // namespace
}  // namespace cosetq

#include "avx512_lookup.h"
#include "generic.h"
#include "moments.h"
#include "product.h"

namespace cosetq {
namespace {

void ToFloat(const uint16_t* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask =
        count - i < 16 ? static_cast<__mmask16>((1u << (count - i)) - 1) : __mmask16{0xffff};
    _mm512_mask_storeu_ps(to + i, mask, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from + i)));
  }
}

void ToHalf(const float* from, uint16_t* to, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask =
        count - i < 16 ? static_cast<__mmask16>((1u << (count - i)) - 1) : __mmask16{0xffff};
    _mm256_mask_storeu_epi16(
        to + i, mask,
        _mm512_cvtps_ph(_mm512_maskz_loadu_ps(mask, from + i), _MM_FROUND_TO_NEAREST_INT));
  }
}

// Writes gain * (v * unit - centre) for the 64 bytes v of one coordinate.
inline void StoreCoordinate(__m512i v, float unit, float centre, const __m512* gain, float* out) {
  const __m512 units = _mm512_set1_ps(unit), centres = _mm512_set1_ps(centre);
  const __m128i quarter[4] = {_mm512_castsi512_si128(v), _mm512_extracti32x4_epi32(v, 1),
                              _mm512_extracti32x4_epi32(v, 2), _mm512_extracti32x4_epi32(v, 3)};
  for (int i = 0; i < 4; ++i) {
    const __m512 value = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(quarter[i]));
    _mm512_store_ps(out + 16 * i, _mm512_mul_ps(_mm512_fmsub_ps(value, units, centres), gain[i]));
  }
}

// Gains of 64 rows for one group.
inline void LoadGains(const WeightView& w, __mmask64 rows, int64_t tile, int64_t group,
                      __m512* gain) {
  if (w.gains == nullptr) {
    for (int i = 0; i < 4; ++i) gain[i] = _mm512_set1_ps(w.gain_values[0]);
    return;
  }
  const __m512i packed = _mm512_maskz_loadu_epi8(rows, GainBytes(w, tile, group));
  const __m128i shift = _mm_cvtsi32_si128(w.gain_bits * static_cast<int>(group % w.gains_per_byte));
  const __m512i mask = _mm512_set1_epi32((1 << w.gain_bits) - 1);
  const __m512 values = _mm512_loadu_ps(w.gain_values);
  const __m128i quarter[4] = {_mm512_castsi512_si128(packed), _mm512_extracti32x4_epi32(packed, 1),
                              _mm512_extracti32x4_epi32(packed, 2),
                              _mm512_extracti32x4_epi32(packed, 3)};
  for (int i = 0; i < 4; ++i) {
    const __m512i index =
        _mm512_and_si512(_mm512_srl_epi32(_mm512_cvtepu8_epi32(quarter[i]), shift), mask);
    gain[i] = _mm512_permutexvar_ps(index, values);
  }
}

// Coordinates are looked up for 64 rows at a time in tables of integers that already carry the
// level's weight.
template <Form kForm>
void DecodeForm(const WeightView& w, int64_t tile, int64_t first, int64_t count, float* panel) {
  const FormTables& t = *w.tables;
  const __mmask64 rows = TileMask(w);
  const uint8_t* codes =
      static_cast<const uint8_t*>(w.codes) + (tile * w.groups + first) * w.elements * w.tile;
  const float unit = w.level_weights[0];
  for (int64_t g = 0; g < count; ++g, codes += w.elements * w.tile) {
    __m512 gain[4];
    LoadGains(w, rows, tile, first + g, gain);
    float* out = panel + g * kGroup * kTile;
    __m512i element[4];
    for (int e = 0; e < FormElements(kForm); ++e)
      element[e] = _mm512_maskz_loadu_epi8(rows, codes + e * w.tile);
    for (int block = 0; block < 2; ++block) {
      for (int j = 0; j < 4; ++j) {
        __m512i v;
        if constexpr (kForm == Form::kNibbleByte) {
          v = _mm512_add_epi8(Lookup16(t.digits[0][j], Nibbles(element[0], block)),
                              Lookup256(t.digits[1][j], element[1 + block]));
        } else {
          v = Lookup256(t.digits[0][j], element[block]);
          if constexpr (kForm == Form::kTwoByte) {
            v = _mm512_add_epi8(v, Lookup256(t.digits[1][j], element[2 + block]));
          }
        }
        const int column = 4 * block + j;
        StoreCoordinate(v, unit, w.centre[column], gain, out + column * kTile);
      }
    }
  }
}

void DecodeD4(const WeightView& w, int64_t tile, int64_t first, int64_t count, float* panel) {
  switch (w.form) {
    case Form::kOneByte:
      return DecodeForm<Form::kOneByte>(w, tile, first, count, panel);
    case Form::kTwoByte:
      return DecodeForm<Form::kTwoByte>(w, tile, first, count, panel);
    case Form::kNibbleByte:
      return DecodeForm<Form::kNibbleByte>(w, tile, first, count, panel);
    case Form::kNibbles:
    case Form::kTwoBits:
    case Form::kGeneral:
      return DecodeGeneral(w, tile, first, count, panel);
  }
}

}  // namespace

const Kernels kAvx512Kernels = {
    "avx512",
    true,
    ToFloat,
    ToHalf,
    DecodeGeneral,
    DecodeD4,
    MultiplyGeneral,
    StoreInOrder,
    AddProduct<float>,
    AddProduct<double>,
    kMomentKernels,
    {{Avx512LookupBuild8, Avx512Lookup8, Avx512StoreWords, 2},
     {Avx512LookupBuild16, Avx512Lookup16, Avx512StoreQuarters, 1}},
    {&kAvx512Panel8, &kAvx512Panel16},
};

// As AVX-512, but two bytes of activations are multiplied faster than one with its scales per block.
const Kernels kAmxKernels = {
    "amx",
    false,
    ToFloat,
    ToHalf,
    DecodeGeneral,
    DecodeD4,
    MultiplyGeneral,
    StoreInOrder,
    AddProduct<float>,
    AddProduct<double>,
    kMomentKernels,
    {{Avx512LookupBuild8, Avx512Lookup8, Avx512StoreWords, 2},
     {Avx512LookupBuild16, Avx512Lookup16, Avx512StoreQuarters, 1}},
    {nullptr, &kAmxPanel16},
};

}  // namespace cosetq
