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

// The same with groups in the order in which they lie in activations: in step 2e + i lanes 4g + t have group 8e + 2t + i, which is what
// lanes 4g + e have in step 2t + i. So a lane reads a part of what four of them have.
template <Form kForm>
struct OrderedStream {
  PanelCodes<kForm> codes;

  OrderedStream() = default;
  __device__ __forceinline__ OrderedStream(const TilePanels& panels, int first, int count, int lane) : next_(panels[first]), left_(count), stride_(panels.stride) {
    Next(lane);
  }

  // Those of a panel as they are stored, and how the lane has them in this order, for which all lanes must call it.
  __device__ __forceinline__ static uint32_t LoadGains(const unsigned char* panel, int lane) { return PanelStream<kForm>::LoadGains(panel, lane); }
  __device__ __forceinline__ static uint32_t OrderGains(uint32_t packed, int lane) {
    const uint32_t t = lane % 4, byte = t | (4 + t) << 4;  // of two words
    const uint32_t first = __byte_perm(packed, __shfl_xor_sync(0xffffffffu, packed, 1), byte);
    const uint32_t second = __byte_perm(__shfl_xor_sync(0xffffffffu, packed, 2), __shfl_xor_sync(0xffffffffu, packed, 3), byte);
    // Bytes of lanes t, t ^ 1, t ^ 2 and t ^ 3.
    return __byte_perm(__byte_perm(first, second, 0x5410), 0, t | (t ^ 1) << 4 | (t ^ 2) << 8 | (t ^ 3) << 12);
  }

  // Those of the panel that Next loads, which is the last one again if there is none.
  __device__ __forceinline__ uint32_t LoadNextGains(int lane) const { return LoadGains(next_, lane); }

  // Loads the next panel.
  __device__ __forceinline__ void Next(int lane) {
    const int t = lane % 4;
    const unsigned char* quad = next_ + lane / 4 * 64;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if constexpr (kForm == Form::kTwoByte) {
        const uint4 v = __ldg(reinterpret_cast<const uint4*>(quad + t * 512 + e * 16));
        codes.words[4 * e] = v.x;
        codes.words[4 * e + 1] = v.y;
        codes.words[4 * e + 2] = v.z;
        codes.words[4 * e + 3] = v.w;
      } else {
        const uint2 v = __ldg(reinterpret_cast<const uint2*>(quad + t / 2 * 512 + e * 16 + t % 2 * 8));
        codes.words[2 * e] = v.x;
        codes.words[2 * e + 1] = v.y;
        if constexpr (kForm == Form::kNibbleByte) codes.words[8 + e] = __ldg(reinterpret_cast<const uint32_t*>(quad + 1024 + e * 16 + t * 4));
      }
    }
    if (--left_ > 0) next_ += stride_;
    // So that what is loaded next comes from the second-level cache.
    if (left_ > 1 && lane < PanelBytes(kForm) / 128) asm volatile("prefetch.global.L2 [%0];" ::"l"(next_ + stride_ + lane * 128));
  }

 private:
  const unsigned char* next_;  // the panel after this one, or this one if it is the last
  int left_;                   // panels from there on
  int64_t stride_;
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_PANEL_STREAM_CUH_
