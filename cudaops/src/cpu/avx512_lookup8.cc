// Value look-up with tables of one byte, AVX-512 VBMI and VNNI: as avx512_lookup.cc, with half the
// look-ups and about 1 % of error.
//
// The products of a group's two blocks come together in neighbouring bytes, which one
// multiplication with the gain adds up.

#include <type_traits>

#include "avx512_lookup.h"
#include "kernels.h"

namespace cosetq {
namespace {

constexpr float kLargest = 127;
constexpr int kUnitGroups = 4;
constexpr int kBlocks = 2 * kUnitGroups;  // of four activations, in a unit
constexpr int kFraction = 7;              // no activation in units of the step exceeds 255, see ProductBound
constexpr int64_t kTable = kBlockTable / 2;     // bytes
constexpr int64_t kNibbles = kNibbleTable / 2;  // bytes

// sum[i] += gain * (a + b) in 16 bits, for bytes 0 to 7 (i = 0) or 8 to 15 of every 128 bits. A
// unit's groups fit: 4 * 16 * 2 * 127 is below 2^15.
inline ALWAYS_INLINE void AddProducts(const __m512i* gain, __m512i a, __m512i b, __m512i* sum) {
  sum[0] = _mm512_add_epi16(sum[0], _mm512_maddubs_epi16(gain[0], _mm512_unpacklo_epi8(a, b)));
  sum[1] = _mm512_add_epi16(sum[1], _mm512_maddubs_epi16(gain[1], _mm512_unpackhi_epi8(a, b)));
}

// The gains of a unit's groups, each twice: of rows 0 to 7 of every 16, and of rows 8 to 15.
class AnyGains {
 public:
  AnyGains(const WeightView& w, int64_t tile, int64_t unit, int64_t) : stream_(w, tile, unit * kUnitGroups) {}
  void NextUnit() {}
  ALWAYS_INLINE void Next(int, __m512i* gain) {
    const __m512i one = stream_.Next();
    gain[0] = _mm512_unpacklo_epi8(one, one);
    gain[1] = _mm512_unpackhi_epi8(one, one);
  }

 private:
  GainStream stream_;
};

// Those of tiles of 64 rows that have one byte for a unit, or none. Look-ups use six bits of it: three tables, one for each
// place in them, save shifts, and indices are doubled once.
class ByteGains {
 public:
  ByteGains(const WeightView& w, int64_t tile, int64_t unit, int64_t next)
      : bytes_(w.gains == nullptr ? kNone : w.gains + (tile * ((w.groups + kUnitGroups - 1) / kUnitGroups) + unit) * kTile),
        ahead_(w.gains == nullptr ? kNone : w.gains + next * kTile),
        stride_(w.gains == nullptr ? 0 : kTile) {
    table_[0] = w.gains == nullptr ? _mm512_set1_epi8(1) : _mm512_load_si512(w.tables->gain_bytes);
    const __m512i place = _mm512_load_si512(kPlaces);
    for (int i = 1; i < 3; ++i)
      table_[i] = _mm512_permutexvar_epi8(_mm512_srli_epi16(place, static_cast<unsigned>(2 * i)), table_[0]);
  }

  ALWAYS_INLINE void NextUnit() {
    const __m512i one = _mm512_loadu_si512(bytes_);
    index_[0] = _mm512_unpacklo_epi8(one, one);
    index_[1] = _mm512_unpackhi_epi8(one, one);
    PrefetchCodes(ahead_);
    bytes_ += stride_;
    ahead_ += stride_;
  }

  ALWAYS_INLINE void Next(int group, __m512i* gain) {
    Unroll<2>([&](int i) ALWAYS_INLINE {
      const bool last = group == kUnitGroups - 1;
      gain[i] = _mm512_permutexvar_epi8(last ? _mm512_srli_epi16(index_[i], 2) : index_[i], table_[last ? 2 : group]);
    });
  }

  static bool Has(const WeightView& w) { return w.tile == kTile && (w.gains == nullptr || w.gain_bits == 2); }

