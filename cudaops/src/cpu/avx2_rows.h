// The rows of a tile as two vectors of bytes. For files built with AVX2 only.

#ifndef COSETQ_CPU_AVX2_ROWS_H_
#define COSETQ_CPU_AVX2_ROWS_H_

#include <immintrin.h>
#include <string.h>

#include "lookup_scale.h"

#define ALWAYS_INLINE __attribute__((always_inline))

namespace cosetq {

// See LookupBuildFn, LookupFn and StoreRowsFn in kernels.h.
void Avx2LookupBuild8(const WeightView& w, const float* a, int64_t count, uint8_t* tables,
                      float* steps);
void Avx2Lookup8(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                 const uint8_t* tables, const float* steps, const uint8_t* next, float* lanes);
void Avx2LookupBuild16(const WeightView& w, const float* a, int64_t count, uint8_t* tables,
                       float* steps);
void Avx2Lookup16(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                  const uint8_t* tables, const float* steps, const uint8_t* next, float* lanes);
void Avx2StoreQuarters(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride);
void Avx2StoreLookup(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride);
void Avx2StoreInOrder(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride);

extern const PanelKernels kAvx2Panel8, kAvx2Panel16, kAvxVnniPanel8, kAvxVnniPanel16;

namespace {

struct Rows {
  __m256i half[2];
};

inline ALWAYS_INLINE __m256i Load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

// One byte of each row of a tile; rows that the tile lacks get zeros.
inline ALWAYS_INLINE Rows LoadRows(const uint8_t* from, int tile) {
  if (__builtin_expect(tile == kTile, 1)) return {{Load(from), Load(from + 32)}};
  alignas(32) uint8_t rows[kTile] = {};
  memcpy(rows, from, static_cast<size_t>(tile));
  return {{Load(rows), Load(rows + 32)}};
}

// Half h of those.
inline ALWAYS_INLINE __m256i LoadHalf(const uint8_t* from, int tile, int h) {
  if (__builtin_expect(tile == kTile, 1)) return Load(from + 32 * h);
  return LoadRows(from, tile).half[h];
}

// The gains of 64 rows, as bytes, for one group of a tile after the other. Groups past the last have
// some gains or other.
class GainStream {
 public:
  GainStream(const WeightView& w, int64_t tile, int64_t first) : tile_(w.tile) {
    if (w.gains == nullptr) {
      table_ = _mm256_set1_epi8(1);
      return;
    }
    table_ = _mm256_broadcastsi128_si256(
        _mm_load_si128(reinterpret_cast<const __m128i*>(w.tables->gain_bytes)));
    const int log2 = __builtin_ctz(static_cast<unsigned>(w.gains_per_byte));
    const int64_t packed = (w.groups + w.gains_per_byte - 1) >> log2;
    next_ = w.gains + (tile * packed + (first >> log2)) * w.tile;
    end_ = w.gains + (tile + 1) * packed * w.tile;
    bits_ = w.gain_bits;
    mask_ = w.gains_per_byte - 1;
    at_ = static_cast<int>(first & mask_);
    if (at_ != 0) Read();
  }

  ALWAYS_INLINE Rows Next() {
    if ((at_ & mask_) == 0 && next_ < end_) Read();
    const __m128i shift = _mm_cvtsi32_si128(bits_ * (at_++ & mask_));
    const __m256i low = _mm256_set1_epi8(static_cast<char>((1 << bits_) - 1));
    Rows gains;
    for (int h = 0; h < 2; ++h) {
      const __m256i index = _mm256_and_si256(_mm256_srl_epi16(packed_.half[h], shift), low);
      gains.half[h] = _mm256_shuffle_epi8(table_, index);
    }
    return gains;
  }

 private:
  ALWAYS_INLINE void Read() {
    packed_ = LoadRows(next_, tile_);
    next_ += tile_;
  }

  __m256i table_;
  Rows packed_ = {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
  const uint8_t* next_ = nullptr;
  const uint8_t* end_ = nullptr;
  int tile_, at_ = 0, mask_ = 0, bits_ = 0;
};

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_AVX2_ROWS_H_
