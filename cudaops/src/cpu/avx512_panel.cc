// Weights as integers: a tile is decoded to bytes once and multiplied with integer activations,
// AVX-512 VNNI.

#include "avx512_panel.h"
#include "panel_columns.h"

namespace cosetq {
namespace {

// Activations of one block and row in the order of the steps, as bytes 128 too large. With two
// parts they are the high bytes of 16-bit numbers, followed by the low bytes as they are.
constexpr int64_t kPartBytes = 4 * kBlockSteps;

constexpr int kPanelBlocks = 3;
static_assert(kPanelBlocks * kBlockBytes <= kPanelBytes);

// One block of 64 rows times kColumnCount columns with all sums in registers: its two halves apart
// if every half has a scale of its own (one part), or together. Not inlined, for in a loop the
// compiler would keep the float sums in registers as well, of which there are not enough.
template <int kColumnCount, int kParts>
__attribute__((noinline)) void MultiplyBlock(const uint8_t* panel, const uint8_t* a,
                                             const float* scales, float* sums) {
  constexpr int kRuns = kParts == 1 ? kHalves : 1;
  for (int run = 0; run < kRuns; ++run) {
    __m512i sum[kColumnCount * 4];
    const auto multiply = [&](const uint8_t* from, int step) ALWAYS_INLINE {
      __m512i weight[4];
      Unroll<4>([&](int q) ALWAYS_INLINE {
        weight[q] = _mm512_load_si512(panel + step * kStepBytes + 64 * q);
      });
      Unroll<kColumnCount>([&](int c) ALWAYS_INLINE {
        int32_t four;
        __builtin_memcpy(&four, from + c * kParts * kPartBytes + 4 * step, sizeof four);
        const __m512i activations = _mm512_set1_epi32(four);
        Unroll<4>([&](int q) ALWAYS_INLINE { AddDots(activations, weight[q], &sum[4 * c + q]); });
      });
    };
    Unroll<4>([&](int q) ALWAYS_INLINE {
      const uint8_t* totals = panel + (kBlockSteps + run) * kStepBytes + 64 * q;
      __m512i total = _mm512_load_si512(totals);
      if constexpr (kRuns == 1)
        total = _mm512_add_epi32(total, _mm512_load_si512(totals + kStepBytes));
      Unroll<kColumnCount>([&](int c) ALWAYS_INLINE { sum[4 * c + q] = total; });
    });
    Unroll<kParts>([&](int part) ALWAYS_INLINE {
      const uint8_t* from = a + part * kPartBytes;
      if constexpr (kRuns == 1) {
        for (int step = 0; step < kBlockSteps; ++step) multiply(from, step);
      } else {
        for (int step = 0; step < kQuadSteps; ++step) multiply(from, run * kQuadSteps + step);
        multiply(from, kWeightSteps + run);
      }
      if (part + 1 < kParts) {
        Unroll<kColumnCount * 4>([&](int i)
                                     ALWAYS_INLINE { sum[i] = _mm512_slli_epi32(sum[i], 8); });
      }
    });
    Unroll<kColumnCount * 4>([&](int i) ALWAYS_INLINE {
      float* to = sums + 16 * i;
      const __m512 scale = _mm512_set1_ps(scales[run * kColumnCount + i / 4]);
      _mm512_store_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i]), scale, _mm512_load_ps(to)));
    });
  }
}

template <int kParts>
struct Products {
  static constexpr int64_t kBytes = kBlockBytes, kRowBytes = kParts * kPartBytes;
  static constexpr int64_t kScales = kParts == 1 ? kHalves : 1;

  template <int kCount>
  static void Multiply(const uint8_t* panel, const uint8_t* a, const float* scales, float* sums) {
    MultiplyBlock<kCount, kParts>(panel, a, scales, sums);
  }
};

inline void StorePart(const WeightView& w, const __m256i* v, uint8_t* out) {
  StoreSteps(w, v, out);
  StoreRest(v[kGroup], out + 8 * kBlockGroups);
}

template <int kParts>
void Quantize(const WeightView& w, const float* a, int64_t column, int64_t columns, uint8_t* out,
              float* scales) {
  const PanelTables& t = w.tables->panel;
  // Whole numbers, so that the largest activation has no error.
  const float limit = kParts == 2 ? 32639 : 127;
  const __m256i offset = _mm256_set1_epi32(128);
  out += column * kParts * kPartBytes;
  scales += column;
  for (int64_t first = 0; first < w.groups; first += kBlockGroups) {
    ActivationBlock block;
    const __m256i largest = block.Load(w, a, first, t.rest);
    const __m128i half[kHalves] = {_mm256_castsi256_si128(largest),
                                   _mm256_extracti128_si256(largest, 1)};
    __m256 inverse;
    if constexpr (kParts == 1) {
      __m128 by_half[kHalves];
      for (int h = 0; h < kHalves; ++h, scales += columns) {
        const ActivationScale scale(LargestLane(half[h]), limit, t.unit);
        *scales = scale.unit;
        by_half[h] = _mm_set1_ps(scale.inverse);
      }
      inverse = _mm256_set_m128(by_half[1], by_half[0]);
    } else {
      const ActivationScale scale(LargestLane(_mm_max_epu32(half[0], half[1])), limit, t.unit);
      *scales = scale.unit;
      scales += columns;
      inverse = _mm256_set1_ps(scale.inverse);
    }
    __m256i low[kGroup + 1], high[kGroup + 1];
    block.Round(inverse, low);
    low[kGroup] = _mm256_cvtps_epi32(_mm256_mul_ps(block.rest, inverse));
    for (int j = 0; j <= kGroup; ++j) {
      if (kParts == 1) low[j] = _mm256_add_epi32(low[j], offset);
      high[j] = _mm256_add_epi32(_mm256_srai_epi32(low[j], 8), offset);
    }
    if (kParts == 2) StorePart(w, high, out);
    StorePart(w, low, out + (kParts - 1) * kPartBytes);
    out += columns * kParts * kPartBytes;
  }
}

}  // namespace

const PanelKernels kAvx512Panel8 = {
    Avx512PanelUsable,
    Avx512Decode,
    Quantize<1>,
    MultiplyColumns<Products<1>>,
    nullptr,
    nullptr,
    nullptr,
    Avx512LaneRows,
    kPartBytes,
    kHalves,
    kColumns,
    1,
    kPanelBlocks,
};
const PanelKernels kAvx512Panel16 = {
    Avx512PanelUsable,
    Avx512Decode,
    Quantize<2>,
    MultiplyColumns<Products<2>>,
    nullptr,
    nullptr,
    nullptr,
    Avx512LaneRows,
    2 * kPartBytes,
    1,
    kColumns,
    1,
    kPanelBlocks,
};

}  // namespace cosetq
