// Slices of activations on their way through shared memory: one thread fetches them, eight warps multiply by them.

#ifndef COSETQ_CUDA_SLICE_RING_CUH_
#define COSETQ_CUDA_SLICE_RING_CUH_

#include "operands.cuh"
#include "pipeline.cuh"
#include "wgmma.cuh"

namespace cosetq::cuda {

constexpr int kConsumerWarps = 8;
constexpr int kConsumers = kConsumerWarps * 32;

// A ring of so many slices, as addresses in shared memory.
template <int kColumns, int kSlices>
struct SliceRing {
  static constexpr int kStages = kSlices, kStageBytes = kColumns * kSliceBytes;
  uint32_t stages, full, empty;
  int peers, rank;  // blocks that fill their rings together, each a part of every slice; this one
  int slot = 0, phase = 0;

  __device__ __forceinline__ void Advance() {
    if (++slot == kStages) slot = 0, phase ^= 1;
  }

  // Each slice is for so many warps of a block.
  __device__ __forceinline__ void Create(int warps = kConsumerWarps) const {
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(full + i * 8, 1);
      InitBarrier(empty + i * 8, warps * peers);
    }
    PublishBarriers();
  }

  __device__ __forceinline__ void WaitForSlice() const { Wait(full + slot * 8, phase); }

  // Multiplies by units of the slice, from first on.
  template <int kUnits, typename Sum>
  __device__ __forceinline__ void Multiply(int first, const uint32_t (&a)[kUnits][4], Sum (&sums)[kColumns / 2]) const {
    BeginProducts();
    const uint64_t stage = Columns(stages + slot * kStageBytes);
#pragma unroll
    for (int unit = 0; unit < kUnits; ++unit) MultiplyColumns(sums, a[unit], stage + (first + unit) * 32 / 16);
    CommitProducts();
  }
};

// That of slices made ready, which lie one after the other.
template <int kColumns>
struct Ring : SliceRing<kColumns, kColumns == 256 ? 5 : kColumns == 128 ? 8 : 12> {
  using Base = SliceRing<kColumns, kColumns == 256 ? 5 : kColumns == 128 ? 8 : 12>;
  using Base::empty, Base::full, Base::kStageBytes, Base::peers, Base::phase, Base::rank, Base::slot, Base::stages;

  // Fetches slices one after the other.
  __device__ __forceinline__ void Fill(const unsigned char* from, int count) {
    for (int i = 0; i < count; ++i) {
      Wait(empty + slot * 8, phase ^ 1);  // at once the first time round
      const uint32_t to = stages + slot * kStageBytes;
      const unsigned char* slice = from + static_cast<int64_t>(i) * kStageBytes;
      Expect(kStageBytes, full + slot * 8);
      if (peers == 1) {
        Fetch(to, slice, kStageBytes, full + slot * 8);
      } else {
        constexpr int kPart = kStageBytes / 2;
        FetchForTwo(to + rank * kPart, slice + rank * kPart, kPart, full + slot * 8);
      }
      Base::Advance();
    }
  }

  // Fetches a slice of float16 rows as they lie: two coordinates of the groups of a chunk, one after the other.
  __device__ __forceinline__ void Fill(const CUtensorMap* rows, int group, int row, int coordinate) {
    Wait(empty + slot * 8, phase ^ 1);
    const uint32_t to = stages + slot * kStageBytes;
    Expect(kStageBytes, full + slot * 8);
    if (peers == 1) {
      FetchBox(to, rows, group, row, coordinate, full + slot * 8);
    } else {
      FetchBoxForTwo(to + rank * (kStageBytes / 2), rows, group, row, coordinate + rank, full + slot * 8);
    }
    Base::Advance();
  }

  // Multiplies by such a slice.
  template <typename Sum>
  __device__ __forceinline__ void MultiplyTwo(const uint32_t (&a)[kSliceUnits][4], Sum (&sums)[kColumns / 2]) const {
    BeginProducts();
#pragma unroll
    for (int unit = 0; unit < kSliceUnits; ++unit)
      MultiplyColumns(sums, a[unit], NarrowColumns(stages + slot * kStageBytes + unit / 2 * (kStageBytes / 2)) + unit % 2 * 32 / 16);
    CommitProducts();
  }

  // To be called by warps that are to release slots: lane 0 tells this block, lane 1 the other one.
  __device__ __forceinline__ void JoinConsumers() {
    const int lane = threadIdx.x % 32;
    tells_own_ = lane == 0;
    tells_other_ = lane == 1 && peers > 1;
    told_ = tells_other_ ? InBlock(empty, 1 - rank) : empty;
  }
  __device__ __forceinline__ void Release(int of) const {
    if (tells_own_) Arrive(told_ + of * 8);
    if (tells_other_) ArriveInCluster(told_ + of * 8);
  }

 private:
  bool tells_own_ = false, tells_other_ = false;
  uint32_t told_ = 0;
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SLICE_RING_CUH_
