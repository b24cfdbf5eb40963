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

inline Words Products256(const uint8_t* table, __m512i digits) {
  return Join(Lookup256(table, digits), Lookup256(table + 256, digits));
}

// Products of two vectors of digits by one table. Its registers are loaded once for both: left to
// itself the compiler loads them again, and loads limit this kernel.
inline void Products256(const uint8_t* table, __m512i a, __m512i b, Words* of_a, Words* of_b) {
  const __mmask64 high_a = _mm512_movepi8_mask(a), high_b = _mm512_movepi8_mask(b);
  __m512i byte_a[2], byte_b[2];
  for (int i = 0; i < 2; ++i) {
    const __m512i* t = reinterpret_cast<const __m512i*>(table + 256 * i);
    __m512i t0 = _mm512_load_si512(t), t1 = _mm512_load_si512(t + 1);
    __m512i t2 = _mm512_load_si512(t + 2), t3 = _mm512_load_si512(t + 3);
    __asm__("" : "+v"(t0), "+v"(t1), "+v"(t2), "+v"(t3));
    byte_a[i] = _mm512_mask_blend_epi8(high_a, _mm512_permutex2var_epi8(t0, a, t1),
                                       _mm512_permutex2var_epi8(t2, a, t3));
    byte_b[i] = _mm512_mask_blend_epi8(high_b, _mm512_permutex2var_epi8(t0, b, t1),
                                       _mm512_permutex2var_epi8(t2, b, t3));
  }
  *of_a = Join(byte_a[0], byte_a[1]);
  *of_b = Join(byte_b[0], byte_b[1]);
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

// Gains of the two groups of a pair in the same arrangement.
class PairGains {
 public:
  PairGains(const WeightView& w, __mmask64 rows, int64_t tile, int64_t pair)
      : present_(w.gains != nullptr) {
    if (!present_) return;
    const int log2 = __builtin_ctz(static_cast<unsigned>(w.gains_per_byte));
    const int64_t packed = (w.groups + w.gains_per_byte - 1) >> log2;
    const int64_t at = tile * packed + (2 * pair >> log2);
    bytes_ = _mm512_maskz_loadu_epi8(rows, w.gains + at * w.tile);
    table_ = _mm512_load_si512(w.tables->gain_bytes);
    const int low = w.gain_bits * static_cast<int>(2 * pair & (w.gains_per_byte - 1));
    shift_ = _mm512_set1_epi32(low | (low + w.gain_bits) << 16);
  }

  __m512i Quarter(int q) const {
    if (!present_) return _mm512_set1_epi16(1);
    // The byte of each row fills its whole lane; each word then shifts its group's index down.
    // Look-ups use the low six bits of a byte, and the table repeats the gains, so the bits above
    // an index do no harm.
    const __m512i place =
        _mm512_broadcast_i32x4(_mm_add_epi8(_mm_set_epi32(0x03030303, 0x02020202, 0x01010101, 0),
                                            _mm_set1_epi8(static_cast<char>(4 * q))));
    const __m512i index = _mm512_srlv_epi16(_mm512_shuffle_epi8(bytes_, place), shift_);
    return _mm512_maskz_permutexvar_epi8(0x5555555555555555, index, table_);
  }

 private:
  bool present_;
  __m512i bytes_, table_, shift_;
};

template <Form kForm>
void LookupForm(const WeightView& w, int64_t tile, int64_t pair, int64_t count,
                const uint8_t* tables, const float* steps, float* lanes) {
  const __mmask64 rows = TileMask(w);
  const int64_t group_bytes = static_cast<int64_t>(w.elements) * w.tile;
  const uint8_t* codes =
      static_cast<const uint8_t*>(w.codes) + (tile * w.groups + 2 * pair) * group_bytes;
  const __m128i ratio = _mm_cvtsi32_si128(w.tables->ratio_log2);
  __m512 sum[4];
  for (int q = 0; q < 4; ++q) sum[q] = _mm512_load_ps(lanes + 16 * q);
  for (int64_t p = 0; p < count; ++p, tables += PairTableBytes(w)) {
    Words fine[2], coarse[2];
    for (int u = 0; u < 2; ++u) {
      // The tables of a group past the last are zero; any codes will do.
      if (2 * (pair + p) + u == w.groups) codes -= group_bytes;
      __m512i e[4];
      for (int i = 0; i < FormElements(kForm); ++i)
        e[i] = _mm512_maskz_loadu_epi8(rows, codes + i * w.tile);
      codes += group_bytes;
      const uint8_t* t0 = tables + 2 * u * kBlockTable;
      const uint8_t* t1 = t0 + kBlockTable;
      if constexpr (kForm == Form::kNibbleByte) {
        const uint8_t* n0 = tables + 4 * kBlockTable + 2 * u * kNibbleTable;
        fine[u] =
            Add(Products16(n0, Nibbles(e[0], 0)), Products16(n0 + kNibbleTable, Nibbles(e[0], 1)));
        coarse[u] = Add(Products256(t0, e[1]), Products256(t1, e[2]));
      } else if constexpr (kForm == Form::kTwoByte) {
        Words fine1, coarse1;
        Products256(t0, e[0], e[2], &fine[u], &coarse[u]);
        Products256(t1, e[1], e[3], &fine1, &coarse1);
        fine[u] = Add(fine[u], fine1);
        coarse[u] = Add(coarse[u], coarse1);
      } else {
        fine[u] = Add(Products256(t0, e[0]), Products256(t1, e[1]));
      }
    }
    const PairGains gains(w, rows, tile, pair + p);
    const __m512 step = _mm512_set1_ps(steps[p]);
    for (int q = 0; q < 4; ++q) {
      const __m512i gain = gains.Quarter(q);
      __m512i total = _mm512_madd_epi16(Interleave(fine[0], fine[1], q), gain);
      if constexpr (kForm != Form::kOneByte) {
        total = _mm512_dpwssd_epi32(total, Interleave(coarse[0], coarse[1], q),
                                    _mm512_sll_epi16(gain, ratio));
      }
      sum[q] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), step, sum[q]);
    }
  }
  for (int q = 0; q < 4; ++q) _mm512_store_ps(lanes + 16 * q, sum[q]);
}

}  // namespace

