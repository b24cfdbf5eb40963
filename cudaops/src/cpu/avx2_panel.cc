// Weights as integers, AVX2: whole codewords are added in words of four bytes, then multiplied with
// integer activations of 8 or 16 bits. WordTables (weight_view.h) says what the bytes are.

#include <math.h>

#include "avx2_panel.h"
#include "store_rows.h"
#include "panel_columns.h"

namespace cosetq {
namespace {

bool Usable(const FormTables& t) { return t.words.usable; }

// Activations of 8 bits. A group takes three steps of one word per row: its lower four columns, its
// upper four, and its gain twice in 16 bits.

constexpr int64_t kStep = 4 * kTile;
constexpr int64_t kGroupBytes8 = 3 * kStep;
constexpr int64_t kBlockBytes8 = kBlockGroups * kGroupBytes8;
constexpr int64_t kBlocks8 = 3;
// Of one row of A: four columns of each group, the other four, and what to take from the sums over
// columns 0, 1, 4, 5 and 2, 3, 6, 7.
constexpr int64_t kRowBytes8 = 3 * 4 * kBlockGroups;

void Decode8(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  GainStream gains(w, tile, first * kBlockGroups);
  const int64_t last = (first + count) * kBlockGroups;
  for (int64_t g = first * kBlockGroups; g < last; ++g, panel += kGroupBytes8) {
    if (g >= w.groups) {
      memset(panel, 0, kGroupBytes8);
      continue;
    }
    alignas(64) uint8_t gain[kTile];
    const Rows one = gains.Next();
    for (int h = 0; h < 2; ++h) Store(gain + 32 * h, one.half[h]);
    DecodeWords(w, GroupCodes(w, tile, g), reinterpret_cast<uint32_t*>(panel));
    for (int i = 0; i < 8; ++i) {
      const __m256i v =
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(gain + 8 * i)));
      Store(panel + 2 * kStep + 32 * i, _mm256_or_si256(v, _mm256_slli_epi32(v, 16)));
    }
  }
}

void Quantize8(const WeightView& w, const float* a, int64_t column, int64_t columns, uint8_t* out,
               float* scales) {
  out += column * kRowBytes8;
  scales += column;
  const WordTables& t = w.tables->words;
  for (int64_t first = 0; first < w.groups; first += kBlockGroups) {
    Block block;
    block.Scale<kHalves>(block.Load(w, a, first), 127, t.unit, columns, scales);
    __m256i q[kGroup];
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int j = 0; j < kGroup; ++j) {
      q[j] = _mm256_cvtps_epi32(block.v[j]);
      sum[j / 2 % 2] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(q[j]), _mm256_set1_ps(-t.shift[j % 4]),
                                       sum[j / 2 % 2]);
    }
    const __m256i part = _mm256_cvtps_epi32(sum[0]);
    const __m256i all = _mm256_cvtps_epi32(_mm256_add_ps(sum[0], sum[1]));
    __m256i* to = reinterpret_cast<__m256i*>(out);
    _mm256_storeu_si256(to, JoinBytes(q));
    _mm256_storeu_si256(to + 1, JoinBytes(q + 4));
    _mm256_storeu_si256(to + 2, JoinHalves(part, _mm256_sub_epi32(all, part)));
    out += columns * kRowBytes8;
    scales += kHalves * columns;
  }
}

// sum += products. As assembly because GCC 12 keeps old and new sums side by side in a loop, for
// which there are not registers enough.
inline ALWAYS_INLINE void Add(__m256i products, __m256i* sum) {
  __asm__("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(products));
}

// 16 rows times kCount columns of half a block.
template <int kCount>
inline ALWAYS_INLINE void Multiply8Rows(const uint8_t* panel, const uint8_t* a, const float* scales,
                                        float* sums) {
  __m256i sum[kCount][2];
  for (int c = 0; c < kCount; ++c) sum[c][0] = sum[c][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (int g = 0; g < kBlockGroups / kHalves; ++g, panel += kGroupBytes8) {
    __m256i low[2], high[2], gain[2];
    for (int i = 0; i < 2; ++i) {
      low[i] = Load(panel + 32 * i);
      high[i] = Load(panel + kStep + 32 * i);
      gain[i] = Load(panel + 2 * kStep + 32 * i);
    }
    for (int c = 0; c < kCount; ++c) {
      const uint8_t* from = a + c * kRowBytes8 + 4 * g;
      const __m256i a_low = Word(from), a_high = Word(from + 32), off = Word(from + 64);
      for (int i = 0; i < 2; ++i) {
        const __m256i products =
            _mm256_add_epi16(_mm256_add_epi16(_mm256_maddubs_epi16(low[i], a_low), off),
                             _mm256_maddubs_epi16(high[i], a_high));
        Add(_mm256_madd_epi16(products, gain[i]), &sum[c][i]);
      }
    }
  }
  for (int c = 0; c < kCount; ++c) {
    for (int i = 0; i < 2; ++i) {
      float* to = sums + c * kTile + 8 * i;
      _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[c][i]), _mm256_set1_ps(scales[c]),
                                          _mm256_load_ps(to)));
    }
  }
}

