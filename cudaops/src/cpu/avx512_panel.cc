// Weights as integers: a tile is decoded to bytes once and multiplied with integer activations,
// AVX-512 VNNI.

#include "avx512_products.h"

namespace cosetq {
namespace {

// Rows of A that are multiplied together.
constexpr int kPanelColumns = 4;

// More would not stay in the first-level cache beside activations and sums.
constexpr int kPanelBlocks = 6, kFewBlocks = 3;
static_assert(kPanelBlocks * kBlockBytes <= kPanelBytes);

// Sums over some vectors of 16 rows and some columns, in two chains: of the halves of a block, or of the high and the low
// bytes of activations. A product takes five cycles and two start in each, so at least ten must not wait for each other.
// Plain loops: GCC 12 keeps sums in memory where functions are handed from one to the other.
template <int kParts, int kCount, int kVectors>
struct Sums {
  static constexpr int64_t kRowBytes = kParts * kPartBytes;
  // From the first chain's activations to the second's.
  static constexpr int64_t kSecond = kParts == 1 ? kHalfRowBytes : kPartBytes;

  __m512i first[kCount][kVectors], second[kCount][kVectors];

  ALWAYS_INLINE void Begin(const uint8_t* a) {
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) {
      const __m512i one = Broadcast(a + c * kRowBytes), two = Broadcast(a + c * kRowBytes + kSecond);
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) {
        first[c][q] = one;
        second[c][q] = two;
      }
    }
  }

  // Adds some steps of half a block, or with one chain for each half of both.
  ALWAYS_INLINE void AddSteps(const uint8_t* panel, const uint8_t* a, int steps) {
#pragma GCC unroll 1
    for (int step = 0; step < steps; ++step, panel += kStepBytes, a += 4) {
      __m512i weight[kVectors], other[kVectors];
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) {
        weight[q] = _mm512_load_si512(panel + 64 * q);
        other[q] = kParts == 1 ? _mm512_load_si512(panel + kHalfBytes + 64 * q) : weight[q];
      }
#pragma GCC unroll 4
      for (int c = 0; c < kCount; ++c) {
        const __m512i one = Broadcast(a + c * kRowBytes), two = Broadcast(a + c * kRowBytes + kSecond);
#pragma GCC unroll 4
        for (int q = 0; q < kVectors; ++q) {
          AddDots(weight[q], one, &first[c][q]);
          AddDots(other[q], two, &second[c][q]);
        }
      }
    }
  }

  // to += scale * sum.
  ALWAYS_INLINE void AddTo(const float* scales, __m512 (*to)[kVectors]) const {
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) {
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) {
        if constexpr (kParts == 1) {
          AddScaled(first[c][q], scales[c], &to[c][q]);
          AddScaled(second[c][q], scales[kCount + c], &to[c][q]);
        } else {
          AddScaled(_mm512_add_epi32(_mm512_slli_epi32(first[c][q], 8), second[c][q]), scales[c], &to[c][q]);
        }
      }
    }
  }
};

template <int kParts>
struct Products {
  static constexpr int64_t kRowBytes = kParts * kPartBytes;
  static constexpr int64_t kScales = kParts == 1 ? kHalves : 1;