 private:
  alignas(64) static const uint8_t kNone[kTile], kPlaces[kTile];

  __m512i table_[3], index_[2];
  const uint8_t* bytes_;
  const uint8_t* ahead_;
  int64_t stride_;
};

const uint8_t ByteGains::kNone[kTile] = {};
const uint8_t ByteGains::kPlaces[kTile] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

// kUsual: tiles have 64 rows, and gains are as ByteGains wants them.
template <Form kForm, bool kUsual>
void LookupTile(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                const uint8_t* tables, const float* steps, const uint8_t* next, float* lanes) {
  const __mmask64 rows = TileMask(w);
  // Known of whole tiles, so that addresses need no registers.
  const int64_t stride = kUsual ? kTile : w.tile, group_bytes = FormElements(kForm) * stride;
  const uint8_t* all = static_cast<const uint8_t*>(w.codes);
  const uint8_t* codes = all + (tile * w.groups + unit * kUnitGroups) * group_bytes;
  // Gains are fetched as codes are; where a tile ends amid a unit some come too early, which does no harm.
  std::conditional_t<kUsual, ByteGains, AnyGains> gains(w, tile, unit, (next - all) / group_bytes / kUnitGroups);
  CodesAhead ahead(next);
  // A level's part of the even words of a vector of sums, and of the odd ones.
  const int ratio = 1 << w.tables->ratio_log2;
  const __m512i fine[2] = {_mm512_set1_epi32(1), _mm512_set1_epi32(1 << 16)};
  const __m512i coarse[2] = {_mm512_set1_epi32(ratio), _mm512_set1_epi32(ratio << 16)};
  __m512 total[4];  // [half][odd]
  Unroll<4>([&](int i) ALWAYS_INLINE { total[i] = _mm512_load_ps(lanes + 16 * i); });
  for (int64_t n = 0; n < count; ++n, tables += LookupTableBytes(w, 1)) {
    __m512i sum[2][2];  // [level][half]
    Unroll<2>([&](int i) ALWAYS_INLINE { sum[0][i] = sum[1][i] = _mm512_setzero_si512(); });
    gains.NextUnit();
    const int64_t left = w.groups - (unit + n) * kUnitGroups;
    const auto add_group = [&](int g) ALWAYS_INLINE {
      __m512i gain[2];
      gains.Next(g, gain);
      __m512i product[2][2];  // [level][block]
      const __m512i both = LoadRows<kUsual>(rows, codes);
      ahead.Fetch<FormElements(kForm)>(stride);
      const auto block = [&](auto which) ALWAYS_INLINE {
        constexpr int b = which;
        constexpr bool kCompare = b == 0;
        __m512i t[4];
        LoadTable(tables + (2 * g + b) * kTable, t);
        if constexpr (kForm == Form::kNibbleByte) {
          const uint8_t* nibbles = tables + 2 * kUnitGroups * kTable + (2 * g + b) * kNibbles;
          product[0][b] = Lookup16(nibbles, Nibbles(both, b));
          product[1][b] = LookUp<kCompare>(t, LoadDigits<kUsual>(rows, codes + (1 + b) * stride));
        } else {
          product[0][b] = LookUp<kCompare>(t, LoadDigits<kUsual>(rows, codes + b * stride));
        }
        if constexpr (kForm == Form::kTwoByte) {
          product[1][b] = LookUp<kCompare>(t, LoadDigits<kUsual>(rows, codes + (2 + b) * stride));
        }
      };
      block(std::integral_constant<int, 0>{});
      block(std::integral_constant<int, 1>{});
      AddProducts(gain, product[0][0], product[0][1], sum[0]);
      if constexpr (kForm != Form::kOneByte)
        AddProducts(gain, product[1][0], product[1][1], sum[1]);
      codes += group_bytes;
    };
    Unroll<kUnitGroups>([&](int g) ALWAYS_INLINE {
      if (g < left) add_group(g);
    });
    const __m512 step = _mm512_set1_ps(steps[n]);
    Unroll<4>([&](int i) ALWAYS_INLINE {
      __m512i both = _mm512_madd_epi16(sum[0][i / 2], fine[i % 2]);
      if constexpr (kForm != Form::kOneByte)
        both = _mm512_dpwssd_epi32(both, sum[1][i / 2], coarse[i % 2]);
      total[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(both), step, total[i]);
    });
  }
  Unroll<4>([&](int i) ALWAYS_INLINE { _mm512_store_ps(lanes + 16 * i, total[i]); });
}

template <Form kForm>
void LookupForm(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                const uint8_t* tables, const float* steps, const uint8_t* next, float* lanes) {
  const auto lookup = ByteGains::Has(w) ? LookupTile<kForm, true> : LookupTile<kForm, false>;
  lookup(w, tile, unit, count, tables, steps, next, lanes);
}

// Products of 16 codewords with four activations, in units of the step.
inline void BuildNibble(const float (*centred)[256], const float* a, uint8_t* table) {
  __m512 sum = _mm512_mul_ps(_mm512_load_ps(centred[0]), _mm512_set1_ps(a[0]));
  for (int j = 1; j < 4; ++j)
    sum = _mm512_fmadd_ps(_mm512_load_ps(centred[j]), _mm512_set1_ps(a[j]), sum);
  _mm_store_si128(reinterpret_cast<__m128i*>(table), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(sum)));
}

// The activations of a unit in units of its step.
struct ScaledUnit {
  alignas(64) float a[kBlocks * 4];
  // With kFraction bits behind the point: coordinates 2 * p and 2 * p + 1 in 16 bits each, and what every
  // product of a block begins with, the centre taken off and rounding added.
  alignas(64) int16_t pairs[kBlocks][2][2];
  alignas(32) int32_t start[kBlocks];
};

// ScaleActivations (lookup_scale.h) for all blocks at once. Returns what the integer 1 stands for.
inline float ScaleUnit(const WeightView& w, const float* a, ScaledUnit* out) {
  const FormTables& t = *w.tables;
  const __m512 half[2] = {_mm512_loadu_ps(a), _mm512_loadu_ps(a + 16)};
  const __m512i every_fourth = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0);
  __m256 coordinate[4];  // of the blocks
  __m512d norm = _mm512_setzero_pd(), sum = _mm512_setzero_pd();
  for (int j = 0; j < 4; ++j) {
    const __m512i at = _mm512_add_epi32(every_fourth, _mm512_set1_epi32(j));
    coordinate[j] = _mm512_castps512_ps256(_mm512_permutex2var_ps(half[0], at, half[1]));
    const __m512d v = _mm512_cvtps_pd(coordinate[j]);
    norm = _mm512_fmadd_pd(v, v, norm);
    sum = _mm512_fmadd_pd(_mm512_abs_pd(v), _mm512_set1_pd(t.largest[j]), sum);
  }
  const __m512d by_norm = _mm512_mul_pd(_mm512_sqrt_pd(norm), _mm512_set1_pd(t.longest));
  const __m512d bounds = _mm512_min_pd(by_norm, sum);
  double bound = _mm512_reduce_max_pd(bounds);
  if (_mm512_cmp_pd_mask(bounds, bounds, _CMP_UNORD_Q) != 0) bound = __builtin_nan("");
  const LookupStep step(w, bound, kLargest);
  const __m512 scale = _mm512_set1_ps(step.scale), fraction = _mm512_set1_ps(1 << kFraction);
  for (int h = 0; h < 2; ++h) {
    const __m512 scaled = _mm512_mul_ps(half[h], scale);
    _mm512_store_ps(out->a + 16 * h, scaled);
    _mm256_store_si256(reinterpret_cast<__m256i*>(out->pairs[4 * h]),
                       _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(scaled, fraction))));
  }
  __m256 centre = _mm256_setzero_ps();
  for (int j = 0; j < 4; ++j)
    centre = _mm256_fmadd_ps(coordinate[j], _mm256_set1_ps(t.shares[j]), centre);
  centre = _mm256_mul_ps(centre, _mm512_castps512_ps256(_mm512_mul_ps(scale, fraction)));
  _mm256_store_si256(reinterpret_cast<__m256i*>(out->start),
                     _mm256_sub_epi32(_mm256_set1_epi32(1 << (kFraction - 1)), _mm256_cvtps_epi32(centre)));
  return step.unit;
}

