// Table look-ups of 64 bytes at once, and the value look-up kernels. For files built with AVX-512
// VBMI only.

#ifndef COSETQ_CPU_AVX512_LOOKUP_H_
#define COSETQ_CPU_AVX512_LOOKUP_H_

#include <immintrin.h>

#include "lookup_scale.h"
#include "store_rows.h"

#define ALWAYS_INLINE __attribute__((always_inline))

namespace cosetq {

// See LookupBuildFn, LookupFn and StoreRowsFn in kernels.h.
void Avx512LookupBuild8(const WeightView& w, const float* a, int64_t count, uint8_t* tables,
                        float* steps);
void Avx512LookupBuild16(const WeightView& w, const float* a, int64_t count, uint8_t* tables,
                         float* steps);
void Avx512Lookup8(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                   const uint8_t* tables, const float* steps, const uint8_t* next, float* lanes);
void Avx512Lookup16(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                    const uint8_t* tables, const float* steps, const uint8_t* next, float* lanes);
void Avx512StoreQuarters(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride);
void Avx512StoreWords(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride);

extern const PanelKernels kAvx512Panel8, kAvx512Panel16, kAmxPanel16;

namespace {

// body(0) … body(kCount - 1), unrolled before anything else: arrays indexed by the argument then live
// in registers.
template <int kCount, typename Body>
inline ALWAYS_INLINE void Unroll(const Body& body) {
#ifdef __SANITIZE_ADDRESS__
  // With the checks of the sanitizers the compiler would take minutes for it.
  for (int i = 0; i < kCount; ++i) body(i);
#else
  if constexpr (kCount > 0) {
    Unroll<kCount - 1>(body);
    body(kCount - 1);
  }
#endif
}

// Rows of a tile; a load under this mask reads no byte past the tile and gives zero digits to the
// missing rows.
inline __mmask64 TileMask(const WeightView& w) { return ~__mmask64{0} >> (kTile - w.tile); }

// table[index] for a table of 256 bytes on a 64-byte boundary.
inline __m512i Lookup256(const void* table, __m512i index) {
  const __m512i* t = static_cast<const __m512i*>(table);
  const __m512i low =
      _mm512_permutex2var_epi8(_mm512_load_si512(t), index, _mm512_load_si512(t + 1));
  const __m512i high =
      _mm512_permutex2var_epi8(_mm512_load_si512(t + 2), index, _mm512_load_si512(t + 3));
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
}

// table[index] for a table of 16 bytes; index must be below 16.
inline __m512i Lookup16(const void* table, __m512i index) {
  return _mm512_shuffle_epi8(
      _mm512_broadcast_i32x4(_mm_load_si128(static_cast<const __m128i*>(table))), index);
}

// Low (which = 0) or high four bits of every byte.
inline __m512i Nibbles(__m512i bytes, int which) {
  return _mm512_and_si512(_mm512_srli_epi16(bytes, static_cast<unsigned>(4 * which)),
                          _mm512_set1_epi8(15));
}

// How many groups ahead codes are fetched: the hardware does not look beyond a page, and slices of tiles are short.
constexpr int kAheadGroups = 8;

// Inlined before anything else: GCC drops calls of a function that does nothing but this.
inline ALWAYS_INLINE void PrefetchCodes(const void* at) { __builtin_prefetch(at); }

// What a look-up fetches: for each of its groups one of the next look-up, which mostly stands elsewhere: far enough ahead,
// and the hardware does not look beyond a page.
class CodesAhead {
 public:
  explicit ALWAYS_INLINE CodesAhead(const uint8_t* next) : at_(next) {}

  // For each group.
  template <int kElements>
  ALWAYS_INLINE void Fetch(int64_t stride) {
    Unroll<kElements>([&](int e) ALWAYS_INLINE { PrefetchCodes(at_ + e * stride); });
    at_ += kElements * stride;
  }

 private:
  const uint8_t* at_;
};

// The bytes of the rows of a tile. A mask costs an instruction that tiles of 64 rows do without.
template <bool kWholeTile>
inline ALWAYS_INLINE __m512i LoadRows(__mmask64 rows, const uint8_t* from) {
  if constexpr (kWholeTile) return _mm512_loadu_si512(from);
  return _mm512_maskz_loadu_epi8(rows, from);
}

// A vector of digits of one byte and which of them are 128 or more.
struct Digits {
  __m512i value;
  __mmask64 high;
};

template <bool kWholeTile>
inline ALWAYS_INLINE Digits LoadDigits(__mmask64 rows, const uint8_t* codes) {
  const __m512i value = LoadRows<kWholeTile>(rows, codes);
  return {value, _mm512_movepi8_mask(value)};
}

// table[digit] for a table of 256 bytes in four registers. Comparing takes seven instructions, five of them on the port for
// shuffles, where blending takes eight, but four there: kernels mix them so that both ports have as much to do.
template <bool kCompare = false>
inline ALWAYS_INLINE __m512i LookUp(const __m512i* t, const Digits& d) {
  const __m512i low = _mm512_permutex2var_epi8(t[0], d.value, t[1]);
  if constexpr (!kCompare) return _mm512_mask_blend_epi8(d.high, low, _mm512_permutex2var_epi8(t[2], d.value, t[3]));
  const __mmask64 last = _mm512_cmpge_epu8_mask(d.value, _mm512_set1_epi8(static_cast<char>(192)));
  return _mm512_mask_permutexvar_epi8(_mm512_mask_permutexvar_epi8(low, d.high, d.value, t[2]), last, d.value, t[3]);
}

// Left to itself the compiler loads a register again for every look-up, and loads would limit the
// decoding.
inline ALWAYS_INLINE void LoadTable(const uint8_t* table, __m512i* t) {
  Unroll<4>([&](int i) ALWAYS_INLINE {
    t[i] = _mm512_load_si512(table + 64 * i);
    __asm__("" : "+v"(t[i]));
  });
}

// sum += dot products of four bytes each, those of the first without a sign. As assembly because GCC 12 makes copies of all
// sums around its own intrinsic, which halves the speed of the products.
inline ALWAYS_INLINE void AddDots(__m512i first, __m512i second, __m512i* sum) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(first), "v"(second));
}

