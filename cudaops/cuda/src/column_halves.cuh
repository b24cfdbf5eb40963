// Weights of single columns, four or two bits each, on their way to the tensor cores: no table, and no activations made ready.
//
// A panel is that of views.h, with groups of a lane that are pairs next to each other in the matrix of activations: the digits of a
// coordinate are A of two products of m16n8k16, with the groups 16s up, without activations being moved. With lane 4g + t, of
//
//   row g, group 2t          row g + 8, group 2t          row g, group 2t + 8      row g + 8, group 2t + 8
//
// that is, of the low halves of A's registers 0 to 3; of the groups 2t + 1 and 2t + 9, which go to the high halves, digits lie 16 bits above
// these: a word (ColumnWord) has two coordinates of two groups, a byte each. A byte has the digits of row g below those of row g + 8, of
// two bits those of two pairs of groups (DigitPlace). Vectors have two coordinates of four bits, or four of two.

#ifndef COSETQ_CUDA_COLUMN_HALVES_CUH_
#define COSETQ_CUDA_COLUMN_HALVES_CUH_

#include <cuda_fp16.h>

#include "lookup.cuh"

namespace cosetq::cuda {

constexpr int VectorCoordinates(Form form) { return kGroup / PanelVectors(form); }

// Weights are float16 numbers gain * (n - centre) times this: n as it lies in a word is a subnormal number, of whose product with the
// gain, and the sum with what the gain makes of the centre, nothing is lost (weight.cu).
constexpr float kHalvesUnit = 0x1p-15f;

// What scales are multiplied by, which are those of doubled weights.
constexpr float kHalvesScale = 2 / kHalvesUnit;

// What makes numbers of the digits n of a lane: factors and summands of rows g + 8r, of pairs of columns [r][s][pair].
template <Form kForm>
class ColumnGains {
  static constexpr int kPairs = kForm == Form::kTwoBits ? 2 : 1;  // whose digits lie in places of their own

 public:
  // Of the four gains that there are, the bytes apart: low ones, and high ones.
  struct Table {
    uint32_t factors[2][kPairs][2], summands[2];  // [r][pair][byte], [byte]

    __device__ __forceinline__ Table(const PackedView& w) : factors(), summands() {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float gain = static_cast<float>(w.points.gains >> (8 * i) & 255);
        const auto put = [&](float x, uint32_t (&to)[2]) {
          const uint32_t bits = __half_as_ushort(__float2half_rn(x));
          to[0] |= (bits & 255) << (8 * i);
          to[1] |= (bits >> 8) << (8 * i);
        };
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
          for (int pair = 0; pair < kPairs; ++pair)
            put(gain * (kHalvesUnit * 0x1p24f) / static_cast<float>(1 << DigitPlace(kForm, r, pair)), factors[r][pair]);
        }
        put(-gain * w.points.centre[0] * kHalvesUnit, summands);
      }
    }
  };

  __device__ __forceinline__ void Expand(const Table& table, uint32_t packed) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      // Indices of first and second groups of pairs, a byte each.
      const uint32_t first = packed >> (2 * r) & 0x03030303u, second = packed >> (2 * r + 4) & 0x03030303u;
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        // A byte of the index i of each gain becomes i and, above it, 4 + i: which bytes make a number.
        const uint32_t select = __byte_perm(first, second, s == 0 ? 0x5140 : 0x7362) * 0x11u + 0x40404040u;
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
          factors_[r][s][pair] = Choose(table.factors[r][pair % kPairs][0], table.factors[r][pair % kPairs][1], select >> (16 * pair));
          summands_[r][s][pair] = Choose(table.summands[0], table.summands[1], select >> (16 * pair));
        }
      }
    }
  }

  // All that has been expanded.
  __device__ __forceinline__ uint32_t Fold() const {
    uint32_t all = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) all ^= factors_[i / 4][i / 2 % 2][i % 2] ^ summands_[i / 4][i / 2 % 2][i % 2];
    return all;
  }

  // A of product s of coordinate j, of the vector that has it.
  __device__ __forceinline__ void Decode(const uint4& vector, int j, int s, uint32_t (&a)[4]) const {
    constexpr uint32_t kMask = kForm == Form::kTwoBits ? 0x00030003u : 0x000f000fu;
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      const int i = ColumnWord(kForm, j, 2 * s + pair) % 4;
      const uint32_t word = (i == 0 ? vector.x : i == 1 ? vector.y : i == 2 ? vector.z : vector.w) >> (8 * (j % 2));
#pragma unroll
      for (int r = 0; r < 2; ++r) a[2 * pair + r] = Number(word & kMask << DigitPlace(kForm, r, pair), factors_[r][s][pair], summands_[r][s][pair]);
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

#endif  // COSETQ_CUDA_COLUMN_HALVES_CUH_
