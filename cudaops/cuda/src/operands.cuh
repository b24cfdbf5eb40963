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

// Numbers 1024 + byte.
template <int kFirst, int kSecond>
__device__ __forceinline__ __half2 FromBytes(uint32_t bytes) {
  return AsHalves(__byte_perm(bytes, 0x64646464, 0x4040 | kFirst | kSecond << 8));
}

// A of a part of a panel, two steps: of float16 numbers they fill a slice, of bytes half of one.
constexpr int kPartSteps = 2, kParts = kPanelSteps / kPartSteps;
constexpr int PartUnits(bool bytes) { return bytes ? 2 : 4; }

template <bool kBytes>
using PartA = uint32_t[PartUnits(kBytes)][4];

// Weights in float16 from their bytes: gain * (v - centre).
struct Centre {
  __half2 zero[2], rest[4];  // pairs of coordinates; the number that a byte of the bias becomes

  __device__ __forceinline__ explicit Centre(const PackedView& w) {
    zero[0] = FromBytes<0, 1>(w.bytes.base);
    zero[1] = FromBytes<2, 3>(w.bytes.base);
#pragma unroll
    for (int i = 0; i < 4; ++i) rest[i] = __floats2half2_rn(w.bytes.rest[2 * i], w.bytes.rest[2 * i + 1]);
  }

  // Two blocks of a step, each A of one product. gains are those of the two rows.
  __device__ __forceinline__ void Finish(const uint32_t u[4], const uint32_t gains[2], uint32_t (&first)[4],
                                         uint32_t (&second)[4]) const {
    const __half2 thousand = AsHalves(0x64006400);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const __half2 minus = __hsub2(thousand, FromBytes<0, 0>(gains[half]));  // gain, negative
#pragma unroll
      for (int block = 0; block < 2; ++block) {
        const uint32_t bytes = u[2 * block + half];
        uint32_t(&a)[4] = block == 0 ? first : second;
        a[half] = AsWord(__hfma2(minus, rest[2 * block], __hsub2(FromBytes<0, 1>(bytes), zero[0])));
        a[2 + half] = AsWord(__hfma2(minus, rest[2 * block + 1], __hsub2(FromBytes<2, 3>(bytes), zero[1])));
      }
    }
  }
};

// A of a part of float16 numbers.
template <Form kForm, int kPart>
__device__ __forceinline__ void DecodePart(const PanelCodes<kForm>& codes, uint32_t lane_table, const uint32_t gains[2][2], uint32_t base,
                                           const Centre& centre, PartA<false>& a) {
  ForEachIndex<kPartSteps>([&](auto index) {
    constexpr int kStep = kPart * kPartSteps + decltype(index)::value, kUnit = 2 * decltype(index)::value;
    uint32_t u[4];
    DecodeStep<kForm, kStep>(codes, lane_table, gains, base, u);
    const uint32_t step_gains[2] = {__byte_perm(gains[0][kStep / 4], 0, 0x4440 | kStep % 4),
                                    __byte_perm(gains[1][kStep / 4], 0, 0x4440 | kStep % 4)};
    centre.Finish(u, step_gains, a[kUnit], a[kUnit + 1]);
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
__device__ __forceinline__ void CombinePart(const PartWords<kForm>& words, const uint32_t gains[2][2], uint32_t base, PartA<true>& a) {
  ForEachIndex<kPartSteps>([&](auto index) {
    constexpr int kStep = decltype(index)::value;
    CombineStep<kForm, kPart * kPartSteps + kStep>(words[kStep], gains, base, a[kStep]);
  });
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_OPERANDS_CUH_
