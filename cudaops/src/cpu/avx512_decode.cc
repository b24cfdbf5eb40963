// A tile of weights as bytes, AVX-512 VBMI and GFNI. PanelTables (weight_view.h) says what the bytes are,
// avx512_panel.h where they stand.

#include "avx512_panel.h"

namespace cosetq {
namespace {

// Matrices for Affine: (byte & 15) << shift and (byte >> 4) << shift.
inline __m512i NibbleShift(int high, int shift) {
  uint64_t matrix = 0;
  for (int bit = 0; bit < 4; ++bit) {
    // Row 7 - i makes bit i of the result.
    if (bit + shift < 8) matrix |= uint64_t{1} << (8 * (7 - bit - shift) + bit + 4 * high);
  }
  return _mm512_set1_epi64(static_cast<int64_t>(matrix));
}

// The matrices of both levels and halves of a byte.
struct NibbleShifts {
  __m512i of[2][2];  // [level][half]

  explicit NibbleShifts(const PanelTables& t) {
    for (int level = 0; level < 2; ++level) {
      for (int high = 0; high < 2; ++high) of[level][high] = NibbleShift(high, t.shift[level]);
    }
  }
};

// Sums of the levels for one group: out[4 * block + j] of 64 rows. Two coordinates share a look-up:
// shuffles are what limits the speed.
template <Form kForm>
inline ALWAYS_INLINE void LookUpGroup(const PanelTables& tables, const NibbleShifts& shifts, int tile,
                                      __mmask64 rows, const uint8_t* codes, __m512i* out) {
  Digits coarse[2], fine[2];
  __m512i nibbles[2];
  if constexpr (kForm == Form::kNibbleByte) {
    const __m512i both = _mm512_maskz_loadu_epi8(rows, codes);
    Unroll<2>([&](int b) ALWAYS_INLINE {
      nibbles[b] = Nibbles(both, b);
      coarse[b] = LoadDigits(rows, codes + (1 + b) * tile);
    });
  } else {
    Unroll<2>([&](int b) ALWAYS_INLINE {
      fine[b] = LoadDigits(rows, codes + b * tile);
      if constexpr (kForm == Form::kTwoByte) coarse[b] = LoadDigits(rows, codes + (2 + b) * tile);
    });
  }
  Unroll<2>([&](int p) ALWAYS_INLINE {
    __m512i t[4], pair[2][2];  // [level][block]
    if constexpr (kForm != Form::kNibbleByte) LoadTable(tables.pairs[0][p], t);
    Unroll<2>([&](int b) ALWAYS_INLINE {
      pair[0][b] = kForm == Form::kNibbleByte ? Lookup16(tables.pairs[0][p], nibbles[b])
                                              : LookUp(t, fine[b]);
    });
    if constexpr (kForm != Form::kOneByte) {
      LoadTable(tables.pairs[1][p], t);
      Unroll<2>([&](int b) ALWAYS_INLINE { pair[1][b] = LookUp(t, coarse[b]); });
    }
    Unroll<2>([&](int b) ALWAYS_INLINE {
      Unroll<2>([&](int high) ALWAYS_INLINE {
        __m512i* to = out + 4 * b + 2 * p + high;
        *to = _mm512_gf2p8affine_epi64_epi8(pair[0][b], shifts.of[0][high], 0);
        if constexpr (kForm != Form::kOneByte) {
          *to = _mm512_add_epi8(*to, _mm512_gf2p8affine_epi64_epi8(pair[1][b], shifts.of[1][high], 0));
        }
      });
    });
  });
}

// Blocks of one column: the four elements of each row are brought together before they are looked up.
inline ALWAYS_INLINE void LookUpNibbles(const PanelTables& tables, int tile, __mmask64 rows,
                                        const uint8_t* codes, __m512i weight[2][4]) {
  __m512i element[4], four[4];
  Unroll<4>([&](int e) ALWAYS_INLINE { element[e] = _mm512_maskz_loadu_epi8(rows, codes + e * tile); });
  Interleave4(element, four);
  Unroll<4>([&](int q) ALWAYS_INLINE {
    weight[0][q] = Lookup16(tables.nibbles, Nibbles(four[q], 0));
    weight[1][q] = Lookup16(tables.nibbles, Nibbles(four[q], 1));
  });
}

inline ALWAYS_INLINE __m512i* Step(uint8_t* from, int step) {
  return reinterpret_cast<__m512i*>(from + step * kStepBytes);
}

// The bytes of one group of a tile: four columns of every row to a step, the lower and the upper four.
template <Form kForm>
class GroupDecoder {
 public:
  explicit GroupDecoder(const WeightView& w)
      : tables_(w.tables->panel), shifts_(tables_), rows_(TileMask(w)), tile_(w.tile) {
    int32_t four;
    __builtin_memcpy(&four, tables_.bias, sizeof four);
    bias_ = _mm512_set1_epi32(four);
  }

