// Weights as integers: a tile is decoded to bytes once and multiplied with integer activations,
// AVX-512 VNNI.

#include "avx512_panel.h"
#include "panel_columns.h"

namespace cosetq {
namespace {

// Activations of one block and row, of each half an integer that sums begin with, then the bytes in the order of the
// steps. Weights have kPanelCentre added: sums begin with as much less. With two parts they are the high bytes of
// 16-bit numbers, followed by the low bytes.
constexpr int64_t kHalfRowBytes = 4 * (1 + kHalfSteps);
constexpr int64_t kPartBytes = kHalves * kHalfRowBytes;

constexpr int kPanelBlocks = 3;
static_assert(kPanelBlocks * kBlockBytes <= kPanelBytes);

// Integers that begin at these bits, of 1.5 * 2^23, are the bits of a float so much larger than their
// sum, as long as that is below 2^22: they need no conversion.
constexpr int32_t kFloatBits = 0x4b400000;
constexpr float kFloatOffset = 12582912;
static_assert(4 * kHalfSteps * 127 * 127 < 1 << 22);

inline ALWAYS_INLINE __m512i Broadcast(const uint8_t* four) {
  int32_t value;
  __builtin_memcpy(&value, four, sizeof value);
  return _mm512_set1_epi32(value);
}

// Sums over some vectors of 16 rows and some columns, which are column_bytes apart, in registers. Plain loops: GCC 12
// keeps sums in memory where functions are handed from one to the other.
template <int kCount, int kVectors>
struct Sums {
  __m512i v[kCount][kVectors];

  ALWAYS_INLINE void Begin(const uint8_t* a, int64_t column_bytes) {
#pragma GCC unroll 6
    for (int c = 0; c < kCount; ++c) {
      const __m512i begin = Broadcast(a + c * column_bytes);
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) v[c][q] = begin;
    }
  }

  // Times the value of a byte, for the low bytes to follow.
  ALWAYS_INLINE void BeginLow(const uint8_t* a, int64_t column_bytes) {
#pragma GCC unroll 6
    for (int c = 0; c < kCount; ++c) {
      const __m512i begin = Broadcast(a + c * column_bytes);
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q)
        v[c][q] = _mm512_add_epi32(_mm512_slli_epi32(v[c][q], 8), begin);
    }
  }

  // Adds the products of some steps.
  ALWAYS_INLINE void AddSteps(const uint8_t* panel, const uint8_t* a, int64_t column_bytes,
                              int steps) {
#pragma GCC unroll 1
    for (int step = 0; step < steps; ++step, panel += kStepBytes, a += 4) {
      __m512i weight[kVectors];
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) weight[q] = _mm512_load_si512(panel + 64 * q);
#pragma GCC unroll 6
      for (int c = 0; c < kCount; ++c) {
        const __m512i activations = Broadcast(a + c * column_bytes);
#pragma GCC unroll 4
        for (int q = 0; q < kVectors; ++q) AddDots(weight[q], activations, &v[c][q]);
      }
    }
  }

  // Ends a run: to += scale * sum. kAsBits: of the sum as the bits of a float.
  template <bool kAsBits>
  ALWAYS_INLINE void AddTo(const float* scales, __m512 (*to)[kVectors]) const {
#pragma GCC unroll 6
    for (int c = 0; c < kCount; ++c) {
      const __m512 scale = _mm512_set1_ps(scales[c]);
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) {
        const __m512 sum = kAsBits ? _mm512_castsi512_ps(v[c][q]) : _mm512_cvtepi32_ps(v[c][q]);
        to[c][q] = _mm512_fmadd_ps(sum, scale, to[c][q]);
      }
    }
  }
};

template <int kParts>
struct Products {
  static constexpr int64_t kRowBytes = kParts * kPartBytes;
  static constexpr int64_t kScales = kParts == 1 ? kHalves : 1;
  static constexpr bool kAsBits = kParts == 1;

