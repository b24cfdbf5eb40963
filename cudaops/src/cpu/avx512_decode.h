// Weights of a tile as bytes, four groups at a time, AVX-512 VBMI. PanelTables (weight_view.h) says
// what the bytes are, avx512_panel.h where they stand. For files built with AVX-512 only.
//
// Digits are brought together before they are looked up, so that what is looked up stands as
// products want it. On Intel's processors the port for shuffles is the limit: 64 entries of a table
// and a mask cost one instruction there, where 128 cost two.

#ifndef COSETQ_CPU_AVX512_DECODE_H_
#define COSETQ_CPU_AVX512_DECODE_H_

#include "avx512_panel.h"

namespace cosetq {
namespace {

// Digits of a byte, and masks of those that are in the second or last, in the upper two and in the
// last quarter of a table.
struct Quartered {
  __m512i value;
  __mmask64 odd, upper, last;

  explicit ALWAYS_INLINE Quartered(__m512i digits)
      : value(digits),
        odd(_mm512_movepi8_mask(_mm512_add_epi8(digits, digits))),
        upper(_mm512_movepi8_mask(digits)),
        last(_kand_mask64(odd, upper)) {}

  // table[digit] for a table of 256 bytes, in memory or in registers.
  ALWAYS_INLINE __m512i In(const uint8_t* table) const {
    __m512i quarters[4];
    Unroll<4>([&](int i) ALWAYS_INLINE { quarters[i] = _mm512_load_si512(table + 64 * i); });
    return In(quarters);
  }
  ALWAYS_INLINE __m512i In(const __m512i* quarters) const {
    __m512i out = _mm512_permutexvar_epi8(value, quarters[0]);
    out = _mm512_mask_permutexvar_epi8(out, odd, value, quarters[1]);
    out = _mm512_mask_permutexvar_epi8(out, upper, value, quarters[2]);
    return _mm512_mask_permutexvar_epi8(out, last, value, quarters[3]);
  }
};

// Quarters [kFirst, kFirst + kQuarters) of Interleave4.
template <int kFirst, int kQuarters>
inline ALWAYS_INLINE void InterleaveQuarters(const __m512i* v, __m512i* out) {
  __m512i all[4];
  Interleave4(v, all);
  Unroll<kQuarters>([&](int q) ALWAYS_INLINE { out[q] = all[kFirst + q]; });
}

// Which gain the groups of a row have, in the upper four bits of every byte of its word, group
// after group; the lower four bits hold nothing of use.
template <int kFirst, int kQuarters>
class GainNibbles {
 public:
  GainNibbles(const WeightView& w, int64_t tile, int64_t first) {
    Unroll<kQuarters>([&](int q) ALWAYS_INLINE { index_[q] = _mm512_setzero_si512(); });
    if (w.gains == nullptr) return;
    const int log2 = __builtin_ctz(static_cast<unsigned>(w.gains_per_byte));
    mask_ = w.gains_per_byte - 1;
    const int64_t packed = (w.groups + mask_) >> log2;
    next_ = w.gains + (tile * packed + (first >> log2)) * w.tile;
    end_ = w.gains + (tile + 1) * packed * w.tile;
    stride_ = w.tile;
    rows_ = TileMask(w);
    bits_ = _mm512_set1_epi32(w.gain_bits);
    alignas(64) uint8_t places[64];
    for (int q = 0; q < kQuarters; ++q) {
      for (int i = 0; i < 64; ++i)
        places[i] = static_cast<uint8_t>(i / 16 * 16 + 4 * (kFirst + q) + i / 4 % 4);
      places_[q] = _mm512_load_si512(places);
    }
    while (at_ < (first & mask_)) Next();
  }

  // The words of the next group.
  ALWAYS_INLINE const __m512i* Next() {
    if (next_ == nullptr) return index_;
    if ((at_ & mask_) == 0) {
      Load();
    } else {
      Unroll<kQuarters>([&](int q)
                            ALWAYS_INLINE { index_[q] = _mm512_rorv_epi32(index_[q], bits_); });
    }
    ++at_;
    return index_;
  }

 private:
  ALWAYS_INLINE void Load() {
    if (next_ >= end_) return;
    const __m512i packed = _mm512_maskz_loadu_epi8(rows_, next_);
    next_ += stride_;
    Unroll<kQuarters>([&](int q) ALWAYS_INLINE {
      index_[q] = _mm512_rol_epi32(_mm512_permutexvar_epi8(places_[q], packed), 4);
    });
  }

