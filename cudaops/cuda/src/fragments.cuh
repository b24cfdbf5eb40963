// Activations as the small-batch kernel reads them: integers of 16 bits, in two bytes, in the order of the columns of a
// panel (views.h), in device memory.
//
// A row a of the activations is a = step * q, |q| <= 32639, and q = 256 *
// high + low. The weights come as u = gain * (v + bias), not gain * (v - centre) as they should be, so each group also has a
// correction -(bias * sum of q + <centre, q>), to be multiplied by the gain alone: an integer of 24 bits, in three bytes.
//
// Eight columns of the product are one tile of B. With up to four rows of activations one tile holds the high bytes of
// four, then the low bytes. With more, tiles alternate: high bytes of eight rows, low bytes of the same eight.

#ifndef COSETQ_CUDA_FRAGMENTS_CUH_
#define COSETQ_CUDA_FRAGMENTS_CUH_

#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>

#include "small.h"
#include "views.h"

namespace cosetq::cuda {

// Rows of activations that a kernel for a batch has room for.
constexpr int SmallRoom(int64_t batch) { return batch <= 4 ? 4 : batch <= 8 ? 8 : 16; }

// Tiles of B, and those whose bytes weigh 65536.
constexpr int DataTiles(int room) { return room / 4; }
constexpr int TopTiles(int room) { return room <= 8 ? 1 : room / 8; }

// Bytes of a chunk, per row of activations: [pair of steps][high, low][row][t] 16 bytes, b0 and b1 of either step; then the
// corrections, [bottom, middle, top][row][t] 8 bytes, one per step.
constexpr int kDataBytes = 4 * 2 * 64;
constexpr int kChunkBytes = kDataBytes + 3 * 32;

constexpr float kLargestActivation = 32639;

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }

// The low byte of x, signed; x becomes what is left above it.
__device__ __forceinline__ int SplitLow(int* x) {
  const int low = static_cast<signed char>(*x);
  *x = (*x - low) >> 8;
  return low;
}

// Rounds four numbers below 2^15 to integers q = 256 * high + low, high and low signed bytes, and packs each. A float
// of 1.5 * 2^23 plus q has q in its low bits; a further 2^15 + 2^7 makes both bytes unsigned, 128 too large.
__device__ __forceinline__ void SplitFour(const float x[4], float scale, uint32_t* high, uint32_t* low) {
  constexpr float kRound = (3 << 22) + (1 << 15) + (1 << 7);
  uint32_t q[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) q[j] = __float_as_uint(__fmaf_rn(x[j], scale, kRound));
  const uint32_t first = __byte_perm(q[0], q[1], 0x5140), second = __byte_perm(q[2], q[3], 0x5140);
  *low = __byte_perm(first, second, 0x5410) ^ 0x80808080u;
  *high = __byte_perm(first, second, 0x7632) ^ 0x80808080u;
}

template <typename T>
__device__ __forceinline__ void LoadGroup(const PackedView& w, const T* a, int group, float x[kGroup]) {
  if (w.groups * kGroup == w.cols && group < w.groups) {
#pragma unroll
    for (int j = 0; j < kGroup; ++j) x[j] = ToFloat(a[group + w.groups * j]);
    return;
  }
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    const int column = group + w.groups * j;
    x[j] = group < w.groups && column < w.cols ? ToFloat(a[column]) : 0.0f;
  }
}

// The activations of a call: chunks, and for each row the bits of the largest magnitude.
struct Fragments {
  unsigned char* chunks;
  uint32_t* peaks;  // [batch]
  int batch;

  // What a sum is multiplied by; NaN for a row with NaN or infinity.
  __device__ float Step(uint32_t peak) const {
    return peak < 0x7f800000u ? __uint_as_float(peak) / kLargestActivation : __int_as_float(0x7fffffff);
  }

