// Slices: what a warp group multiplies between two waits. Four products along K, of 16 float16 numbers or 32 bytes each, from
// 128 bytes of every column of B.

#ifndef COSETQ_CUDA_OPERANDS_CUH_
#define COSETQ_CUDA_OPERANDS_CUH_

#include <cuda_fp16.h>

#include <type_traits>
#include <utility>

#include "lookup.cuh"

namespace cosetq::cuda {

// Calls run with the integral constants 0 ... kCount - 1.
template <typename Do, int... kIndices>
__device__ __forceinline__ void ForEachOf(const Do& run, std::integer_sequence<int, kIndices...>) {
  (run(std::integral_constant<int, kIndices>{}), ...);
}
template <int kCount, typename Do>
__device__ __forceinline__ void ForEachIndex(const Do& run) {
  ForEachOf(run, std::make_integer_sequence<int, kCount>{});
}

constexpr int kSliceBytes = 128;
constexpr int kSliceUnits = 4;  // products along K in a slice

__device__ __forceinline__ __half2 AsHalves(uint32_t x) { return *reinterpret_cast<__half2*>(&x); }
__device__ __forceinline__ uint32_t AsWord(__half2 x) { return *reinterpret_cast<uint32_t*>(&x); }

// Two bytes as float16 numbers, 2^-24 of what they are: subnormal ones.
constexpr float kByteUnit = 0x1p-24f;
template <int kFirst, int kSecond>
__device__ __forceinline__ uint32_t HalvesOf(uint32_t bytes) {
  return __byte_perm(bytes, 0, 0x4040 | kFirst | kSecond << 8);
}

// The same of byte kByte of two words each; it must be below 128.
template <int kByte>
__device__ __forceinline__ uint32_t HalvesOfTwo(uint32_t first, uint32_t second) {
  constexpr int kSign = 8;  // of a byte, eight times
  uint32_t halves;
  asm("prmt.b32 %0, %1, %2, %3;"
      : "=r"(halves)
      : "r"(first), "r"(second), "n"(kByte | (kByte | kSign) << 4 | (4 + kByte) << 8 | (4 + kByte | kSign) << 12));
  return halves;
}

// A of a part of a panel, two steps: of float16 numbers they fill a slice, of bytes half of one.
constexpr int kPartSteps = 2, kParts = kPanelSteps / kPartSteps;
constexpr int PartUnits(bool bytes) { return bytes ? 2 : 4; }

template <bool kBytes>
using PartA = uint32_t[PartUnits(kBytes)][4];

// Makes float16 numbers gain * (v - centre) of the bytes v + bias of PointView: a product and a sum of what HalvesOf gives leave
// (v - centre) / 512, exact for the centres that codes have, and the gain times 512 what is wanted, rounded once. Either for a step, or for the
// slices of rows as they lie: slice q has coordinates 2q and 2q + 1, and of each a lane has groups next to each other in steps 2e and 2e + 1
// (OrderedStream).
class HalfPoints {
 public:
  __device__ __forceinline__ explicit HalfPoints(const PackedView& w) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      offsets_[i] = __floats2half2_rn(Offset(w.points, 2 * i), Offset(w.points, 2 * i + 1));
      const uint32_t gain = __half_as_ushort(__int2half_rn(static_cast<int>(w.points.gains >> (8 * i) & 255) * 512));
      gains_[0] |= (gain & 255) << (8 * i);
      gains_[1] |= (gain >> 8) << (8 * i);
    }
  }

  // The gains of a panel: low and high bytes, see ExpandGains.
  struct Gains {
    uint32_t bytes[2][2][2];

    template <int kStep>
    __device__ __forceinline__ __half2 Of(int half) const {
      constexpr int kSelect = kStep % 4 | (4 + kStep % 4) << 4;
      return AsHalves(__byte_perm(bytes[0][half][kStep / 4], bytes[1][half][kStep / 4], kSelect | kSelect << 8));
    }
    // Of steps 2e and 2e + 1.
    __device__ __forceinline__ __half2 OfTwo(int e, int half) const {
      return AsHalves(__byte_perm(bytes[0][half][e / 2], bytes[1][half][e / 2], e % 2 == 0 ? 0x5140 : 0x7362));
    }
  };
  __device__ __forceinline__ void Expand(uint32_t packed, Gains& gains) const {
    ExpandGains(gains_[0], packed, gains.bytes[0]);
    ExpandGains(gains_[1], packed, gains.bytes[1]);
  }

  // A of a step: of two blocks, each a product.
  template <Form kForm, int kStep>
  __device__ __forceinline__ void Decode(const PanelCodes<kForm>& codes, uint32_t lane_table, const Gains& gains, uint32_t (&first)[4],
                                         uint32_t (&second)[4]) const {
    StepWords<kForm> words;
    LookUpStep<kForm, kStep>(codes, lane_table, words);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int half = i % 2, block = i / 2;
      const uint32_t bytes = SumOfLevels(words, i);
      const __half2 gain = gains.Of<kStep>(half);
      uint32_t(&a)[4] = block == 0 ? first : second;
      a[half] = AsWord(__hmul2(Point<0, 1>(bytes, offsets_[2 * block]), gain));
      a[2 + half] = AsWord(__hmul2(Point<2, 3>(bytes, offsets_[2 * block + 1]), gain));
    }
  }

  // What the tables have of a block of a panel: sums of levels, of rows g and g + 8 in every step.
  using Block = uint32_t[kPanelSteps][2];
  template <Form kForm, int kBlock>
  __device__ __forceinline__ static void LookUp(const PanelCodes<kForm>& codes, uint32_t lane_table, Block& block) {
    ForEachIndex<kPanelSteps>([&](auto index) {
      constexpr int kStep = decltype(index)::value;
      LookUpBlock<kForm, kStep, kBlock>(codes, lane_table, block[kStep]);
    });
  }

  // A of a slice of rows as they lie, from its block.
  template <int kSlice>
  __device__ __forceinline__ void Make(const Block& block, const Gains& gains, PartA<false>& a) const {
    ForEachIndex<2>([&](auto index) {
      constexpr int kOdd = decltype(index)::value;  // coordinate of the slice
      const __half2 unit = AsHalves(0x78007800), offset = kOdd == 0 ? __low2half2(offsets_[kSlice]) : __high2half2(offsets_[kSlice]);  // 2^15
#pragma unroll
      for (int e = 0; e < 4; ++e) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint32_t points = HalvesOfTwo<kSlice % 2 * 2 + kOdd>(block[2 * e][half], block[2 * e + 1][half]);
          a[2 * kOdd + e / 2][e % 2 * 2 + half] = AsWord(__hmul2(__hfma2(AsHalves(points), unit, offset), gains.OfTwo(e, half)));
        }
      }
    });
  }

 private:
  static __device__ __forceinline__ float Offset(const PointView& p, int j) { return -(static_cast<float>(p.bias) + p.centre[j]) / 512; }
  template <int kFirst, int kSecond>
  static __device__ __forceinline__ __half2 Point(uint32_t bytes, __half2 offset) {
    const __half2 unit = AsHalves(0x78007800);  // 2^15
    return __hfma2(AsHalves(HalvesOf<kFirst, kSecond>(bytes)), unit, offset);
  }

  __half2 offsets_[4];          // pairs of coordinates
  uint32_t gains_[2] = {0, 0};  // low and high bytes of the four
};

