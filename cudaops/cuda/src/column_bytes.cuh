// Weights of single columns as bytes in which the centre is, for wgmma: doubled weights plus 128.
//
// Steps of a part are not those of views.h, since a lane's vectors are to be used up one after the other: step 4b + 2m + e is of block b, that is, of
// coordinates 4b up; its first half of groups 8 * 2m + 2t + e, its second half of those eight further.

#ifndef COSETQ_CUDA_COLUMN_BYTES_CUH_
#define COSETQ_CUDA_COLUMN_BYTES_CUH_

#include "operands.cuh"

namespace cosetq::cuda {

constexpr uint32_t kBytesBias = 0x80808080u;

// Whether bytes hold all weights.
inline bool HasColumnBytes(const PackedView& w) { return IsColumns(w.form) && w.bytes.base == kBytesBias; }

// The digits of part p, [eight of its two][e], in which those of all rows are: two of its steps.
template <Form kForm>
struct ColumnPart {
  uint32_t digits[kForm == Form::kTwoBits ? 1 : 2][2];
};

template <Form kForm, int kPart>
__device__ __forceinline__ void TakePart(const PanelCodes<kForm>& codes, ColumnPart<kForm>& part) {
  constexpr int kBlock = kPart / 2, kEights = kForm == Form::kTwoBits ? 1 : 2;
#pragma unroll
  for (int i = 0; i < kEights; ++i) {
#pragma unroll
    for (int e = 0; e < 2; ++e) part.digits[i][e] = BlockDigits(codes, kBlock, 2 * (kPart % 2 * 2 + i) + e);
  }
}

template <Form kForm, int kPart>
__device__ __forceinline__ void CombineColumns(const ColumnPart<kForm>& part, const uint32_t gains[2][2], const ByteView& bytes, PartA<true>& a) {
  constexpr uint32_t kMask = kForm == Form::kTwoBits ? 0x03030303u : 0x0f0f0f0fu;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int eight = kPart % 2 * 2 + i;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t gain = __byte_perm(gains[half][eight / 2], 0, 0x4440 | (eight % 2 * 2 + e));
        const uint32_t digits = part.digits[kForm == Form::kTwoBits ? 0 : i][e];
        const int place = DigitPlace(kForm, half, eight);
        const uint32_t twice = place == 0 ? (digits & kMask) * 2 : digits >> (place - 1) & 2 * kMask;
        a[e][2 * i + half] = (twice + bytes.centres) * gain + bytes.base;
      }
    }
  }
}

// The unit of rows g + 8 * half in a step (DecodeColumns): digits of two bits of the second rows stay two bits up, where those of the first are doubled.
__host__ __device__ constexpr float StepUnit(Form form, int half) { return form == Form::kTwoBits && half == 1 ? 0.5f : 1; }

// A of a step of views.h, in StepUnit.
template <Form kForm, int kStep>
__device__ __forceinline__ void DecodeColumns(const PanelCodes<kForm>& codes, const uint32_t gains[2][2], const ByteView& bytes, uint32_t (&a)[4]) {
  constexpr bool kTwo = kForm == Form::kTwoBits;
  constexpr uint32_t kMask = kTwo ? 0x03030303u : 0x0f0f0f0fu;
  const auto gain = [&](int half, uint32_t times) { return __dp4a(gains[half][kStep / 4], times << (8 * (kStep % 4)), 0u); };
  // Neither are centres to be added to every word of digits in place of this, nor gains to be doubled.
  const auto base = [&](int half) {
    uint32_t centres = kTwo && half == 1 ? 2 * bytes.centres : bytes.centres;
    asm("" : "+r"(centres));
    uint32_t of = gain(half, 1) * centres + bytes.base;
    asm("" : "+r"(of));
    return of;
  };
  const uint32_t twice = gain(0, 2), once = gain(1, 1), bases[2] = {base(0), base(1)};
#pragma unroll
  for (int block = 0; block < 2; ++block) {
    const uint32_t digits = BlockDigits(codes, block, kStep) >> DigitPlace(kForm, 0, kStep / 2);
    a[2 * block] = (digits & kMask) * twice + bases[0];
    a[2 * block + 1] = (kTwo ? digits & kMask << 2 : digits >> 3 & kMask << 1) * once + bases[1];
  }
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_COLUMN_BYTES_CUH_