  __device__ void Store(const PackedView& w, float x[kGroup], int group, int row, uint32_t peak) const {
    float scale = kLargestActivation / __uint_as_float(peak);
    // A peak so small that the factor overflows is as good as 0, and where a result will be NaN nothing matters.
    if (!(scale > 0 && scale < INFINITY)) {
      scale = 0;
#pragma unroll
      for (int j = 0; j < kGroup; ++j) x[j] = 0;
    }
    uint32_t high[2], low[2];
    SplitFour(x, scale, high, low);
    SplitFour(x + 4, scale, high + 1, low + 1);
    constexpr int kOnes = 0x01010101;
    const int sum = __dp4a(static_cast<int>(high[0]), kOnes, __dp4a(static_cast<int>(high[1]), kOnes, 0)) * 256 +
                    __dp4a(static_cast<int>(low[0]), kOnes, __dp4a(static_cast<int>(low[1]), kOnes, 0));
    float inner = 0;
#pragma unroll
    for (int j = 0; j < kGroup; ++j) inner += w.centre[j] * x[j];
    const int step = group % kPanelGroups / kStepGroups, t = group % kStepGroups;
    unsigned char* chunk = chunks + group / kPanelGroups * batch * kChunkBytes;
    unsigned char* data = chunk + (step / 2 * 2 * batch + row) * 64 + t * 16 + step % 2 * 8;
    *reinterpret_cast<uint2*>(data) = make_uint2(high[0], high[1]);
    *reinterpret_cast<uint2*>(data + batch * 64) = make_uint2(low[0], low[1]);
    int correction = -(w.bias * sum + __float2int_rn(inner * scale));
    unsigned char* corrections = chunk + batch * kDataBytes + row * 32 + t * 8 + step;
    corrections[0] = static_cast<unsigned char>(SplitLow(&correction));
    corrections[batch * 32] = static_cast<unsigned char>(SplitLow(&correction));
    corrections[batch * 64] = static_cast<unsigned char>(correction);
  }
};

inline size_t FragmentBytes(const PackedView& w, int64_t batch) {
  return static_cast<size_t>(w.chunks * batch * kChunkBytes + batch * 4);
}

inline Fragments FragmentsAt(void* memory, const PackedView& w, int batch) {
  auto* chunks = static_cast<unsigned char*>(memory);
  return {chunks, reinterpret_cast<uint32_t*>(chunks + static_cast<size_t>(w.chunks) * static_cast<size_t>(batch) * kChunkBytes),
          batch};
}

// The activations of one chunk as a lane multiplies them. Another kernel has written them a moment ago, so they are read past the
// first-level cache.
template <int kRoom>
struct ChunkActivations {
  uint4 data[4][DataTiles(kRoom)];
  uint2 corrections[DataTiles(kRoom) + TopTiles(kRoom)];

  __device__ __forceinline__ void Load(const Fragments& f, int chunk, int lane) {
    const int t = lane % 4, column = lane / 4;
    const unsigned char* at = f.chunks + chunk * f.batch * kChunkBytes;
#pragma unroll
    for (int tile = 0; tile < DataTiles(kRoom); ++tile) {
      const int row = kRoom == 4 ? column % 4 : tile / 2 * 8 + column;
      const int low = kRoom == 4 ? column / 4 : tile % 2;
      const bool there = row < f.batch;
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        data[pair][tile] = make_uint4(0, 0, 0, 0);
        if (there) data[pair][tile] = __ldcg(reinterpret_cast<const uint4*>(at + ((pair * 2 + low) * f.batch + row) * 64 + t * 16));
      }
      const unsigned char* parts = at + f.batch * kDataBytes + row * 32 + t * 8;
      corrections[tile] = make_uint2(0, 0);
      if (there) corrections[tile] = __ldcg(reinterpret_cast<const uint2*>(parts + (1 - low) * f.batch * 32));
      if (low == 0 || kRoom == 4) {
        uint2* top = corrections + DataTiles(kRoom) + tile / 2;
        *top = make_uint2(0, 0);
        if (there && low == 0) *top = __ldcg(reinterpret_cast<const uint2*>(parts + 2 * f.batch * 32));
      }
    }
  }
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_FRAGMENTS_CUH_
