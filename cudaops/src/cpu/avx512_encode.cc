// The encoder for AVX-512. Built with its own flags; reached only through encode.cc.

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace cosetq {
namespace {

constexpr int kLanes = 16;

typedef float F __attribute__((vector_size(64)));
typedef uint32_t U __attribute__((vector_size(64)));
typedef __mmask16 M;

constexpr M kNone = 0;

inline __m512i Int(U a) { return reinterpret_cast<__m512i>(a); }
inline U Uint(__m512i a) { return reinterpret_cast<U>(a); }

inline F Splat(float x) { return _mm512_set1_ps(x); }
inline U SplatInt(uint32_t x) { return Uint(_mm512_set1_epi32(static_cast<int32_t>(x))); }

template <typename V>
inline V Load(const void* from) {
  V v;
  memcpy(&v, from, sizeof v);
  return v;
}

inline M Gt(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline M Ge(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
inline M Eq(U a, U b) { return _mm512_cmpeq_epi32_mask(Int(a), Int(b)); }
inline F Select(M m, F a, F b) { return _mm512_mask_blend_ps(m, b, a); }
inline U Select(M m, U a, U b) { return Uint(_mm512_mask_blend_epi32(m, Int(b), Int(a))); }
inline F Max(F a, F b) { return _mm512_max_ps(a, b); }
inline F Min(F a, F b) { return _mm512_min_ps(a, b); }
inline F Abs(F a) { return _mm512_abs_ps(a); }
inline U Sign(F a) { return Uint(_mm512_srai_epi32(_mm512_castps_si512(a), 31)); }
inline uint32_t Bits(M m) { return m; }
inline M FirstLanes(int count) { return static_cast<M>((1u << count) - 1); }
inline U Lane() {
  return Uint(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

// Stores some lanes one after the other. May write as much as a whole vector.
inline void Pack(M lanes, U v, void* to) {
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(lanes, Int(v)));
}

// Turns 16 groups of 8 by taking every second number three times.
inline void LoadTile(const float* groups, F* x) {
  const __m512i even =
      _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  F a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = Load<F>(groups + 16 * i);
  for (int bit = 1; bit < 8; bit *= 2) {
    for (int i = 0; i < 8; ++i) {
      const int low = i & ~bit;
      b[i] = _mm512_permutex2var_ps(a[low], i & bit ? odd : even, a[low | bit]);
    }
    memcpy(a, b, sizeof a);
  }
  memcpy(x, a, sizeof a);
}

}  // namespace
}  // namespace cosetq

#include "encode_view.h"

namespace cosetq {
namespace {

// Coordinates j and j + 1 of 32 packed points, coordinate by coordinate.
inline __m512i TwoColumns(U low, U high, int j) {
  alignas(64) static constexpr uint8_t kEvery4th[64] = {
      0,  4,  8,  12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56,  60,  64, 68, 72, 76, 80, 84,
      88, 92, 96, 100, 104, 108, 112, 116, 120, 124, 1,  5,  9,  13, 17, 21, 25, 29, 33, 37, 41, 45,
      49, 53, 57, 61, 65, 69, 73, 77, 81, 85, 89, 93, 97, 101, 105, 109, 113, 117, 121, 125};
  const __m512i at = _mm512_add_epi8(_mm512_load_si512(kEvery4th),
                                     _mm512_set1_epi8(static_cast<char>(j)));
  return _mm512_permutex2var_epi8(Int(low), at, Int(high));
}

// Shifts bytes; what comes in from their neighbours is masked away by the caller.
inline __m512i Shifted(__m512i bytes, int by) {
  return _mm512_sll_epi16(bytes, _mm_cvtsi32_si128(by));
}

inline __m512i LookUp(const uint8_t* table, __m512i k, __mmask64 upper) {
  const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(table), k,
                                               _mm512_load_si512(table + 64));
  const __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), k,
                                                _mm512_load_si512(table + 192));
  return _mm512_mask_blend_epi8(upper, low, high);
}

// The class of each point at every level, level m in bits 8m and up, and whether the point is in
// the code: 64 points at a time, one byte for each coordinate.
inline void Digits(const EncoderView& codec, const U points[kWide], U classes[kWide],
                   M inside[kWide]) {
  const __m512i low01 = TwoColumns(points[0], points[1], 0);
  const __m512i high01 = TwoColumns(points[2], points[3], 0);
  const __m512i low23 = TwoColumns(points[0], points[1], 2);
  const __m512i high23 = TwoColumns(points[2], points[3], 2);
  __m512i x[4] = {
      _mm512_shuffle_i64x2(low01, high01, 0x44), _mm512_shuffle_i64x2(low01, high01, 0xee),
      _mm512_shuffle_i64x2(low23, high23, 0x44), _mm512_shuffle_i64x2(low23, high23, 0xee)};
  const __m512i zero = _mm512_setzero_si512();
  __m512i k[kEncodeLevels] = {zero, zero, zero, zero};
  for (int m = 0; m < codec.levels; ++m) {
    const EncodeLevel& level = codec.level[m];
    const int shift = level.shift;
    const __m512i mask = _mm512_set1_epi8(static_cast<char>(level.mask));
    // By the inverse of the basis, modulo q, which the bias is a multiple of.
    const __m512i x23 = _mm512_add_epi8(x[2], x[3]);
    const __m512i sum = _mm512_add_epi8(_mm512_add_epi8(x[0], x[1]), x23);
    // The neighbour's bit that comes in on top lies above the mask.
    const __m512i half = _mm512_srli_epi16(sum, 1);
    const __m512i b0 = _mm512_and_si512(_mm512_sub_epi8(zero, half), mask);
    const __m512i b1 = _mm512_and_si512(_mm512_sub_epi8(x[0], half), mask);
    const __m512i b2 = _mm512_and_si512(_mm512_sub_epi8(zero, x23), mask);
    const __m512i b3 = _mm512_and_si512(_mm512_sub_epi8(zero, x[3]), mask);
    k[m] = _mm512_or_si512(
        _mm512_or_si512(b0, Shifted(b1, shift)),
        _mm512_or_si512(Shifted(b2, 2 * shift), Shifted(b3, 3 * shift)));
    const __mmask64 upper = _mm512_movepi8_mask(k[m]);
    for (int j = 0; j < 4; ++j)
      x[j] = _mm512_sub_epi8(x[j], LookUp(level.columns + 256 * j, k[m], upper));
    if (m + 1 == codec.levels) break;
    const __m512i kept = _mm512_set1_epi8(static_cast<char>(0xff >> shift));
    for (int j = 0; j < 4; ++j)
      x[j] = _mm512_and_si512(_mm512_srl_epi16(x[j], _mm_cvtsi32_si128(shift)), kept);
  }
  const EncodeLevel& last = codec.level[codec.levels - 1];
  const __m512i origin = _mm512_set1_epi8(static_cast<char>(last.zero << last.shift));
  __mmask64 all = _mm512_cmpeq_epi8_mask(x[0], origin);
  for (int j = 1; j < 4; ++j) all = _mm512_mask_cmpeq_epi8_mask(all, x[j], origin);
  for (int i = 0; i < kWide; ++i) {
    inside[i] = static_cast<M>(all >> (16 * i));
    const __m512i lane = Int(Lane() + static_cast<uint32_t>(16 * i));
    const __m512i at = _mm512_or_si512(
        lane, _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(64)), 8));
    const __m512i fine = _mm512_maskz_permutex2var_epi8(0x3333333333333333, k[0], at, k[1]);
    classes[i] = Uint(fine);
    if (codec.levels <= 2) continue;
    const __m512i coarse = _mm512_maskz_permutex2var_epi8(0x3333333333333333, k[2], at, k[3]);
    classes[i] |= Uint(_mm512_slli_epi32(coarse, 16));
  }
}

}  // namespace
}  // namespace cosetq

#include "encode_metric.h"

namespace cosetq {

const EncodeKernel kAvx512Encode = {"avx512", Encode, EncodeInMetric};
const EncodeKernel kAmxEncode = {"amx", Encode, EncodeInMetric};

}  // namespace cosetq
