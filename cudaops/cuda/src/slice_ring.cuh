// Slices of activations on their way through shared memory: one thread fetches them, eight warps multiply by them.

#ifndef COSETQ_CUDA_SLICE_RING_CUH_
#define COSETQ_CUDA_SLICE_RING_CUH_

#include "operands.cuh"
#include "pipeline.cuh"
#include "wgmma.cuh"

namespace cosetq::cuda {

constexpr int kConsumerWarps = 8;
constexpr int kConsumers = kConsumerWarps * 32;

// Registers that products under way read must stay as they are, also when nothing else reads them.
__device__ __forceinline__ void Keep(HalfSliceA& a) {
#pragma unroll
  for (auto& unit : a) asm volatile("" : "+r"(unit[0]), "+r"(unit[1]), "+r"(unit[2]), "+r"(unit[3]));
}

// The ring of slices, as addresses in shared memory.
template <int kColumns>
struct Ring {
  static constexpr int kStages = kColumns == 256 ? 5 : kColumns == 128 ? 8 : 12;
  static constexpr int kStageBytes = kColumns * kSliceBytes;
  uint32_t stages, full, empty;
  int slot = 0, phase = 0;

  __device__ __forceinline__ void Advance() {
    if (++slot == kStages) slot = 0, phase ^= 1;
  }

  __device__ __forceinline__ void Create() const {
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(full + i * 8, 1);
      InitBarrier(empty + i * 8, kConsumerWarps);
    }
    PublishBarriers();
  }

  // Fetches slices one after the other.
  __device__ __forceinline__ void Fill(const unsigned char* from, int count) {
    for (int i = 0; i < count; ++i) {
      Wait(empty + slot * 8, phase ^ 1);  // at once the first time round
      Fetch(stages + slot * kStageBytes, from + static_cast<int64_t>(i) * kStageBytes, kStageBytes, full + slot * 8);
      Advance();
    }
  }

  __device__ __forceinline__ void WaitForSlice() const { Wait(full + slot * 8, phase); }

  __device__ __forceinline__ void Release(int of) const {
    if (threadIdx.x % 32 == 0) Arrive(empty + of * 8);
  }

  template <int kHalf, typename Sum>
  __device__ __forceinline__ void Multiply(const HalfSliceA& a, Sum (&sums)[kColumns / 2]) const {
    BeginProducts();
    const uint64_t stage = Columns(stages + slot * kStageBytes);
#pragma unroll
    for (int unit = 0; unit < kSliceUnits / 2; ++unit)
      MultiplyColumns(sums, a[unit], stage + (kHalf * (kSliceUnits / 2) + unit) * 32 / 16);
    CommitProducts();
  }
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SLICE_RING_CUH_
