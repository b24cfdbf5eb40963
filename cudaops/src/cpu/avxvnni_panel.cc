// Weights as integers, AVX2 with VNNI: as avx512_panel.cc, for 16 rows at a time. PanelTables
// (weight_view.h) says what the bytes are.

#include "avx2_panel.h"
#include "panel_columns.h"

namespace cosetq {
namespace {

// A step is four columns, four bytes of every row of the tile side by side: first the lower four
// columns of each group, then the upper four, then the rests of groups 0 to 3 and 4 to 7. After them
// stands, in 32 bits, -128 times the sum of each row's weights, of groups 0 to 3 and of 4 to 7.
constexpr int kWeightSteps = 2 * kBlockGroups;
constexpr int kBlockSteps = kWeightSteps + 2;
constexpr int kHalfGroups = kBlockGroups / kHalves;
constexpr int64_t kStepBytes = 4 * kTile;
constexpr int64_t kBlockBytes = (kBlockSteps + kHalves) * kStepBytes;

// Activations of one block and row in the order of the steps, as bytes 128 too large. With two parts
// they are the high bytes of 16-bit numbers, followed by the low bytes as they are.
constexpr int64_t kPartBytes = 4 * kBlockSteps;

constexpr int kPanelBlocks = 3;
static_assert(kPanelBlocks * kBlockBytes <= kPanelBytes);

bool Usable(const FormTables& t) { return t.panel.usable; }

inline ALWAYS_INLINE __m256i AddDots(__m256i sum, __m256i activations, __m256i weights) {
  return _mm256_dpbusd_avx_epi32(sum, activations, weights);
}

// The gains of eight rows as words of 32 bits.
inline ALWAYS_INLINE __m256i Eight(const uint8_t* gain) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(gain)));
}

void Decode(const WeightView& w, int64_t tile, int64_t first, int64_t count, uint8_t* panel) {
  const PanelTables& t = w.tables->panel;
  int32_t four;
  memcpy(&four, t.bias, sizeof four);
  const __m256i bias = _mm256_set1_epi32(four), kappa = _mm256_set1_epi16(t.kappa);
  const __m256i offset = _mm256_set1_epi8(-128), zero = _mm256_setzero_si256();
  const __m128i fold = _mm_cvtsi32_si128(t.shift[0]);
  GainStream gains(w, tile, first * kBlockGroups);
  int64_t group = first * kBlockGroups;
  for (int64_t b = 0; b < count; ++b, panel += kBlockBytes) {
    for (int half = 0; half < kHalves; ++half) {
      alignas(64) uint8_t gain[kHalfGroups][kTile];
      __m256i total[kTile / 8];
      for (__m256i& sum : total) sum = zero;
      for (int g = 0; g < kHalfGroups; ++g, ++group) {
        uint8_t* to = panel + (half * kHalfGroups + g) * kStepBytes;
        if (group >= w.groups) {
          memset(gain[g], 0, kTile);
          memset(to, 0, kStepBytes);
          memset(to + kBlockGroups * kStepBytes, 0, kStepBytes);
          continue;
        }
        const Rows one = gains.Next();
        for (int h = 0; h < 2; ++h) Store(gain[g] + 32 * h, one.half[h]);
        alignas(64) uint32_t words[2][kTile];
        DecodeWords(w, GroupCodes(w, tile, group), words[0]);
        for (int i = 0; i < kTile / 8; ++i) {
          const __m256i single = Eight(gain[g] + 8 * i);
          const __m256i factor = _mm256_or_si256(single, _mm256_slli_epi32(single, 16));
          const __m256i shift = _mm256_mullo_epi16(factor, bias);
          for (int upper = 0; upper < 2; ++upper) {
            // Two bytes at once: no product exceeds 255, so nothing is carried.
            const __m256i code = _mm256_sll_epi16(Load(words[upper] + 8 * i), fold);
            const __m256i weight = _mm256_sub_epi8(_mm256_mullo_epi16(code, factor), shift);
            Store(to + upper * kBlockGroups * kStepBytes + 32 * i, weight);
            total[i] = AddDots(total[i], offset, weight);
          }
        }
      }
      for (int i = 0; i < kTile / 8; ++i) {
        __m256i rest = zero;
        for (int g = kHalfGroups - 1; g >= 0; --g)
          rest = _mm256_or_si256(_mm256_slli_epi32(rest, 8), Eight(gain[g] + 8 * i));
        rest = _mm256_mullo_epi16(rest, kappa);
        Store(panel + (kWeightSteps + half) * kStepBytes + 32 * i, rest);
        Store(panel + (kBlockSteps + half) * kStepBytes + 32 * i,
              _mm256_sub_epi32(zero, AddDots(total[i], offset, rest)));
      }
    }
  }
}

inline ALWAYS_INLINE void StorePart(const __m256i* q, uint8_t* out) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), JoinBytes(q));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32), JoinBytes(q + 4));
  const __m256i bytes = _mm256_and_si256(q[kGroup], _mm256_set1_epi32(255));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 64), _mm_packus_epi16(words, words));
}