  // Some vectors of 16 rows of `count` blocks, whose sums in float stay in registers as well.
  template <int kCount, int kVectors>
  static void MultiplyRows(const WeightView& w, const uint8_t* panel, const uint8_t* a, const float* scales,
                           int64_t count, Ahead ahead, float* sums) {
    const int steps = w.tables->panel.has_rests ? kHalfSteps : kQuadSteps;
    const int64_t share = (ahead.lines + count - 1) / count;  // fetched with each block
    __m512 total[kCount][kVectors];
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) {
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) total[c][q] = _mm512_load_ps(sums + c * kTile + 16 * q);
    }
    for (int64_t b = 0; b < count; ++b) {
      for (int64_t i = 0; i < share; ++i, ahead.at += kLineBytes) __builtin_prefetch(ahead.at);
      Sums<kParts, kCount, kVectors> sum;
      sum.Begin(a);
      constexpr int kRun = kParts == 1 ? kHalves : 1;  // halves at a time
#pragma GCC unroll 1
      for (int half = 0; half < kHalves; half += kRun)
        sum.AddSteps(panel + half * kHalfBytes, a + half * kHalfRowBytes + 4, steps);
      sum.AddTo(scales, total);
      panel += kBlockBytes;
      a += kCount * kRowBytes;
      scales += kCount * kScales;
    }
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) {
#pragma GCC unroll 4
      for (int q = 0; q < kVectors; ++q) _mm512_store_ps(sums + c * kTile + 16 * q, total[c][q]);
    }
  }

  template <int kCount>
  static void Multiply(const WeightView& w, const uint8_t* panel, const uint8_t* a, const float* scales,
                       int64_t count, Ahead ahead, float* sums) {
    constexpr int kVectors = kCount <= 2 ? 4 : 2;  // as many as registers allow
    constexpr int kTimes = kTile / 16 / kVectors;
    ahead.lines = (ahead.lines + kTimes - 1) / kTimes;
    for (int r = 0; r < kTile; r += 16 * kVectors, ahead.at += ahead.lines * kLineBytes)
      MultiplyRows<kCount, kVectors>(w, panel + 4 * r, a, scales, count, ahead, sums + r);
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
// and what sums begin with, less what the weights' centre adds. A block's are block_bytes apart. Only the first of
// them if that is all there is.
template <int kScales>
inline ALWAYS_INLINE void StorePart(const WeightView& w, const __m512i* v, int blocks,
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
  _mm512_store_si512(begins[0], _mm512_sub_epi32(_mm512_setzero_si512(), centre));
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

// A PanelMultiplyFn.
template <int kParts>
void Multiply(const WeightView& w, const uint8_t* panel, const uint8_t* a, const float* scales, int64_t first,
              int64_t count, int64_t columns, const Ahead& ahead, float* sums) {
  using Panel = Products<kParts>;
  a += first * columns * Panel::kRowBytes;
  scales += first * columns * Panel::kScales;
  static_assert(kPanelColumns == 4);
  switch (columns) {
    case 1:
      return Panel::template Multiply<1>(w, panel, a, scales, count, ahead, sums);
    case 2:
      return Panel::template Multiply<2>(w, panel, a, scales, count, ahead, sums);
    case 3:
      return Panel::template Multiply<3>(w, panel, a, scales, count, ahead, sums);
    default:
      return Panel::template Multiply<4>(w, panel, a, scales, count, ahead, sums);
  }
}

template <int kParts>
void Quantize(const WeightView& w, const float* a, int64_t column, int64_t columns, uint8_t* out,
              float* scales) {
  constexpr int kScales = Products<kParts>::kScales;
  constexpr int64_t kRowBytes = Products<kParts>::kRowBytes;
  const PanelTables& t = w.tables->panel;
  constexpr float kLimit = kParts == 2 ? 32639 : 127;  // whole, so that the largest activation has no error
  const __m512 limit = _mm512_set1_ps(kLimit);
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
    const __m512 unit = _mm512_mask_mul_ps(top, any, top, _mm512_set1_ps(t.unit / kLimit));
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
    if (kParts == 2) StorePart<kScales>(w, high, blocks, block_bytes, out);
    StorePart<kScales>(w, low, blocks, block_bytes,
                       out + (kParts - 1) * kPartBytes);
    out += blocks * block_bytes;
  }
}

}  // namespace

const PanelKernels kAvx512Panel8 = {
    Avx512PanelUsable,
    Avx512Decode,
    Quantize<1>,
    Multiply<1>,
    Avx512MultiplyTile,
    Avx512TileColumns,
    nullptr,
    Avx512StoreQuarters,
    kPartBytes,
    kHalves,
    kPanelColumns,
    1,
    kPanelBlocks,
    kFewBlocks,
};
const PanelKernels kAvx512Panel16 = {
    Avx512PanelUsable,
    Avx512Decode,
    Quantize<2>,
    Multiply<2>,
    nullptr,
    nullptr,
    nullptr,
    Avx512StoreQuarters,
    2 * kPartBytes,
    1,
    kPanelColumns,
    1,
    kPanelBlocks,
    kFewBlocks,
};

}  // namespace cosetq