// Products of 256 codewords with a block.
inline void BuildTable(const FormTables& t, const ScaledUnit& unit, int block, uint8_t* table) {
  __m512i pair[2];
  for (int p = 0; p < 2; ++p) {
    int32_t both;
    __builtin_memcpy(&both, unit.pairs[block][p], sizeof both);
    pair[p] = _mm512_set1_epi32(both);
  }
  const __m512i start = _mm512_set1_epi32(unit.start[block]);
  for (int place = 0; place < 256; place += 64) {
    __m512i sum[4];
    Unroll<4>([&](int i) ALWAYS_INLINE {
      sum[i] = start;
      for (int p = 0; p < 2; ++p)
        sum[i] =
            _mm512_dpwssd_epi32(sum[i], _mm512_load_si512(t.integers[p][place + 16 * i]), pair[p]);
    });
    // A product with its fraction has 15 bits.
    const __m512i low = _mm512_srai_epi16(_mm512_packs_epi32(sum[0], sum[1]), kFraction);
    const __m512i high = _mm512_srai_epi16(_mm512_packs_epi32(sum[2], sum[3]), kFraction);
    _mm512_store_si512(table + place, _mm512_packs_epi16(low, high));
  }
}

}  // namespace

void Avx512LookupBuild8(const WeightView& w, const float* a, int64_t count, uint8_t* tables,
                        float* steps) {
  const FormTables& t = *w.tables;
  const bool nibbles = w.form == Form::kNibbleByte;
  // Steps of some units first: each is a long chain, and the processor works on several at once.
  constexpr int64_t kAtOnce = 8;
  ScaledUnit units[kAtOnce];
  for (int64_t first = 0; first < count; first += kAtOnce) {
    const int64_t here = count - first < kAtOnce ? count - first : kAtOnce;
    for (int64_t n = 0; n < here; ++n)
      steps[first + n] = ScaleUnit(w, a + (first + n) * kBlocks * 4, &units[n]);
    for (int64_t n = 0; n < here; ++n, tables += LookupTableBytes(w, 1)) {
      for (int b = 0; b < kBlocks; ++b) {
        BuildTable(t, units[n], b, tables + b * kTable);
        if (nibbles)
          BuildNibble(t.centred[0], units[n].a + 4 * b, tables + kBlocks * kTable + b * kNibbles);
      }
    }
  }
}