  ALWAYS_INLINE void Decode(const uint8_t* codes, __m512i gain, __m512i weight[2][4]) const {
    const __m512i four_gains[4] = {gain, gain, gain, gain};
    __m512i factor[4], shift[4], value[8];
    Interleave4(four_gains, factor);
    Unroll<4>([&](int q) ALWAYS_INLINE {
      factor[q] = _mm512_and_si512(factor[q], _mm512_set1_epi16(0xff));
      shift[q] = _mm512_mullo_epi16(factor[q], bias_);
    });
    if constexpr (kForm == Form::kNibbles) {
      LookUpNibbles(tables_, tile_, rows_, codes, weight);
    } else {
      LookUpGroup<kForm>(tables_, shifts_, tile_, rows_, codes, value);
      Unroll<2>([&](int half) ALWAYS_INLINE { Interleave4(value + 4 * half, weight[half]); });
    }
    Unroll<2>([&](int upper) ALWAYS_INLINE {
      Unroll<4>([&](int q) ALWAYS_INLINE {
        // Two bytes at once: no product exceeds 255, so nothing is carried.
        const __m512i product = _mm512_mullo_epi16(weight[upper][q], factor[q]);
        weight[upper][q] = _mm512_sub_epi8(product, shift[q]);
      });
    });
  }

 private:
  const PanelTables& tables_;
  NibbleShifts shifts_;
  __m512i bias_;
  __mmask64 rows_;
  int tile_;
};

template <Form kForm, bool kTiles>
void DecodeForm(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  constexpr int kHalfGroups = kBlockGroups / kHalves;
  const GroupDecoder<kForm> decoder(w);
  GainStream gains(w, tile, first * kBlockGroups);
  const __m512i zero = _mm512_setzero_si512(), offset = _mm512_set1_epi8(-128);
  const __m512i kappa = _mm512_set1_epi16(w.tables->panel.kappa);
  const int64_t group_bytes = static_cast<int64_t>(FormElements(kForm)) * w.tile;
  int64_t group = first * kBlockGroups;
  const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + (tile * w.groups + group) * group_bytes;
  uint8_t* rests = panel + (kTiles ? count : 1) * kWeightSteps * kStepBytes;
  for (int64_t b = 0; b < count; ++b) {
    for (int half = 0; half < kHalves; ++half) {
      __m512i total[4], gain[kHalfGroups];
      Unroll<4>([&](int q) ALWAYS_INLINE { total[q] = zero; });
      for (int i = 0; i < kHalfGroups; ++i, ++group, codes += group_bytes) {
        __m512i weight[2][4] = {{zero, zero, zero, zero}, {zero, zero, zero, zero}};
        gain[i] = zero;
        if (group < w.groups) {
          gain[i] = gains.Next();
          for (int e = 0; e < FormElements(kForm); ++e)
            PrefetchCodes(codes + kAheadBlocks * kBlockGroups * group_bytes + e * w.tile);
          decoder.Decode(codes, gain[i], weight);
        }
        __m512i* to = Step(panel, half * kHalfGroups + i);
        Unroll<8>([&](int v) ALWAYS_INLINE {
          const __m512i one = weight[v / 4][v % 4];
          _mm512_store_si512(to + v / 4 * kBlockGroups * 4 + v % 4, one);
          if constexpr (!kTiles) AddDots(offset, one, &total[v % 4]);
        });
      }
      __m512i rest[4];
      Interleave4(gain, rest);
      Unroll<4>([&](int q) ALWAYS_INLINE {
        rest[q] = _mm512_mullo_epi16(rest[q], kappa);
        _mm512_store_si512(Step(rests, half) + q, rest[q]);
        if constexpr (!kTiles) {
          AddDots(offset, rest[q], &total[q]);
          _mm512_store_si512(Step(rests, kRestSteps + half) + q, _mm512_sub_epi32(zero, total[q]));
        }
      });
    }
    panel += kTiles ? kWeightSteps * kStepBytes : kBlockBytes;
    rests += kTiles ? kRestSteps * kStepBytes : kBlockBytes;
  }
  if constexpr (kTiles) {
    const uint8_t* end = rests + (kWeightSteps - count * kRestSteps) * kStepBytes;
    for (; rests < end; rests += 64) _mm512_store_si512(rests, zero);
  }
}

template <bool kTiles>
void Decode(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  switch (w.form) {
    case Form::kOneByte:
      return DecodeForm<Form::kOneByte, kTiles>(w, tile, first, count, panel);
    case Form::kTwoByte:
      return DecodeForm<Form::kTwoByte, kTiles>(w, tile, first, count, panel);
    case Form::kNibbleByte:
      return DecodeForm<Form::kNibbleByte, kTiles>(w, tile, first, count, panel);
    case Form::kNibbles:
      return DecodeForm<Form::kNibbles, kTiles>(w, tile, first, count, panel);
    case Form::kGeneral:
      return;
  }
}

}  // namespace

void Avx512Decode(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  Decode<false>(w, tile, first, count, panel);
}

void Avx512DecodeTiles(const WeightView& w, int64_t tile, int64_t first, int64_t count,
                       uint8_t* panel) {
  Decode<true>(w, tile, first, count, panel);
}

bool Avx512PanelUsable(const FormTables& t) { return t.panel.usable; }

}  // namespace cosetq