// A of a part of float16 numbers.
template <Form kForm, int kPart>
__device__ __forceinline__ void DecodePart(const PanelCodes<kForm>& codes, uint32_t lane_table, const HalfPoints& points,
                                           const HalfPoints::Gains& gains, PartA<false>& a) {
  ForEachIndex<kPartSteps>([&](auto index) {
    constexpr int kIndex = decltype(index)::value;
    points.Decode<kForm, kPart * kPartSteps + kIndex>(codes, lane_table, gains, a[2 * kIndex], a[2 * kIndex + 1]);
  });
}

// The same in bytes, in two moves. They need no finish: what is missing of their centre is made up for elsewhere.
template <Form kForm>
using PartWords = StepWords<kForm>[kPartSteps];

template <Form kForm, int kPart>
__device__ __forceinline__ void LookUpPart(const PanelCodes<kForm>& codes, uint32_t lane_table, PartWords<kForm>& words) {
  ForEachIndex<kPartSteps>([&](auto index) {
    constexpr int kStep = decltype(index)::value;
    LookUpStep<kForm, kPart * kPartSteps + kStep>(codes, lane_table, words[kStep]);
  });
}
template <Form kForm, int kPart>
__device__ __forceinline__ void CombinePart(const PartWords<kForm>& words, const uint32_t gains[2][2], const ByteView& bytes, PartA<true>& a) {
  ForEachIndex<kPartSteps>([&](auto index) {
    constexpr int kStep = decltype(index)::value;
    CombineStep<kForm, kPart * kPartSteps + kStep>(words[kStep], gains, bytes, a[kStep]);
  });
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_OPERANDS_CUH_