// Four vectors of bytes as dwords: byte j of a dword is from v[j]. Dword 4 * l + i of out[q] is row
// 16 * l + 4 * q + i.
inline ALWAYS_INLINE void Interleave4(const __m512i* v, __m512i* out) {
  const __m512i low01 = _mm512_unpacklo_epi8(v[0], v[1]), low23 = _mm512_unpacklo_epi8(v[2], v[3]);
  const __m512i high01 = _mm512_unpackhi_epi8(v[0], v[1]),
                high23 = _mm512_unpackhi_epi8(v[2], v[3]);
  out[0] = _mm512_unpacklo_epi16(low01, low23);
  out[1] = _mm512_unpackhi_epi16(low01, low23);
  out[2] = _mm512_unpacklo_epi16(high01, high23);
  out[3] = _mm512_unpackhi_epi16(high01, high23);
}

// Lane 4 * l + i of quarter[q] is row 16 * l + 4 * q + i: puts them in order.
inline ALWAYS_INLINE void TurnQuarters(const __m512* quarter, float* sums) {
  __m512 pair[2][2];  // [of the quarters][of the rows]
  for (int p = 0; p < 2; ++p) {
    pair[p][0] = _mm512_shuffle_f32x4(quarter[2 * p], quarter[2 * p + 1], 0x44);
    pair[p][1] = _mm512_shuffle_f32x4(quarter[2 * p], quarter[2 * p + 1], 0xee);
  }
  for (int i = 0; i < 2; ++i) {
    _mm512_store_ps(sums + 32 * i, _mm512_shuffle_f32x4(pair[0][i], pair[1][i], 0x88));
    _mm512_store_ps(sums + 32 * i + 16, _mm512_shuffle_f32x4(pair[0][i], pair[1][i], 0xdd));
  }
}

// The gains of 64 rows, as bytes, for one group of a tile after the other. Groups past the last have
// some gains or other.
class GainStream {
 public:
  GainStream(const WeightView& w, int64_t tile, int64_t first)
      : table_(w.gains == nullptr ? _mm512_set1_epi8(1) : _mm512_load_si512(w.tables->gain_bytes)),
        index_(_mm512_setzero_si512()) {
    if (w.gains == nullptr) return;
    const int log2 = __builtin_ctz(static_cast<unsigned>(w.gains_per_byte));
    const int64_t packed = (w.groups + w.gains_per_byte - 1) >> log2;
    next_ = w.gains + (tile * packed + (first >> log2)) * w.tile;
    end_ = w.gains + (tile + 1) * packed * w.tile;
    stride_ = w.tile;
    rows_ = TileMask(w);
    bits_ = _mm512_set1_epi16(static_cast<int16_t>(w.gain_bits));
    mask_ = w.gains_per_byte - 1;
    const int place = static_cast<int>(first & mask_);
    if (place == 0) return;
    Load();
    index_ = _mm512_srl_epi16(index_, _mm_cvtsi32_si128(w.gain_bits * place));
    at_ = place;
  }

  ALWAYS_INLINE __m512i Next() {
    if ((at_ & mask_) == 0 && next_ < end_) Load();
    ++at_;
    // Look-ups use the low six bits of a byte, and the table repeats the gains, so the bits above
    // an index do no harm.
    const __m512i gain = _mm512_permutexvar_epi8(index_, table_);
    index_ = _mm512_srlv_epi16(index_, bits_);
    return gain;
  }

 private:
  ALWAYS_INLINE void Load() {
    index_ = _mm512_maskz_loadu_epi8(rows_, next_);
    next_ += stride_;
  }

  __m512i table_, index_;
  __m512i bits_ = _mm512_setzero_si512();  // in every place: a shift by one number for all takes two instructions
  const uint8_t* next_ = nullptr;
  const uint8_t* end_ = nullptr;
  int64_t stride_ = 0;
  __mmask64 rows_ = 0;
  int at_ = 0, mask_ = 0;
};

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_AVX512_LOOKUP_H_