template <int kParts>
void Quantize(const WeightView& w, const float* a, int64_t column, int64_t columns, uint8_t* out,
              float* scales) {
  constexpr int kScales = kParts == 1 ? kHalves : 1;
  const PanelTables& t = w.tables->panel;
  // Whole numbers, so that the largest activation has no error.
  const float limit = kParts == 2 ? 32639 : 127;
  const __m256i offset = _mm256_set1_epi32(128);
  out += column * kParts * kPartBytes;
  scales += column;
  for (int64_t first = 0; first < w.groups; first += kBlockGroups) {
    Block block;
    block.Scale<kScales>(block.Load(w, a, first), limit, t.unit, columns, scales);
    __m256i low[kGroup + 1], high[kGroup + 1];
    __m256 rest = _mm256_setzero_ps();
    for (int j = 0; j < kGroup; ++j) {
      low[j] = _mm256_cvtps_epi32(block.v[j]);
      rest = _mm256_fmadd_ps(block.v[j], _mm256_set1_ps(t.rest[j]), rest);
    }
    low[kGroup] = _mm256_cvtps_epi32(rest);
    for (int j = 0; j <= kGroup; ++j) {
      if (kParts == 1) low[j] = _mm256_add_epi32(low[j], offset);
      high[j] = _mm256_add_epi32(_mm256_srai_epi32(low[j], 8), offset);
    }
    if (kParts == 2) StorePart(high, out);
    StorePart(low, out + (kParts - 1) * kPartBytes);
    out += columns * kParts * kPartBytes;
    scales += kScales * columns;
  }
}

// 16 rows times kCount columns of a block, or of each of its halves if those have scales of their own.
template <int kCount, int kParts>
inline ALWAYS_INLINE void MultiplyRows(const uint8_t* panel, const uint8_t* a, const float* scales,
                                       float* sums) {
  constexpr int kRuns = kParts == 1 ? kHalves : 1;
  for (int run = 0; run < kRuns; ++run) {
    __m256i sum[kCount][2];
    for (int i = 0; i < 2; ++i) {
      const uint8_t* totals = panel + (kBlockSteps + run) * kStepBytes + 32 * i;
      __m256i total = Load(totals);
      if (kRuns == 1) total = _mm256_add_epi32(total, Load(totals + kStepBytes));
      for (int c = 0; c < kCount; ++c) sum[c][i] = total;
    }
    const auto multiply = [&](const uint8_t* from, int step) ALWAYS_INLINE {
      const __m256i weight[2] = {Load(panel + step * kStepBytes), Load(panel + step * kStepBytes + 32)};
      for (int c = 0; c < kCount; ++c) {
        const __m256i activations = Word(from + c * kParts * kPartBytes + 4 * step);
        for (int i = 0; i < 2; ++i) sum[c][i] = AddDots(sum[c][i], activations, weight[i]);
      }
    };
    for (int part = 0; part < kParts; ++part) {
      const uint8_t* from = a + part * kPartBytes;
      if (kRuns == 1) {
#pragma GCC unroll 2
        for (int step = 0; step < kBlockSteps; ++step) multiply(from, step);
      } else {
#pragma GCC unroll 4
        for (int g = 0; g < kHalfGroups; ++g) {
          multiply(from, run * kHalfGroups + g);
          multiply(from, kBlockGroups + run * kHalfGroups + g);
        }
        multiply(from, kWeightSteps + run);
      }
      if (part + 1 < kParts) {
        for (int c = 0; c < kCount; ++c) {
          for (int i = 0; i < 2; ++i) sum[c][i] = _mm256_slli_epi32(sum[c][i], 8);
        }
      }
    }
    for (int c = 0; c < kCount; ++c) {
      for (int i = 0; i < 2; ++i) {
        float* to = sums + c * kTile + 8 * i;
        const __m256 scale = _mm256_set1_ps(scales[run * kCount + c]);
        _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[c][i]), scale, _mm256_load_ps(to)));
      }
    }
  }
}

template <int kParts>
struct Products {
  static constexpr int64_t kBytes = kBlockBytes, kRowBytes = kParts * kPartBytes;
  static constexpr int64_t kScales = kParts == 1 ? kHalves : 1;

  template <int kCount>
  static void Multiply(const uint8_t* panel, const uint8_t* a, const float* scales, float* sums) {
    for (int r = 0; r < kTile; r += 16)
      MultiplyRows<kCount, kParts>(panel + 4 * r, a, scales, sums + r);
  }
};

}  // namespace

const PanelKernels kAvxVnniPanel8 = {
    Usable, Decode, Quantize<1>, MultiplyColumns<BlockByBlock<Products<1>>>, nullptr, nullptr, nullptr, Avx2StoreInOrder, kPartBytes, kHalves, kColumns, 1, kPanelBlocks, kPanelBlocks,
};
const PanelKernels kAvxVnniPanel16 = {
    Usable, Decode, Quantize<2>, MultiplyColumns<BlockByBlock<Products<2>>>, nullptr, nullptr, nullptr, Avx2StoreInOrder, 2 * kPartBytes, 1, kColumns, 1, kPanelBlocks, kPanelBlocks,
};

}  // namespace cosetq
