// Weights as integers: a tile is decoded to bytes once and multiplied with integer activations,
// AVX-512 VBMI and VNNI. PanelTables (weight_view.h) says what the bytes are, kernels.h where they
// stand.

#include "avx512_lookup.h"
#include "kernels.h"

namespace cosetq {
namespace {

// A block is decoded in steps of four columns, four bytes of every row side by side: first the
// lower four columns of each group, then the upper four, then the weights of the rests of groups 0
// to 3 and 4 to 7. After the last step stands, in 32 bits, -128 times the sum of each row's weights.
// Rows are in the order of lanes, as in the look-up kernels.
constexpr int kBlockSteps = 2 * kBlockGroups + 2;
constexpr int64_t kStepBytes = 4 * kTile;
constexpr int64_t kBlockBytes = (kBlockSteps + 1) * kStepBytes;

// Activations of one block and row in the same order, as bytes 128 too large. With two parts they
// are the high bytes of 16-bit numbers, followed by the low bytes as they are.
constexpr int64_t kPartBytes = 4 * kBlockSteps;

constexpr int kPanelBlocks = 3;
static_assert(kPanelBlocks * kBlockBytes <= kPanelBytes);

// Sums of the levels' tables for one group: out[4 * block + j] of 64 rows.
template <Form kForm>
inline ALWAYS_INLINE void LookUpGroup(const WeightView& w, __mmask64 rows, const uint8_t* codes,
                                      __m512i* out) {
  const uint8_t(*tables)[4][256] = w.tables->panel.bytes;
  Digits coarse[2], fine[2];
  __m512i nibbles[2];
  if constexpr (kForm == Form::kNibbleByte) {
    const __m512i both = _mm512_maskz_loadu_epi8(rows, codes);
    Unroll<2>([&](int b) ALWAYS_INLINE {
      nibbles[b] = Nibbles(both, b);
      coarse[b] = LoadDigits(rows, codes + (1 + b) * w.tile);
    });
  } else {
    Unroll<2>([&](int b) ALWAYS_INLINE {
      fine[b] = LoadDigits(rows, codes + b * w.tile);
      if constexpr (kForm == Form::kTwoByte) coarse[b] = LoadDigits(rows, codes + (2 + b) * w.tile);
    });
  }
  Unroll<4>([&](int j) ALWAYS_INLINE {
    __m512i t[4];
    if constexpr (kForm != Form::kNibbleByte) LoadTable(tables[0][j], t);
    Unroll<2>([&](int b) ALWAYS_INLINE {
      out[4 * b + j] = kForm == Form::kNibbleByte ? Lookup16(tables[0][j], nibbles[b])
                                                  : LookUp(t, fine[b]);
    });
    if constexpr (kForm != Form::kOneByte) {
      LoadTable(tables[1][j], t);
      Unroll<2>([&](int b) ALWAYS_INLINE {
        out[4 * b + j] = _mm512_add_epi8(out[4 * b + j], LookUp(t, coarse[b]));
      });
    }
  });
}

inline __m512i* Step(uint8_t* block, int step) {
  return reinterpret_cast<__m512i*>(block + step * kStepBytes);
}

template <Form kForm>
void DecodeForm(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  const PanelTables& t = w.tables->panel;
  const __mmask64 rows = TileMask(w);
  GainStream gains(w, tile, first * kBlockGroups);
  const __m512i bias = _mm512_set1_epi16(t.bias), kappa = _mm512_set1_epi16(t.kappa);
  const __m512i low_bytes = _mm512_set1_epi16(0xff), offset = _mm512_set1_epi8(-128);
  const int64_t group_bytes = static_cast<int64_t>(FormElements(kForm)) * w.tile;
  const uint8_t* codes =
      static_cast<const uint8_t*>(w.codes) + (tile * w.groups + first * kBlockGroups) * group_bytes;
  for (int64_t b = 0; b < count; ++b, panel += kBlockBytes) {
    __m512i total[4], gain[kBlockGroups];
    for (__m512i& v : total) v = _mm512_setzero_si512();
    for (int g = 0; g < kBlockGroups; ++g, codes += group_bytes) {
      const int64_t group = (first + b) * kBlockGroups + g;
      if (group >= w.groups) {  // past the last
        gain[g] = _mm512_setzero_si512();
        for (int q = 0; q < 4; ++q) {
          _mm512_store_si512(Step(panel, g) + q, gain[g]);
          _mm512_store_si512(Step(panel, kBlockGroups + g) + q, gain[g]);
        }
        continue;
      }
      gain[g] = gains.Next();
      const __m512i four[4] = {gain[g], gain[g], gain[g], gain[g]};
      __m512i factor[4], shift[4], value[8];
      Interleave4(four, factor);
      Unroll<4>([&](int q) ALWAYS_INLINE {
        shift[q] = _mm512_mullo_epi16(factor[q], bias);
        factor[q] = _mm512_and_si512(factor[q], low_bytes);
      });
      for (int e = 0; e < FormElements(kForm); ++e)
        PrefetchCodes(codes + kPanelBlocks * kBlockGroups * group_bytes + e * w.tile);
      LookUpGroup<kForm>(w, rows, codes, value);
      Unroll<2>([&](int half) ALWAYS_INLINE {
        __m512i weight[4];
        Interleave4(value + 4 * half, weight);
        Unroll<4>([&](int q) ALWAYS_INLINE {
          // Two bytes at once: no product exceeds 255, so nothing is carried.
          weight[q] = _mm512_sub_epi8(_mm512_mullo_epi16(weight[q], factor[q]), shift[q]);
          _mm512_store_si512(Step(panel, half * kBlockGroups + g) + q, weight[q]);
          AddDots(offset, weight[q], &total[q]);
        });
      });
    }
    for (int half = 0; half < 2; ++half) {
      __m512i weight[4];
      Interleave4(gain + 4 * half, weight);
      for (int q = 0; q < 4; ++q) {
        weight[q] = _mm512_mullo_epi16(weight[q], kappa);
        _mm512_store_si512(Step(panel, 2 * kBlockGroups + half) + q, weight[q]);
        AddDots(offset, weight[q], &total[q]);
      }
    }
    for (int q = 0; q < 4; ++q) {
      _mm512_store_si512(Step(panel, kBlockSteps) + q,
                         _mm512_sub_epi32(_mm512_setzero_si512(), total[q]));
    }
  }
}

// Low bytes of four vectors of integers side by side.
inline __m256i Join(const __m256i* v) {
  const __m256i low = _mm256_set1_epi32(255);
  const __m256i a = _mm256_or_si256(_mm256_and_si256(v[0], low),
                                    _mm256_slli_epi32(_mm256_and_si256(v[1], low), 8));
  const __m256i b = _mm256_or_si256(_mm256_slli_epi32(_mm256_and_si256(v[2], low), 16),
                                    _mm256_slli_epi32(v[3], 24));
  return _mm256_or_si256(a, b);
}

// Writes one byte of each of the integers of a block: 8 columns of 8 groups and the 8 rests.
inline void StorePart(const __m256i* v, uint8_t* out) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), Join(v));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 4 * kBlockGroups), Join(v + 4));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 8 * kBlockGroups), _mm256_cvtepi32_epi8(v[8]));
}

