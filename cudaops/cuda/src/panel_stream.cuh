// A warp reads the panels of a row tile one after the other.

#ifndef COSETQ_CUDA_PANEL_STREAM_CUH_
#define COSETQ_CUDA_PANEL_STREAM_CUH_

#include "lookup.cuh"
#include "column_halves.cuh"

namespace cosetq::cuda {

// The panels of a tile on their way through a lane's registers: a vector of digits makes room for that of the next panel when it
// is used up.
template <Form kForm>
struct PanelStream {
  static constexpr int kVectors = PanelVectors(kForm);
  PanelCodes<kForm> codes;
  int left;  // panels after this one

  PanelStream() = default;
  __device__ __forceinline__ PanelStream(const TilePanels& panels, int first, int count, int lane)
      : left(count - 1), next_(panels[first] + lane * 16), stride_(panels.stride) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) Load(v);
    if (left > 0) next_ += stride_;
  }

  __device__ __forceinline__ static uint32_t LoadGains(const unsigned char* panel, int lane) {
    return __ldg(reinterpret_cast<const uint32_t*>(panel + kVectors * 512) + lane);
  }

  // Those of the panel after this one, if there is one.
  __device__ __forceinline__ uint32_t LoadNextGains(int lane) const { return LoadGains(next_ - lane * 16, lane); }

  // So that gains come from the second-level cache.
  __device__ __forceinline__ static void PrefetchGains(const unsigned char* panel) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(panel + kVectors * 512));
  }

  // The last step that needs vector v.
  __device__ static constexpr int LastStep(int v) {
    if (IsColumns(kForm)) return (v + 1) * VectorCoordinates(kForm) > 4 ? 7 : 3;  // of four coordinates
    return kForm == Form::kOneByte ? 4 * v + 3 : kForm == Form::kTwoByte ? 2 * v + 1 : v == 2 ? 7 : 4 * v + 3;
  }

  // After steps first ... last of this panel. The last one is loaded again, for nobody, which is shorter than asking.
  __device__ __forceinline__ void Refill(int first, int last) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (LastStep(v) >= first && LastStep(v) <= last) Load(v);
    }
  }

  // To the next panel, whose vectors are there.
  __device__ __forceinline__ void Advance(int lane) {
    if (--left > 0) next_ += stride_;
    // So that what is refilled comes from the second-level cache.
    if (left > 1 && lane < PanelBytes(kForm) / 128)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(next_ + stride_ - lane * 16 + lane * 128));
  }

 private:
  __device__ __forceinline__ void Load(int v) {
    const uint4 vector = __ldg(reinterpret_cast<const uint4*>(next_ + v * 512));
    codes.words[4 * v] = vector.x;
    codes.words[4 * v + 1] = vector.y;
    codes.words[4 * v + 2] = vector.z;
    codes.words[4 * v + 3] = vector.w;
  }

  const unsigned char* next_;  // the panel after this one, or this one if it is the last; what the lane has of it
  int64_t stride_;
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_PANEL_STREAM_CUH_