// No product of a codeword with a[4] is larger. NaN when an activation is.
static double ProductBound(const FormTables& t, const float* a) {
  double norm = 0, coordinates = 0;
  for (int j = 0; j < 4; ++j) {
    norm += static_cast<double>(a[j]) * a[j];
    coordinates += fabs(static_cast<double>(a[j])) * t.largest[j];
  }
  const double by_norm = sqrt(norm) * t.longest;
  return by_norm < coordinates ? by_norm : coordinates;
}

void Avx512LookupBuild(const WeightView& w, const float* a, int64_t pair, int64_t count,
                       uint8_t* tables, float* steps) {
  const FormTables& t = *w.tables;
  const bool nibbles = w.form == Form::kNibbleByte;
  const auto* centred = t.centred[nibbles ? 1 : 0];
  const float unit = w.level_weights[0] * (w.gains == nullptr ? w.gain_values[0] : 1.0f);
  for (int64_t p = 0; p < count; ++p, tables += PairTableBytes(w)) {
    const float* from = a + (pair + p) * 2 * kGroup;
    double bound = 0;
    for (int b = 0; b < 4; ++b) {
      const double block = ProductBound(t, from + 4 * b);
      bound = block > bound || block != block ? block : bound;
    }
    const bool any = bound > 1e-30;  // below, and its inverse would leave float's range
    const float scale = any ? static_cast<float>(kLargest / bound) : 0;
    // Zero, or NaN when an activation is; an infinite bound makes an infinite step and NaN sums.
    steps[p] = static_cast<float>(any ? bound / kLargest * unit : bound * 0);
    float scaled[2 * kGroup];
    for (int k = 0; k < 2 * kGroup; ++k) scaled[k] = from[k] * scale;
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

void Avx512Lookup(const WeightView& w, int64_t tile, int64_t pair, int64_t count,
                  const uint8_t* tables, const float* steps, float* lanes) {
  switch (w.form) {
    case Form::kOneByte:
      return LookupForm<Form::kOneByte>(w, tile, pair, count, tables, steps, lanes);
    case Form::kTwoByte:
      return LookupForm<Form::kTwoByte>(w, tile, pair, count, tables, steps, lanes);
    case Form::kNibbleByte:
      return LookupForm<Form::kNibbleByte>(w, tile, pair, count, tables, steps, lanes);
    case Form::kGeneral:
      return;
  }
}

void Avx512LaneRows(const float* lanes, float* sums) {
  for (int q = 0; q < 4; ++q) {
    for (int l = 0; l < 4; ++l) {
      _mm_store_ps(sums + 16 * l + 4 * q, _mm_load_ps(lanes + 16 * q + 4 * l));
    }
  }
}

}  // namespace cosetq