inline uint32_t LargestLane(__m256i v) {
  __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
}

// One block of 64 rows times kColumnCount columns with all sums in registers. Not inlined, for in a
// loop the compiler would keep the float sums in registers as well, of which there are not enough.
template <int kColumnCount, int kParts>
__attribute__((noinline)) void MultiplyBlock(const uint8_t* panel, const uint8_t* a,
                                             const float* scales, float* sums) {
  __m512i sum[kColumnCount * 4];
  Unroll<kColumnCount * 4>([&](int i) ALWAYS_INLINE {
    sum[i] = _mm512_load_si512(panel + kBlockSteps * kStepBytes + 64 * (i % 4));
  });
  Unroll<kParts>([&](int part) ALWAYS_INLINE {
    const uint8_t* from = a + part * kPartBytes;
    for (int step = 0; step < kBlockSteps; ++step) {
      __m512i weight[4];
      Unroll<4>([&](int q) ALWAYS_INLINE {
        weight[q] = _mm512_load_si512(panel + step * kStepBytes + 64 * q);
      });
      Unroll<kColumnCount>([&](int c) ALWAYS_INLINE {
        int32_t four;
        __builtin_memcpy(&four, from + c * kParts * kPartBytes + 4 * step, sizeof four);
        const __m512i activations = _mm512_set1_epi32(four);
        Unroll<4>([&](int q) ALWAYS_INLINE { AddDots(activations, weight[q], &sum[4 * c + q]); });
      });
    }
    if (part + 1 < kParts) {
      Unroll<kColumnCount * 4>(
          [&](int i) ALWAYS_INLINE { sum[i] = _mm512_slli_epi32(sum[i], 8); });
    }
  });
  Unroll<kColumnCount * 4>([&](int i) ALWAYS_INLINE {
    float* to = sums + 16 * i;
    const __m512 scale = _mm512_set1_ps(scales[i / 4]);
    _mm512_store_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i]), scale, _mm512_load_ps(to)));
  });
}