template <int kCount>
void Multiply8Columns(const uint8_t* panel, const uint8_t* a, const float* scales, float* sums) {
  for (int r = 0; r < kTile; r += 16) Multiply8Rows<kCount>(panel + 4 * r, a, scales, sums + r);
}

void Multiply8(const WeightView&, const uint8_t* panel, const uint8_t* a, const float* scales,
               int64_t first, int64_t count, int64_t columns, const Ahead&, float* sums) {
  static_assert(kColumns == 6);
  a += first * columns * kRowBytes8;
  scales += first * columns * kHalves;
  constexpr int64_t kHalfBytes = kBlockBytes8 / kHalves;
  for (int64_t h = 0; h < kHalves * count; ++h, panel += kHalfBytes, scales += columns) {
    const uint8_t* half = a + h % kHalves * 4 * (kBlockGroups / kHalves);
    int64_t c = 0;
    for (; columns - c > 4 || columns - c == 3; c += 3)
      Multiply8Columns<3>(panel, half + c * kRowBytes8, scales + c, sums + c * kTile);
    const uint8_t* rest = half + c * kRowBytes8;
    if (columns - c == 4) Multiply8Columns<4>(panel, rest, scales + c, sums + c * kTile);
    if (columns - c == 2) Multiply8Columns<2>(panel, rest, scales + c, sums + c * kTile);
    if (columns - c == 1) Multiply8Columns<1>(panel, rest, scales + c, sums + c * kTile);
    if (h % kHalves == kHalves - 1) a += columns * kRowBytes8;
  }
}

// So few rows of A are multiplied with blocks of one column as they are looked up.
constexpr int kNibbleColumns = 2;

int64_t TileColumns8(const WeightView& w) { return w.form == Form::kNibbles ? kNibbleColumns : 0; }

// The gains of 32 rows twice in 16 bits, rows in the order of Interleave4.
inline ALWAYS_INLINE void TwiceInWords(__m256i gains, __m256i* out) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i low = _mm256_unpacklo_epi8(gains, zero), high = _mm256_unpackhi_epi8(gains, zero);
  out[0] = _mm256_unpacklo_epi16(low, low);
  out[1] = _mm256_unpackhi_epi16(low, low);
  out[2] = _mm256_unpacklo_epi16(high, high);
  out[3] = _mm256_unpackhi_epi16(high, high);
}

template <int kCount>
void MultiplyNibbles(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales,
                     float* sums) {
  constexpr int kHalfGroups = kBlockGroups / kHalves;
  const NibbleTable table(w.tables->words);
  GainStream gains(w, tile, 0);
  const uint8_t* codes = GroupCodes(w, tile, 0);
  float lanes[kCount][2][4][8] = {};  // [column][half of the rows][q of Interleave4]
  for (int64_t first = 0; first < w.groups; first += kHalfGroups, scales += kCount) {
    const int count =
        static_cast<int>(w.groups - first < kHalfGroups ? w.groups - first : kHalfGroups);
    Rows gain[kHalfGroups];
    for (int g = 0; g < count; ++g) gain[g] = gains.Next();
    for (int h = 0; h < 2; ++h) {
      __m256i sum[kCount][4];
      for (auto& column : sum) {
        for (__m256i& s : column) s = _mm256_setzero_si256();
      }
      for (int g = 0; g < count; ++g) {
        __m256i apart[4], four[4], factor[4];
        for (int e = 0; e < 4; ++e)
          apart[e] = LoadRows(codes + (4 * g + e) * w.tile, w.tile).half[h];
        Interleave4(apart, four);
        TwiceInWords(gain[g].half[h], factor);
        for (int q = 0; q < 4; ++q) {
          const __m256i even = table.Even(four[q]), odd = table.Odd(four[q]);
          for (int c = 0; c < kCount; ++c) {
            const uint8_t* from = a + c * kRowBytes8 + 4 * g;
            const __m256i products = _mm256_add_epi16(
                _mm256_add_epi16(_mm256_maddubs_epi16(even, Word(from)), Word(from + 64)),
                _mm256_maddubs_epi16(odd, Word(from + 32)));
            sum[c][q] = _mm256_add_epi32(sum[c][q], _mm256_madd_epi16(products, factor[q]));
          }
        }
      }
      for (int c = 0; c < kCount; ++c) {
        const __m256 scale = _mm256_set1_ps(scales[c]);
        for (int q = 0; q < 4; ++q) {
          float* to = lanes[c][h][q];
          _mm256_storeu_ps(
              to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[c][q]), scale, _mm256_loadu_ps(to)));
        }
      }
    }
    codes += count * 4 * w.tile;
    // The second half of a block follows the first; then comes the next block.
    a += first / kHalfGroups % kHalves == 0 ? 4 * kHalfGroups
                                            : kCount * kRowBytes8 - 4 * kHalfGroups;
  }
  for (int i = 0; i < kCount * kTile; ++i) {
    const int row = i % kTile;
    sums[i] = lanes[i / kTile][row / 32][row / 4 % 4][row / 16 % 2 * 4 + row % 4];
  }
}