  // Half of what offsets add to the sums of so many runs, of each column: taken off before and after, numbers stay
  // smaller. It costs rounding errors of a unit or two in a sum.
  template <int kCount>
  static ALWAYS_INLINE void HalfOffsets(const float* scales, int64_t runs, float* offsets) {
    constexpr __mmask8 kColumnMask = (1 << kCount) - 1;
    __m256 sum = _mm256_setzero_ps();
    for (int64_t run = 0; run < runs; ++run, scales += kCount)
      sum = _mm256_add_ps(sum, _mm256_maskz_loadu_ps(kColumnMask, scales));
    _mm256_store_ps(offsets, _mm256_mul_ps(sum, _mm256_set1_ps(kFloatOffset / 2)));
  }

  // Some rows of `count` blocks, whose sums in float stay in registers as well.
  template <int kCount, int kVectors>
  static void MultiplyRows(const WeightView& w, const uint8_t* panel, const uint8_t* a,
                           const float* scales, int64_t count, float* sums) {
    const int steps = w.tables->panel.has_rests ? kHalfSteps : kQuadSteps;
    alignas(32) float offsets[8];
    if (kAsBits) HalfOffsets<kCount>(scales, kScales * count, offsets);
    __m512 total[kCount][kVectors];
#pragma GCC unroll 6
    for (int c = 0; c < kCount; ++c) {
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) {
        total[c][q] = _mm512_load_ps(sums + c * kTile + 16 * q);
        if (kAsBits) total[c][q] = _mm512_sub_ps(total[c][q], _mm512_set1_ps(offsets[c]));
      }
    }
    constexpr int kRun = kHalves / kScales;  // halves with one scale
    for (int64_t half = 0; half < kHalves * count; half += kRun, scales += kCount) {
      Sums<kCount, kVectors> sum;
      sum.Begin(a, kRowBytes);
#pragma GCC unroll 1
      for (int part = 0; part < kParts; ++part) {
        if (part > 0) sum.BeginLow(a + kPartBytes, kRowBytes);
#pragma GCC unroll 1
        for (int h = 0; h < kRun; ++h)
          sum.AddSteps(panel + h * kHalfBytes, a + part * kPartBytes + h * kHalfRowBytes + 4,
                       kRowBytes, steps);
      }
      sum.template AddTo<kAsBits>(scales, total);
      panel += kRun * kHalfBytes;
      a += kRun * kHalfRowBytes;
      if ((half + kRun) % kHalves == 0) a += kCount * kRowBytes - kPartBytes;
    }
#pragma GCC unroll 6
    for (int c = 0; c < kCount; ++c) {
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) {
        if (kAsBits) total[c][q] = _mm512_sub_ps(total[c][q], _mm512_set1_ps(offsets[c]));
        _mm512_store_ps(sums + c * kTile + 16 * q, total[c][q]);
      }
    }
  }

  template <int kCount>
  static void Multiply(const WeightView& w, const uint8_t* panel, const uint8_t* a,
                       const float* scales, int64_t count, float* sums) {
    // As many as registers allow, so that no sum waits for the one before.
    constexpr int kVectors = kCount <= 3 ? 4 : 2;
    for (int r = 0; r < kTile; r += 16 * kVectors)
      MultiplyRows<kCount, kVectors>(w, panel + 4 * r, a, scales, count, sums + r);
  }
};

// Two blocks of a row of A: a group in each lane of 32 bits, and half a block in every four.
constexpr int kPairGroups = 2 * kBlockGroups;

// Which of the 16 groups from `first` on have a number in place j.
inline __mmask16 GroupMask(const WeightView& w, int j, int64_t first) {
  const int64_t in_row = w.cols - PlaceColumn(w, j) * w.groups - first, in_run = w.groups - first;
  const int64_t left = in_row < in_run ? in_row : in_run;
  return left >= kPairGroups ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1 << left) - 1);
}

// The largest of every four lanes, or of every eight, in all of them.
template <int kScales>
inline __m512i LargestLanes(__m512i v) {
  v = _mm512_max_epu32(v, _mm512_shuffle_epi32(v, _MM_PERM_BADC));
  v = _mm512_max_epu32(v, _mm512_shuffle_epi32(v, _MM_PERM_CDAB));
  return kScales == kHalves ? v : _mm512_max_epu32(v, _mm512_shuffle_i32x4(v, v, 0xb1));
}

