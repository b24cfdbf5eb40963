// Few rows of A and blocks of one column, AVX-512 VNNI: weights go from look-ups straight into products, without a panel.

#include "avx512_decode.h"
#include "avx512_products.h"

namespace cosetq {
namespace {

constexpr int kFewColumns = 4;  // their sums and the weights of 16 groups of rows fill the registers

// sum += dot products of four bytes each with the same four, which need no register. See AddDots.
inline ALWAYS_INLINE void AddDotsWith(__m512i weights, const uint8_t* four, __m512i* sum) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(*sum) : "v"(weights), "m"(*reinterpret_cast<const uint8_t(*)[4]>(four)));
}

template <int kCount>
class NibbleStream {
 public:
  NibbleStream(const WeightView& w, int64_t tile)
      : table_(_mm512_load_si512(w.tables->panel.weights[1])),
        gains_(w, tile, 0),
        codes_(static_cast<const uint8_t*>(w.codes) + tile * w.groups * kGroupBytes) {}

  // Adds the products of half a block.
  ALWAYS_INLINE void AddHalf(const uint8_t* a, const float* scales, float* sums) {
    __m512i sum[kCount][4];
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) {
      const __m512i begin = Broadcast(a + c * kPartBytes);
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) sum[c][q] = begin;
    }
#pragma GCC unroll 1
    for (int g = 0; g < kQuadGroups; ++g, codes_ += kGroupBytes) {
      __m512i element[4], digits[4];
#pragma GCC unroll 4
      for (int e = 0; e < 4; ++e) {
        element[e] = _mm512_loadu_si512(codes_ + e * kTile);
        PrefetchCodes(codes_ + e * kTile + kAheadGroups * kGroupBytes);
      }
      Interleave4(element, digits);
      const __m512i* gains = gains_.Next();
      const uint8_t* even = a + 4 + 4 * g;
      const uint8_t* odd = even + 4 * kQuadGroups;
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) {
        const __m512i low = Weights(digits[q], gains[q]), high = Weights(_mm512_srli_epi16(digits[q], 4), gains[q]);
#pragma GCC unroll 4
        for (int c = 0; c < kCount; ++c) AddDotsWith(low, even + c * kPartBytes, &sum[c][q]);
#pragma GCC unroll 4
        for (int c = 0; c < kCount; ++c) AddDotsWith(high, odd + c * kPartBytes, &sum[c][q]);
      }
    }
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) {
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) {
        float* to = sums + c * kTile + 16 * q;
        __m512 total = _mm512_load_ps(to);
        AddScaled(sum[c][q], scales[c], &total);
        _mm512_store_ps(to, total);
      }
    }
  }

 private:
  static constexpr int64_t kGroupBytes = FormElements(Form::kNibbles) * kTile;

  // Gain and digit together name the weight.
  ALWAYS_INLINE __m512i Weights(__m512i digits, __m512i gains) const {
    constexpr int kChoose = 0xca;  // mask ? digit : gain, bit for bit
    return _mm512_permutexvar_epi8(_mm512_ternarylogic_epi64(_mm512_set1_epi8(15), digits, gains, kChoose), table_);
  }

  __m512i table_;
  GainNibbles<0, 4> gains_;
  const uint8_t* codes_;
};

template <int kCount>
void MultiplyTile(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales, float* sums) {
  NibbleStream<kCount> stream(w, tile);
  const int64_t halves = kHalves * w.groups / kBlockGroups;
  for (int64_t half = 0; half < halves; ++half, scales += kCount) {
    stream.AddHalf(a, scales, sums);
    a += half % kHalves == 0 ? kHalfRowBytes : kCount * kPartBytes - kHalfRowBytes;
  }
}

}  // namespace

void Avx512MultiplyTile(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales, int64_t columns,
                        float* sums) {
  static_assert(kFewColumns == 4);
  switch (columns) {
    case 1:
      return MultiplyTile<1>(w, tile, a, scales, sums);
    case 2:
      return MultiplyTile<2>(w, tile, a, scales, sums);
    case 3:
      return MultiplyTile<3>(w, tile, a, scales, sums);
    default:
      return MultiplyTile<4>(w, tile, a, scales, sums);
  }
}

int64_t Avx512TileColumns(const WeightView& w) {
  return w.form == Form::kNibbles && IsWhole(w) && !w.tables->panel.has_rests ? kFewColumns : 0;
}

}  // namespace cosetq
