// Up to 16 rows of A and blocks of one column, AVX-512 VNNI: weights go from look-ups straight into products, without a panel.

#include "avx512_decode.h"
#include "avx512_products.h"

namespace cosetq {
namespace {

// Rows of A at most: the sums of 16 rows of W fill the registers then.
constexpr int kStreamColumns = 16;

// sum += dot products of four bytes each with the same four, which need no register. See AddDots.
inline ALWAYS_INLINE void AddDotsWith(__m512i weights, const uint8_t* four, __m512i* sum) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(*sum) : "v"(weights), "m"(*reinterpret_cast<const uint8_t(*)[4]>(four)));
}

// The rows of W of some quarters, in the order of lanes.
template <int kCount, int kFirst, int kQuarters>
class NibbleStream {
 public:
  NibbleStream(const WeightView& w, int64_t tile)
      : table_(_mm512_load_si512(w.tables->panel.weights[1])), gains_(w, tile, 0) {}

  // Adds the products of half a block.
  ALWAYS_INLINE void AddHalf(const uint8_t* codes, const uint8_t* a, const float* scales, float* sums) {
    __m512i sum[kCount][kQuarters];
#pragma GCC unroll 16
    for (int c = 0; c < kCount; ++c) {
      const __m512i begin = Broadcast(a + c * kPartBytes);
#pragma GCC unroll 4
      for (int q = 0; q < kQuarters; ++q) sum[c][q] = begin;
    }
#pragma GCC unroll 1
    for (int g = 0; g < kQuadGroups; ++g, codes += kGroupBytes) {
      __m512i element[4], digits[kQuarters];
#pragma GCC unroll 4
      for (int e = 0; e < 4; ++e) {
        element[e] = _mm512_loadu_si512(codes + e * kTile);
        // Each stream its share of the codes.
        if (e / kQuarters == kFirst / kQuarters) PrefetchCodes(codes + e * kTile + kAheadGroups * kGroupBytes);
      }
      InterleaveQuarters<kFirst, kQuarters>(element, digits);
      const __m512i* gains = gains_.Next();
      const uint8_t* even = a + 4 + 4 * g;
      const uint8_t* odd = even + 4 * kQuadGroups;
#pragma GCC unroll 4
      for (int q = 0; q < kQuarters; ++q) {
        const __m512i low = Weights(digits[q], gains[q]), high = Weights(_mm512_srli_epi16(digits[q], 4), gains[q]);
#pragma GCC unroll 16
        for (int c = 0; c < kCount; ++c) AddDotsWith(low, even + c * kPartBytes, &sum[c][q]);
#pragma GCC unroll 16
        for (int c = 0; c < kCount; ++c) AddDotsWith(high, odd + c * kPartBytes, &sum[c][q]);
      }
    }
#pragma GCC unroll 16
    for (int c = 0; c < kCount; ++c) {
#pragma GCC unroll 4
      for (int q = 0; q < kQuarters; ++q) {
        float* to = sums + c * kTile + 16 * (kFirst + q);
        __m512 total = _mm512_load_ps(to);
        AddScaled(sum[c][q], scales[c], &total);
        _mm512_store_ps(to, total);
      }
    }
    __asm__("" : : : "memory");  // or GCC 12 keeps some sums elsewhere and copies them about
  }

  static constexpr int64_t kGroupBytes = FormElements(Form::kNibbles) * kTile;

 private:
  // Gain and digit together name the weight.
  ALWAYS_INLINE __m512i Weights(__m512i digits, __m512i gains) const {
    constexpr int kChoose = 0xca;  // mask ? digit : gain, bit for bit
    return _mm512_permutexvar_epi8(_mm512_ternarylogic_epi64(_mm512_set1_epi8(15), digits, gains, kChoose), table_);
  }

  __m512i table_;
  GainNibbles<kFirst, kQuarters> gains_;
};

// Those of all quarters from kFirst on.
template <int kCount, int kFirst, int kQuarters>
struct NibbleStreams {
  NibbleStreams(const WeightView& w, int64_t tile) : here(w, tile), rest(w, tile) {}
  ALWAYS_INLINE void AddHalf(const uint8_t* codes, const uint8_t* a, const float* scales, float* sums) {
    here.AddHalf(codes, a, scales, sums);
    rest.AddHalf(codes, a, scales, sums);
  }

  NibbleStream<kCount, kFirst, kQuarters> here;
  NibbleStreams<kCount, kFirst + kQuarters, kQuarters> rest;
};

template <int kCount, int kQuarters>
struct NibbleStreams<kCount, 4, kQuarters> {
  NibbleStreams(const WeightView&, int64_t) {}
  void AddHalf(const uint8_t*, const uint8_t*, const float*, float*) {}
};

template <int kCount>
void MultiplyTile(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales, float* sums) {
  constexpr int kQuarters = kCount <= 4 ? 4 : kCount <= 8 ? 2 : 1;  // as many as registers allow
  NibbleStreams<kCount, 0, kQuarters> streams(w, tile);
  constexpr int64_t kCodes = kQuadGroups * NibbleStream<kCount, 0, kQuarters>::kGroupBytes;
  const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + tile * w.groups / kQuadGroups * kCodes;
  const int64_t halves = kHalves * w.groups / kBlockGroups;
  for (int64_t half = 0; half < halves; ++half, scales += kCount, codes += kCodes) {
    streams.AddHalf(codes, a, scales, sums);
    a += half % kHalves == 0 ? kHalfRowBytes : kCount * kPartBytes - kHalfRowBytes;
  }
}

template <int kCount>
void MultiplyCount(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales, int64_t columns, float* sums) {
  if (columns == kCount) return MultiplyTile<kCount>(w, tile, a, scales, sums);
  if constexpr (kCount > 1) MultiplyCount<kCount - 1>(w, tile, a, scales, columns, sums);
}

}  // namespace

void Avx512MultiplyTile(const WeightView& w, int64_t tile, const uint8_t* a, const float* scales, int64_t columns,
                        float* sums) {
  MultiplyCount<kStreamColumns>(w, tile, a, scales, columns, sums);
}

int64_t Avx512TileColumns(const WeightView& w) {
  return w.form == Form::kNibbles && IsWhole(w) && !w.tables->panel.has_rests ? kStreamColumns : 0;
}

}  // namespace cosetq
