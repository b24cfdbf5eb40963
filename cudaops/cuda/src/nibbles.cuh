// Weights of single columns, four bits each, on their way to the tensor cores: no table, and no activations made ready.
//
// A panel is 16 rows by 256 columns, coordinate j of 32 groups after the other: what lies next to each other in the matrix of
// activations does so here, so that they are multiplied as they are. Vector v of a lane (views.h) has two words of coordinate 2v, and two
// of 2v + 1. Word s is A of a product of m16n8k16 with columns 16s up: with lane 4g + t, and from bit 0 on every fourth,
//
//   row g, column 2t          row g + 8, column 2t          row g, column 2t + 8      row g + 8, column 2t + 8
//   and, 16 bits above each, the same of the columns 2t + 1 and 2t + 9
//
// that is, of A's registers 0 to 3, both halves four bits each. The word of gains has those of row g + 8r and column
// 16s + (2t, 2t + 1, 2t + 8, 2t + 9)[e] at bit 8e + 2 (2s + r).
//
// The panels of a tile lie next to each other, chunk after chunk (TilePanels).

#ifndef COSETQ_CUDA_NIBBLES_CUH_
#define COSETQ_CUDA_NIBBLES_CUH_

#include <cuda_fp16.h>

#include "views.h"

namespace cosetq::cuda {

constexpr int kNibblePanel = PanelBytes(Form::kNibbles);

// Weights are float16 numbers gain * (n - centre) times this: n as it lies in a word is a subnormal number, of whose product with the
// gain, and the sum with what the gain makes of the centre, nothing is lost (weight.cu).
constexpr float kNibbleUnit = 0x1p-15f;

// What makes numbers of the digits n of a lane: factors and summands of rows g + 8r, of pairs of columns [r][s][pair].
class NibbleGains {
 public:
  // Of the four gains that there are, the bytes apart: low ones, and high ones.
  struct Table {
    uint32_t factors[2][2], summands[2];  // [r][byte], [byte]

    __device__ __forceinline__ Table(const PackedView& w) : factors(), summands() {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float gain = static_cast<float>(w.points.gains >> (8 * i) & 255);
        const auto put = [&](float x, uint32_t (&to)[2]) {
          const uint32_t bits = __half_as_ushort(__float2half_rn(x));
          to[0] |= (bits & 255) << (8 * i);
          to[1] |= (bits >> 8) << (8 * i);
        };
        put(gain * (kNibbleUnit * 0x1p24f), factors[0]);
        put(gain * (kNibbleUnit * 0x1p20f), factors[1]);  // of digits that lie four bits higher
        put(-gain * w.points.centre[0] * kNibbleUnit, summands);
      }
    }
  };

  __device__ __forceinline__ void Expand(const Table& table, uint32_t packed) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        // A byte of the index i of each gain becomes i and, above it, 4 + i: which bytes make a number.
        const uint32_t select = (packed >> (2 * (2 * s + r)) & 0x03030303u) * 0x11u + 0x40404040u;
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
          factors_[r][s][pair] = Choose(table.factors[r][0], table.factors[r][1], select >> (16 * pair));
          summands_[r][s][pair] = Choose(table.summands[0], table.summands[1], select >> (16 * pair));
        }
      }
    }
  }

  // A of product s of a word.
  __device__ __forceinline__ void Decode(uint32_t word, int s, uint32_t (&a)[4]) const {
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      const uint32_t half = word >> (8 * pair);
      a[2 * pair] = Number(half & 0x000f000fu, factors_[0][s][pair], summands_[0][s][pair]);
      a[2 * pair + 1] = Number(half & 0x00f000f0u, factors_[1][s][pair], summands_[1][s][pair]);
    }
  }

 private:
  // __byte_perm, which the compiler would keep from seeing more than three bits of a place.
  __device__ __forceinline__ static uint32_t Choose(uint32_t low, uint32_t high, uint32_t places) {
    uint32_t bytes;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(places));
    return bytes;
  }
  __device__ __forceinline__ static uint32_t Number(uint32_t digits, uint32_t factor, uint32_t summand) {
    const auto halves = [](uint32_t x) { return *reinterpret_cast<const __half2*>(&x); };
    const __half2 x = __hfma2(halves(digits), halves(factor), halves(summand));
    return *reinterpret_cast<const uint32_t*>(&x);
  }

  uint32_t factors_[2][2][2], summands_[2][2][2];
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_NIBBLES_CUH_