void MultiplyTile8(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales,
                   int64_t columns, float* sums) {
  static_assert(kNibbleColumns == 2);
  if (columns == 1) return MultiplyNibbles<1>(w, tile, a, scales, sums);
  MultiplyNibbles<2>(w, tile, a, scales, sums);
}

// Activations of 16 bits. Weights with their gains are 16 bits as well; a step is four columns of
// every row: the lower and upper four of each group, then the rests of groups 0 to 3 and 4 to 7.

constexpr int kSteps16 = 2 * kBlockGroups + 2;
constexpr int64_t kStep16 = 8 * kTile;
constexpr int64_t kBlockBytes16 = kSteps16 * kStep16;
constexpr int64_t kBlocks16 = 2;
constexpr int64_t kRowBytes16 = 8 * kSteps16;
static_assert(kBlocks8 * kBlockBytes8 <= kPanelBytes && kBlocks16 * kBlockBytes16 <= kPanelBytes);

// Four bytes of every row as words of 16 bits.
inline ALWAYS_INLINE __m256i Widen(const uint32_t* four_rows) {
  return _mm256_cvtepu8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(four_rows)));
}

void Decode16(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  const WordTables& t = w.tables->words;
  GainStream gains(w, tile, first * kBlockGroups);
  int64_t four;
  memcpy(&four, t.c, sizeof four);
  const __m256i c = _mm256_set1_epi64x(four);
  const __m256i kappa = _mm256_set1_epi16(static_cast<int16_t>(t.kappa));
  const __m128i fold = _mm_cvtsi32_si128(t.fold);
  const __m256i spread = _mm256_setr_epi8(0, -1, 0, -1, 0, -1, 0, -1, 1, -1, 1, -1, 1, -1, 1, -1, 2,
                                          -1, 2, -1, 2, -1, 2, -1, 3, -1, 3, -1, 3, -1, 3, -1);
  for (int64_t b = first; b < first + count; ++b, panel += kBlockBytes16) {
    alignas(64) uint8_t gain[kBlockGroups][kTile];
    for (int g = 0; g < kBlockGroups; ++g) {
      uint8_t* to = panel + 2 * g * kStep16;
      if (b * kBlockGroups + g >= w.groups) {
        memset(to, 0, 2 * kStep16);
        memset(gain[g], 0, kTile);
        continue;
      }
      const Rows one = gains.Next();
      for (int h = 0; h < 2; ++h) Store(gain[g] + 32 * h, one.half[h]);
      alignas(64) uint32_t words[2 * kTile];
      DecodeWords(w, GroupCodes(w, tile, b * kBlockGroups + g), words);
      for (int r = 0; r < kTile; r += 4) {
        const __m256i factor = _mm256_shuffle_epi8(Word(gain[g] + r), spread);
        for (int half = 0; half < 2; ++half) {
          const __m256i v =
              _mm256_sub_epi16(_mm256_sll_epi16(Widen(words + half * kTile + r), fold), c);
          Store(to + half * kStep16 + 8 * r, _mm256_mullo_epi16(v, factor));
        }
      }
    }
    for (int half = 0; half < 2; ++half) {
      const uint8_t(*of)[kTile] = gain + 4 * half;
      alignas(16) uint32_t words[kTile];
      for (int r = 0; r < kTile; ++r)
        words[r] =
            of[0][r] | of[1][r] << 8 | of[2][r] << 16 | static_cast<uint32_t>(of[3][r]) << 24;
      for (int r = 0; r < kTile; r += 4) {
        Store(panel + (2 * kBlockGroups + half) * kStep16 + 8 * r,
              _mm256_mullo_epi16(Widen(words + r), kappa));
      }
    }
  }
}