  __m512i index_[kQuarters], places_[kQuarters], bits_;
  const uint8_t* next_ = nullptr;
  const uint8_t* end_ = nullptr;
  int64_t stride_ = 0;
  __mmask64 rows_ = 0;
  int64_t at_ = 0, mask_ = 0;
};

// Whether tiles have all their rows and no group is missing, and 64 weights are enough for blocks of one column.
inline bool IsWhole(const WeightView& w) {
  if (w.tile != kTile || w.groups % kBlockGroups != 0) return false;
  return w.form != Form::kNibbles || w.gains == nullptr || w.gain_bits <= 2;
}

// Decodes the groups of a tile in order, of the rows of quarters [kFirst, kFirst + kQuarters) in
// the order of lanes. Weights are centred, or not, see PanelTables.
// kWhole says what is mostly so: tiles have all their rows, no group is missing, and 64 weights are
// enough for blocks of one column.
template <Form kForm, bool kCentred, bool kWhole, int kFirst, int kQuarters>
class QuadDecoder {
 public:
  QuadDecoder(const WeightView& w, int64_t tile, int64_t group)
      : tables_(w.tables->panel),
        gains_(w, tile, group),
        indices_(w, tile, group),
        rows_(TileMask(w)),
        tile_(w.tile),
        left_(w.groups - group),
        codes_(static_cast<const uint8_t*>(w.codes) + (tile * w.groups + group) * GroupBytes(w)),
        wide_(w.gains != nullptr && w.gain_bits > 2) {
    Unroll<2>([&](int level) ALWAYS_INLINE {
      first_[level] = _mm512_set1_epi8(static_cast<char>(kPanelField << tables_.shift[level]));
    });
    Unroll<4>([&](int j) ALWAYS_INLINE {
      shifts_[j] = _mm512_broadcast_i32x4(
          _mm_load_si128(reinterpret_cast<const __m128i*>(tables_.shifts[j])));
    });
  }

  // Decodes four groups, of which those past the last have no weight: step(s, q, bytes) takes four
  // bytes of every row of quarter kFirst + q for each of the kQuadSteps steps, rest(q, bytes) the
  // gains, if wanted.
  template <bool kRests = true, typename Step, typename Rest>
  ALWAYS_INLINE void Next(const Step& step, const Rest& rest) {
    const __m512i zero = _mm512_setzero_si512();
    __m512i gain[4], gains[kQuarters];
    if constexpr (kRests || kForm != Form::kNibbles) {
      Unroll<4>([&](int g) ALWAYS_INLINE { gain[g] = Has(g) ? gains_.Next() : zero; });
      InterleaveQuarters<kFirst, kQuarters>(gain, gains);
    }
    if constexpr (kRests) Unroll<kQuarters>([&](int q) ALWAYS_INLINE { rest(q, gains[q]); });
    if constexpr (kForm == Form::kNibbles) {
      Unroll<4>([&](int g) ALWAYS_INLINE { NibbleGroup(g, step); });
    } else {
      Unroll<2>([&](int r) ALWAYS_INLINE { GroupPair(r, gains, step); });
    }
    codes_ += kQuadGroups * group_bytes();
    left_ -= kQuadGroups;
  }

 private:
  static int64_t GroupBytes(const WeightView& w) {
    return static_cast<int64_t>(FormElements(kForm)) * w.tile;
  }
  int tile() const { return kWhole ? kTile : tile_; }
  int64_t group_bytes() const { return static_cast<int64_t>(FormElements(kForm)) * tile(); }

  // Whether there is a group g of the four.
  bool Has(int g) const { return kWhole || g < left_; }

  // One element of group g of the four.
  ALWAYS_INLINE __m512i Codes(int g, int element) const {
    if (!Has(g)) return _mm512_setzero_si512();
    const uint8_t* at = codes_ + g * group_bytes() + element * tile();
    PrefetchCodes(at + kAheadGroups * group_bytes());
    return kWhole ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi8(rows_, at);
  }