// The low bytes of four vectors side by side.
inline ALWAYS_INLINE __m512i JoinBytes(__m512i a, __m512i b, __m512i c, __m512i d) {
  constexpr int kSelect = 0xca;  // mask ? low : high, bit for bit
  const __m512i byte = _mm512_set1_epi32(0xff), word = _mm512_set1_epi32(0xffff);
  const __m512i low = _mm512_ternarylogic_epi32(byte, a, _mm512_slli_epi32(b, 8), kSelect);
  const __m512i high = _mm512_ternarylogic_epi32(byte, c, _mm512_slli_epi32(d, 8), kSelect);
  return _mm512_ternarylogic_epi32(word, low, _mm512_slli_epi32(high, 16), kSelect);
}

// The sum of every four lanes, or of every eight, in all of them.
template <int kScales>
inline __m512i SumLanes(__m512i v) {
  v = _mm512_add_epi32(v, _mm512_shuffle_epi32(v, _MM_PERM_BADC));
  v = _mm512_add_epi32(v, _mm512_shuffle_epi32(v, _MM_PERM_CDAB));
  return kScales == kHalves ? v : _mm512_add_epi32(v, _mm512_shuffle_i32x4(v, v, 0xb1));
}

// Writes one byte, with its sign, of each of the integers of two blocks, and of their rests, in the order of the steps,
// and what sums begin with: begin less what the weights' centre adds. A block's are block_bytes apart. Only the first of
// them if that is all there is.
template <int kScales>
inline ALWAYS_INLINE void StorePart(const WeightView& w, const __m512i* v, int32_t begin, int blocks,
                                    int64_t block_bytes, uint8_t* out) {
  __m512i total = v[0];
  Unroll<kGroup - 1>([&](int j) ALWAYS_INLINE { total = _mm512_add_epi32(total, v[j + 1]); });
  static_assert(kPanelCentre == 1 << 7);
  const __m512i centre = _mm512_slli_epi32(SumLanes<kScales>(total), 7);
  __m512i four[2];
  if (w.form == Form::kNibbles) {
    four[0] = JoinBytes(v[0], v[1], v[2], v[3]);
    four[1] = JoinBytes(v[4], v[5], v[6], v[7]);
  } else {
    // Groups 0 and 2 of each coordinate, then 1 and 3.
    const __m512i order = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 2, 3, 10, 11, 6, 7, 14, 15));
    four[0] = _mm512_shuffle_epi8(JoinBytes(v[0], v[4], v[1], v[5]), order);
    four[1] = _mm512_shuffle_epi8(JoinBytes(v[2], v[6], v[3], v[7]), order);
  }
  alignas(64) uint8_t steps[2][2 * kHalves][16];
  alignas(64) uint8_t begins[2 * kHalves][16];
  alignas(16) uint8_t rests[2 * kHalves][4];
  _mm512_store_si512(begins[0], _mm512_sub_epi32(_mm512_set1_epi32(begin), centre));
  _mm512_store_si512(steps[0], four[0]);
  _mm512_store_si512(steps[1], four[1]);
  _mm_store_si128(reinterpret_cast<__m128i*>(rests), _mm512_cvtepi32_epi8(v[kGroup]));
  for (int b = 0; b < blocks; ++b, out += block_bytes) {
    for (int h = 0; h < kHalves; ++h) {
      uint8_t* to = out + h * kHalfRowBytes;
      __builtin_memcpy(to, begins[kHalves * b + h], 4);
      __builtin_memcpy(to + 4, steps[0][kHalves * b + h], 16);
      __builtin_memcpy(to + 20, steps[1][kHalves * b + h], 16);
      __builtin_memcpy(to + 36, rests[kHalves * b + h], 4);
    }
  }
}

