// A warp's panels on their way through shared memory.

#ifndef COSETQ_CUDA_PANEL_RING_CUH_
#define COSETQ_CUDA_PANEL_RING_CUH_

#include "lookup.cuh"
#include "overlap.h"
#include "pipeline.cuh"
#include "shared.cuh"

namespace cosetq::cuda {

// Panels that lie one after the other, to be fetched in that order.
template <Form kForm>
class PanelRun {
 public:
  __device__ __forceinline__ PanelRun(const unsigned char* first, int count) : next_(first), left_(count) {}

  // The next one; false if there is none.
  __device__ __forceinline__ bool Next(const unsigned char*& panel) {
    panel = next_;
    next_ += PanelBytes(kForm);
    return left_-- > 0;
  }

 private:
  const unsigned char* next_;
  int left_;
};

// A ring of kDepth panels, private to a warp, which takes them one after the other, as Source names them. The copy engine (Hopper's)
// fetches them without a lane having to wait for a place in the queue of loads; or each lane copies its part, which begins sooner.
template <Form kForm, int kDepth, bool kEngine, typename Source = PanelRun<kForm>>
class PanelRing {
 public:
  static constexpr int kSlot = PanelBytes(kForm), kBytes = kDepth * kSlot;
  static constexpr int kBarriers = kDepth * 8;  // bytes
  static constexpr bool kByEngine = kEngine;

  __device__ __forceinline__ PanelRing(uint32_t slots, uint32_t barriers, const Source& source, int lane)
      : slots_(slots), slot_(slots), barriers_(barriers), barrier_(barriers), lane_(lane), source_(source) {
    if constexpr (kEngine) {
      if (lane == 0) {
#pragma unroll
        for (int i = 0; i < kDepth; ++i) InitBarrier(barriers + i * 8, 1);
        PublishBarriers();
      }
      __syncwarp();
    }
  }

  // Begins to fetch the next panel to slot i; the first time to each, in order.
  __device__ __forceinline__ void Fetch(int i) { FetchTo(slots_ + i * kSlot, barriers_ + i * 8); }

  // Waits for the kernels ahead, and meanwhile fetches panels after the first one, each when the one before it is there: activations would
  // have to wait behind more of them. One warp of a block, which fetches one more at once, tells the others of the end by a barrier. Returns how
  // many panels have been asked for.
  __device__ __forceinline__ int FetchUntilEnd(bool tells, uint32_t end) {
    static_assert(kEngine && kDepth > 1);
    const auto has_ended = [](uint32_t barrier) { return __all_sync(0xffffffffu, HasEnded(barrier, 0)); };
    int asked = 1;
    if (tells) {
      Fetch(asked++);
      WaitForKernelsAhead();
      if (lane_ == 0) Arrive(end);
    } else {
      while (!has_ended(end)) {
        if (asked < kDepth && has_ended(barriers_ + (asked - 1) * 8)) Fetch(asked++);
      }
    }
    return asked;
  }

  // Waits for the panel whose turn it is, and loads it: codes and gains, a byte per step of each row.
  __device__ __forceinline__ void Take(const ByteView& bytes, PanelCodes<kForm>& codes, uint32_t (&gains)[2][2]) const {
    uint32_t packed;
    Take(codes, packed);
    ExpandGains(bytes.gains, packed, gains);
  }

  // The same with gains as they are stored.
  __device__ __forceinline__ void Take(PanelCodes<kForm>& codes, uint32_t& gains) const {
    if constexpr (kEngine) {
      Wait(barrier_, phase_);
    } else {
      WaitForCopies<kDepth - 1>();
      __syncwarp();
    }
    Load(slot_, codes, gains);
  }

  // The same of the panel in slot kSlotAhead, of which so many have been asked for and none has made room yet.
  template <int kSlotAhead, int kAsked>
  __device__ __forceinline__ void TakeAhead(const ByteView& bytes, PanelCodes<kForm>& codes, uint32_t (&gains)[2][2]) const {
    static_assert(!kEngine);
    WaitForCopies<kAsked - 1 - kSlotAhead>();
    __syncwarp();
    uint32_t packed;
    Load(slots_ + kSlotAhead * kSlot, codes, packed);
    ExpandGains(bytes.gains, packed, gains);
  }

  // The panel that was taken makes room for another. To be called when something that it is needed for has been stored, and not only when
  // it is loaded: the compiler does not know that the engine writes to its place, and moves loads to where they are needed.
  __device__ __forceinline__ void Advance() {
    __syncwarp();
    FetchTo(slot_, barrier_);
    if (kDepth > 1 && slot_ < slots_ + (kDepth - 1) * kSlot) {
      slot_ += kSlot;
      barrier_ += 8;
    } else {
      slot_ = slots_;
      barrier_ = barriers_;
      phase_ ^= 1;
    }
  }

 private:
  __device__ __forceinline__ void Load(uint32_t slot, PanelCodes<kForm>& codes, uint32_t& gains) const {
#pragma unroll
    for (int v = 0; v < PanelVectors(kForm); ++v) {
      const uint4 vector = LoadShared16(slot + lane_ * 16 + v * 512);
      codes.words[4 * v] = vector.x;
      codes.words[4 * v + 1] = vector.y;
      codes.words[4 * v + 2] = vector.z;
      codes.words[4 * v + 3] = vector.w;
    }
    gains = LoadShared4(slot + lane_ * 4 + PanelVectors(kForm) * 512);
  }
  __device__ __forceinline__ void FetchTo(uint32_t to, uint32_t barrier) {
    const unsigned char* panel;
    const bool more = source_.Next(panel);
    if constexpr (kEngine) {
      if (more && ElectLane()) {
        Expect(kSlot, barrier);
        ::cosetq::cuda::Fetch(to, panel, kSlot, barrier);
      }
    } else {
      if (more) {
        const unsigned char* from = panel + lane_ * 16;
#pragma unroll
        for (int v = 0; v < PanelVectors(kForm); ++v) CopyAsync16(to + lane_ * 16 + v * 512, from + v * 512);
        if (lane_ < 8) CopyAsync16(to + lane_ * 16 + PanelVectors(kForm) * 512, from + PanelVectors(kForm) * 512);
      }
      CommitCopies();
    }
  }

  uint32_t slots_, slot_, barriers_, barrier_;
  int lane_, phase_ = 0;
  Source source_;
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_PANEL_RING_CUH_