  // Groups r and r + 2: their gains are the even or the odd bytes of `gains`.
  template <typename Step>
  ALWAYS_INLINE void GroupPair(int r, const __m512i* gains, const Step& step) const {
    __m512i apart[4], fine[kQuarters], coarse[kQuarters];
    constexpr bool kCoarse = kForm != Form::kOneByte;
    constexpr int kSecond = kForm == Form::kTwoByte ? 2 : 1;  // the first element of coarse digits
    Unroll<4>([&](int i) ALWAYS_INLINE {
      const int g = r + i / 2 * 2;
      apart[i] = kForm == Form::kNibbleByte ? Nibbles(Codes(g, 0), i % 2) : Codes(g, i % 2);
    });
    InterleaveQuarters<kFirst, kQuarters>(apart, fine);
    if constexpr (kCoarse) {
      Unroll<4>([&](int i) ALWAYS_INLINE { apart[i] = Codes(r + i / 2 * 2, kSecond + i % 2); });
      InterleaveQuarters<kFirst, kQuarters>(apart, coarse);
    }
    // Half of what is looked up in tables of 256 entries finds them in registers: loads would be the limit.
    constexpr int kWideLevel = kForm == Form::kNibbleByte ? 1 : 0;
    __m512i tables[2][4];
    if constexpr (kWhole) {
      Unroll<2>([&](int p) ALWAYS_INLINE { LoadTable(tables_.pairs[kWideLevel][p], tables[p]); });
    }
    const auto look_up = [&](const Quartered& digits, int level, int p) ALWAYS_INLINE {
      return kWhole && level == kWideLevel ? digits.In(tables[p])
                                           : digits.In(tables_.pairs[level][p]);
    };
    Unroll<kQuarters>([&](int q) ALWAYS_INLINE {
      // In the low byte of a word, and in both.
      const __m512i low_byte = _mm512_set1_epi16(0xff), beside = _mm512_slli_epi16(gains[q], 8),
                    above = _mm512_srli_epi16(gains[q], 8);
      const __m512i factor = r == 0 ? _mm512_and_si512(gains[q], low_byte) : above;
      constexpr int kChoose = 0xca;  // low_byte ? gains : other, bit for bit
      const __m512i gain = r == 0 ? _mm512_ternarylogic_epi32(low_byte, gains[q], beside, kChoose)
                                  : _mm512_ternarylogic_epi32(low_byte, above, gains[q], kChoose);
      const Quartered low(fine[q]), high(kCoarse ? coarse[q] : fine[q]);
      Unroll<2>([&](int p) ALWAYS_INLINE {
        __m512i both = kForm == Form::kNibbleByte ? Lookup16(tables_.pairs[0][p], fine[q])
                                                  : look_up(low, 0, p);
        __m512i value[2] = {_mm512_and_si512(both, first_[0])};
        if constexpr (kCoarse) {
          const __m512i more = look_up(high, 1, p);
          value[0] = _mm512_add_epi8(value[0], _mm512_and_si512(more, first_[1]));
          both = _mm512_add_epi8(both, more);
        }
        value[1] = _mm512_srli_epi16(_mm512_sub_epi8(both, value[0]), kPanelPlace);
        Unroll<2>([&](int i) ALWAYS_INLINE {
          const int j = 2 * p + i;
          // Two bytes at once: no product exceeds 255, so nothing is carried.
          __m512i weight = _mm512_mullo_epi16(value[i], factor);
          if constexpr (kCentred)
            weight = _mm512_sub_epi8(weight, _mm512_shuffle_epi8(shifts_[j], gain));
          step(2 * j + r, q, weight);
        });
      });
    });
  }

  // Blocks of one column: gain and digit together name the weight.
  template <typename Step>
  ALWAYS_INLINE void NibbleGroup(int g, const Step& step) {
    if (!Has(g)) {
      Unroll<2 * kQuarters>(
          [&](int i) ALWAYS_INLINE { step(i % 2 * 4 + g, i / 2, _mm512_setzero_si512()); });
      return;
    }
    __m512i element[4], digits[kQuarters];
    Unroll<4>([&](int e) ALWAYS_INLINE { element[e] = Codes(g, e); });
    InterleaveQuarters<kFirst, kQuarters>(element, digits);
    const __m512i* gains = indices_.Next();
    const __m512i low = _mm512_set1_epi8(15);
    const uint8_t* table = tables_.weights[kCentred];
    Unroll<2 * kQuarters>([&](int i) ALWAYS_INLINE {
      const __m512i digit = i % 2 == 0 ? digits[i / 2] : _mm512_srli_epi16(digits[i / 2], 4);
      constexpr int kChoose = 0xca;  // low ? digit : gain, bit for bit
      const __m512i index = _mm512_ternarylogic_epi64(low, digit, gains[i / 2], kChoose);
      step(i % 2 * 4 + g, i / 2,
           !kWhole && wide_ ? Quartered(index).In(table)
                            : _mm512_permutexvar_epi8(index, _mm512_load_si512(table)));
    });
  }

  const PanelTables& tables_;
  GainStream gains_;
  GainNibbles<kFirst, kQuarters> indices_;
  __m512i first_[2];  // level by level: where the first of a pair of coordinates stands
  __m512i shifts_[4];
  __mmask64 rows_;
  int tile_;
  int64_t left_;
  const uint8_t* codes_;
  bool wide_;  // more gains than a table of 64 weights holds
};

}  // namespace
}  // namespace cosetq

#endif  // COSETQ_CPU_AVX512_DECODE_H_