template <int kColumnCount, int kParts>
void MultiplyBlocks(const uint8_t* panel, const uint8_t* a, const float* scales, int64_t count,
                    float* sums) {
  for (int64_t b = 0; b < count; ++b) {
    MultiplyBlock<kColumnCount, kParts>(panel, a, scales, sums);
    panel += kBlockBytes;
    a += kColumnCount * kParts * kPartBytes;
    scales += kColumnCount;
  }
}

template <int kParts>
void MultiplyParts(const uint8_t* panel, const uint8_t* a, const float* scales, int64_t count,
                   int columns, float* sums) {
  static_assert(kColumns == 6);
  switch (columns) {
    case 1:
      return MultiplyBlocks<1, kParts>(panel, a, scales, count, sums);
    case 2:
      return MultiplyBlocks<2, kParts>(panel, a, scales, count, sums);
    case 3:
      return MultiplyBlocks<3, kParts>(panel, a, scales, count, sums);
    case 4:
      return MultiplyBlocks<4, kParts>(panel, a, scales, count, sums);
    case 5:
      return MultiplyBlocks<5, kParts>(panel, a, scales, count, sums);
    default:
      return MultiplyBlocks<6, kParts>(panel, a, scales, count, sums);
  }
}

bool Usable(const FormTables& t) { return t.panel.usable; }

void Decode(const WeightView& w, int64_t tile, int64_t first, int64_t count,
                       uint8_t* panel) {
  switch (w.form) {
    case Form::kOneByte:
      return DecodeForm<Form::kOneByte>(w, tile, first, count, panel);
    case Form::kTwoByte:
      return DecodeForm<Form::kTwoByte>(w, tile, first, count, panel);
    case Form::kNibbleByte:
      return DecodeForm<Form::kNibbleByte>(w, tile, first, count, panel);
    case Form::kGeneral:
      return;
  }
}

template <int kParts>
void Quantize(const WeightView& w, const float* a, int64_t columns, uint8_t* out, float* scales) {
  const PanelTables& t = w.tables->panel;
  // Whole numbers, so that the largest activation has no error.
  const float limit = kParts == 2 ? 32639 : 127;
  const __m256i sign_off = _mm256_set1_epi32(0x7fffffff), offset = _mm256_set1_epi32(128);
  for (int64_t first = 0; first < w.groups; first += kBlockGroups) {
    __m256 v[kGroup + 1];
    __m256i largest = _mm256_setzero_si256();
    for (int j = 0; j < kGroup; ++j) {
      const int64_t in_row = w.cols - (j * w.groups + first), in_run = w.groups - first;
      const int64_t left = in_row < in_run ? in_row : in_run;
      const int mask = left >= 8 ? 0xff : left <= 0 ? 0 : (1 << left) - 1;
      v[j] = _mm256_maskz_loadu_ps(static_cast<__mmask8>(mask), a + j * w.groups + first);
      // As integers, so that a NaN is larger than every number.
      largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(v[j]), sign_off));
    }
    const uint32_t bits = LargestLane(largest);
    float top;
    __builtin_memcpy(&top, &bits, sizeof top);
    const bool any = top > 1e-30f;  // below, and its inverse would leave float's range
    const float inverse = any ? limit / top : 0;
    // NaN when an activation is NaN or infinite.
    *scales = (any ? top / limit * t.unit : top) + 0 * top;
    v[kGroup] = _mm256_setzero_ps();
    for (int j = 0; j < kGroup; ++j)
      v[kGroup] = _mm256_fmadd_ps(v[j], _mm256_set1_ps(t.rest[j]), v[kGroup]);
    __m256i low[kGroup + 1], high[kGroup + 1];
    for (int j = 0; j <= kGroup; ++j) {
      low[j] = _mm256_cvtps_epi32(_mm256_mul_ps(v[j], _mm256_set1_ps(inverse)));
      if (kParts == 1) low[j] = _mm256_add_epi32(low[j], offset);
      high[j] = _mm256_add_epi32(_mm256_srai_epi32(low[j], 8), offset);
    }
    if (kParts == 2) StorePart(high, out);
    StorePart(low, out + (kParts - 1) * kPartBytes);
    out += columns * kParts * kPartBytes;
    scales += columns;
  }
}

}  // namespace

const PanelKernels kAvx512Panel8 = {
    Usable,         Decode,      Quantize<1>, MultiplyParts<1>,
    Avx512LaneRows, kBlockBytes, kPartBytes,  kPanelBlocks,
};
const PanelKernels kAvx512Panel16 = {
    Usable,         Decode,      Quantize<2>,    MultiplyParts<2>,
    Avx512LaneRows, kBlockBytes, 2 * kPartBytes, kPanelBlocks,
};

}  // namespace cosetq