void Quantize16(const WeightView& w, const float* a, int64_t column, int64_t columns, uint8_t* out,
                float* scales) {
  out += column * kRowBytes16;
  scales += column;
  const WordTables& t = w.tables->words;
  const float unit = ldexpf(t.unit, -t.fold);
  for (int64_t first = 0; first < w.groups; first += kBlockGroups) {
    // A whole number, so that the largest activation has no error.
    Block block;
    block.Scale<1>(block.Load(w, a, first), 32639, unit, columns, scales);
    alignas(32) int16_t to[kRowBytes16 / 2];
    __m256 rest = _mm256_setzero_ps();
    alignas(32) int32_t q[kGroup + 1][8];
    for (int j = 0; j < kGroup; ++j) {
      Store(q[j], _mm256_cvtps_epi32(block.v[j]));
      rest = _mm256_fmadd_ps(block.v[j], _mm256_set1_ps(t.rest[j]), rest);
    }
    Store(q[kGroup], _mm256_cvtps_epi32(rest));
    for (int g = 0; g < kBlockGroups; ++g) {
      for (int j = 0; j < kGroup; ++j) to[8 * g + j] = static_cast<int16_t>(q[j][g]);
      to[8 * kBlockGroups + g] = static_cast<int16_t>(q[kGroup][g]);
    }
    memcpy(out, to, kRowBytes16);
    out += columns * kRowBytes16;
    scales += columns;
  }
}

// 8 rows times kCount columns of one block. Sums of even and odd pairs of columns stand side by
// side and are added in the end: rows 0, 1, 4, 5, 2, 3, 6, 7.
template <int kCount>
void Multiply16Columns(const uint8_t* panel, const uint8_t* a, const float* scales, float* sums) {
  for (int r = 0; r < kTile; r += 8) {
    __m256i sum[kCount][2];
    for (int c = 0; c < kCount; ++c) sum[c][0] = sum[c][1] = _mm256_setzero_si256();
    const uint8_t* from = panel + 8 * r;
#pragma GCC unroll 2
    for (int step = 0; step < kSteps16; ++step, from += kStep16) {
      const __m256i weight[2] = {Load(from), Load(from + 32)};
      for (int c = 0; c < kCount; ++c) {
        int64_t four;
        memcpy(&four, a + c * kRowBytes16 + 8 * step, sizeof four);
        const __m256i activations = _mm256_set1_epi64x(four);
        for (int i = 0; i < 2; ++i) Add(_mm256_madd_epi16(weight[i], activations), &sum[c][i]);
      }
    }
    for (int c = 0; c < kCount; ++c) {
      float* to = sums + c * kTile + r;
      const __m256 total = _mm256_cvtepi32_ps(_mm256_hadd_epi32(sum[c][0], sum[c][1]));
      _mm256_store_ps(to, _mm256_fmadd_ps(total, _mm256_set1_ps(scales[c]), _mm256_load_ps(to)));
    }
  }
}

struct Products16 {
  static constexpr int64_t kBytes = kBlockBytes16, kRowBytes = kRowBytes16, kScales = 1;

  template <int kCount>
  static void Multiply(const uint8_t* panel, const uint8_t* a, const float* scales, float* sums) {
    Multiply16Columns<kCount>(panel, a, scales, sums);
  }
};

void Store16(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride) {
  StoreRows(lanes, columns, rows, y, stride, [](const float* from, float* sums) {
    constexpr int kRow[8] = {0, 1, 4, 5, 2, 3, 6, 7};
    for (int r = 0; r < kTile; ++r) sums[r / 8 * 8 + kRow[r % 8]] = from[r];
  });
}

}  // namespace

void Avx2StoreInOrder(const float* lanes, int64_t columns, const RowScales& rows, float* y, int64_t stride) {
  StoreRows(lanes, columns, rows, y, stride,
            [](const float* from, float* sums) { memcpy(sums, from, kTile * sizeof *sums); });
}

const PanelKernels kAvx2Panel8 = {
    Usable,     Decode8, Quantize8, Multiply8, MultiplyTile8, TileColumns8, nullptr, Avx2StoreInOrder,
    kRowBytes8, kHalves, kColumns,  1,         kBlocks8,  kBlocks8,
};
const PanelKernels kAvx2Panel16 = {
    Usable, Decode16,    Quantize16, MultiplyColumns<BlockByBlock<Products16>>, nullptr, nullptr,   nullptr,
    Store16, kRowBytes16, 1,          kColumns,                    1,       kBlocks16, kBlocks16,
};

}  // namespace cosetq