template <int kParts>
void Quantize(const WeightView& w, const float* a, int64_t column, int64_t columns, uint8_t* out,
              float* scales) {
  constexpr int kScales = Products<kParts>::kScales;
  constexpr int64_t kRowBytes = Products<kParts>::kRowBytes;
  const PanelTables& t = w.tables->panel;
  // Whole numbers, so that the largest activation has no error.
  const __m512 limit = _mm512_set1_ps(kParts == 2 ? 32639 : 127);
  const __m512i half_byte = _mm512_set1_epi32(128), sign_off = _mm512_set1_epi32(0x7fffffff);
  out += column * kRowBytes;
  scales += column;
  for (int64_t first = 0; first < w.groups; first += kPairGroups) {
    const bool whole = w.cols == kGroup * w.groups && w.groups - first >= kPairGroups;
    const int blocks = w.groups - first > kBlockGroups ? 2 : 1;
    __m512 v[kGroup], rest = _mm512_setzero_ps();
    __m512i largest = _mm512_setzero_si512();
    Unroll<kGroup>([&](int j) ALWAYS_INLINE {
      const __mmask16 mask = whole ? __mmask16{0xffff} : GroupMask(w, j, first);
      v[j] = _mm512_maskz_loadu_ps(mask, a + PlaceColumn(w, j) * w.groups + first);
      // As the bits of a float, so that a NaN is larger than every number.
      largest = _mm512_max_epu32(largest, _mm512_and_si512(_mm512_castps_si512(v[j]), sign_off));
      rest = _mm512_fmadd_ps(v[j], _mm512_set1_ps(t.rest[j]), rest);
    });
    // As ActivationScale has them.
    const __m512 top = _mm512_castsi512_ps(LargestLanes<kScales>(largest));
    const __mmask16 any = _mm512_cmp_ps_mask(top, _mm512_set1_ps(1e-30f), _CMP_GT_OQ);
    const __m512 inverse = _mm512_maskz_div_ps(any, limit, top);
    const __m512 unit = _mm512_mask_mul_ps(top, any, _mm512_div_ps(top, limit), _mm512_set1_ps(t.unit));
    alignas(64) float units[16];
    _mm512_store_ps(units, _mm512_add_ps(unit, _mm512_mul_ps(top, _mm512_setzero_ps())));
    for (int i = 0; i < blocks * kScales; ++i, scales += columns) *scales = units[16 / 2 / kScales * i];
    __m512i low[kGroup + 1], high[kGroup + 1];
    Unroll<kGroup + 1>([&](int j) ALWAYS_INLINE {
      low[j] = _mm512_cvtps_epi32(_mm512_mul_ps(j < kGroup ? v[j % kGroup] : rest, inverse));
      if (kParts == 2) {
        high[j] = _mm512_srai_epi32(_mm512_add_epi32(low[j], half_byte), 8);
        low[j] = _mm512_sub_epi32(low[j], _mm512_slli_epi32(high[j], 8));
      }
    });
    const int64_t block_bytes = columns * kRowBytes;
    if (kParts == 2) StorePart<kScales>(w, high, 0, blocks, block_bytes, out);
    StorePart<kScales>(w, low, Products<kParts>::kAsBits ? kFloatBits : 0, blocks, block_bytes,
                       out + (kParts - 1) * kPartBytes);
    out += blocks * block_bytes;
  }
}

}  // namespace

const PanelKernels kAvx512Panel8 = {
    Avx512PanelUsable,
    Avx512Decode,
    Quantize<1>,
    MultiplyColumns<Products<1>>,
    nullptr,
    nullptr,
    nullptr,
    Avx512LaneRows,
    kPartBytes,
    kHalves,
    kColumns,
    1,
    kPanelBlocks,
};
const PanelKernels kAvx512Panel16 = {
    Avx512PanelUsable,
    Avx512Decode,
    Quantize<2>,
    MultiplyColumns<Products<2>>,
    nullptr,
    nullptr,
    nullptr,
    Avx512LaneRows,
    2 * kPartBytes,
    1,
    kColumns,
    1,
    kPanelBlocks,
};

}  // namespace cosetq