void Avx512Lookup8(const WeightView& w, int64_t tile, int64_t unit, int64_t count,
                   const uint8_t* tables, const float* steps, const uint8_t* next, float* lanes) {
  switch (w.form) {
    case Form::kOneByte:
      return LookupForm<Form::kOneByte>(w, tile, unit, count, tables, steps, next, lanes);
    case Form::kTwoByte:
      return LookupForm<Form::kTwoByte>(w, tile, unit, count, tables, steps, next, lanes);
    case Form::kNibbleByte:
      return LookupForm<Form::kNibbleByte>(w, tile, unit, count, tables, steps, next, lanes);
    case Form::kNibbles:
    case Form::kTwoBits:
    case Form::kGeneral:
      return;
  }
}

void Avx512StoreWords(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride) {
  StoreRows(lanes, columns, rows, y, stride, [](const float* from, float* sums) ALWAYS_INLINE {
    __m512 quarter[4];  // of every 16 rows, [half][pair of rows of four]
    for (int half = 0; half < 2; ++half) {
      const __m512 even = _mm512_load_ps(from + 32 * half), odd = _mm512_load_ps(from + 32 * half + 16);
      quarter[2 * half] = _mm512_unpacklo_ps(even, odd);
      quarter[2 * half + 1] = _mm512_unpackhi_ps(even, odd);
    }
    TurnQuarters(quarter, sums);
  });
}

}  // namespace cosetq
