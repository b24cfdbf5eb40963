// A warp reads the panels of a row tile one after the other.

#ifndef COSETQ_CUDA_PANEL_STREAM_CUH_
#define COSETQ_CUDA_PANEL_STREAM_CUH_

#include "lookup.cuh"

namespace cosetq::cuda {

// The panels of a tile on their way through a lane's registers: a vector of digits makes room for that of the next panel when it
// is used up.
template <Form kForm>
struct PanelStream {
  static constexpr int kVectors = PanelVectors(kForm);
  PanelCodes<kForm> codes;
  const unsigned char* at;
  int64_t stride;
  int left;  // panels after this one

  PanelStream() = default;
  __device__ __forceinline__ PanelStream(const TilePanels& panels, int first, int count, int lane)
      : at(panels[first] + lane * 16), stride(panels.stride), left(count - 1) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) Load(v, at);
  }

  __device__ __forceinline__ static uint32_t LoadGains(const unsigned char* panel, int lane) {
    return __ldg(reinterpret_cast<const uint32_t*>(panel + kVectors * 512) + lane);
  }

  // So that gains come from the second-level cache.
  __device__ __forceinline__ static void PrefetchGains(const unsigned char* panel) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(panel + kVectors * 512));
  }

  // The last step that needs vector v.
  __device__ static constexpr int LastStep(int v) {
    return kForm == Form::kOneByte ? 4 * v + 3 : kForm == Form::kTwoByte ? 2 * v + 1 : v == 2 ? 7 : 4 * v + 3;
  }

  // After steps first ... last of this panel.
  __device__ __forceinline__ void Refill(int first, int last) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (left > 0 && LastStep(v) >= first && LastStep(v) <= last) Load(v, at + stride);
    }
  }

  // To the next panel, whose vectors are there.
  __device__ __forceinline__ void Advance(int lane) {
    at += stride;
    // So that what is refilled comes from the second-level cache.
    if (--left > 1 && lane < PanelBytes(kForm) / 128)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(at + 2 * stride - lane * 16 + lane * 128));
  }

 private:
  __device__ __forceinline__ void Load(int v, const unsigned char* from) {
    const uint4 vector = __ldg(reinterpret_cast<const uint4*>(from + v * 512));
    codes.words[4 * v] = vector.x;
    codes.words[4 * v + 1] = vector.y;
    codes.words[4 * v + 2] = vector.z;
    codes.words[4 * v + 3] = vector.w;
  }
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_PANEL_STREAM_CUH_
