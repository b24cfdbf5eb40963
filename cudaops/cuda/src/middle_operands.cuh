// Activations as the kernel of middle.cuh multiplies them.

#ifndef COSETQ_CUDA_MIDDLE_OPERANDS_CUH_
#define COSETQ_CUDA_MIDDLE_OPERANDS_CUH_

#include "activations.cuh"
#include "middle_cut.cuh"

namespace cosetq::cuda {
namespace {

// Four integers of 16 bits as bytes, in the low bits of floats that a multiple of 2^16 has been added to, and 2^15 + 2^7.
struct SignedBytes {
  uint32_t high, low;

  __device__ __forceinline__ explicit SignedBytes(const float x[4]) {
    const uint32_t first = __byte_perm(__float_as_uint(x[0]), __float_as_uint(x[1]), 0x5140);
    const uint32_t second = __byte_perm(__float_as_uint(x[2]), __float_as_uint(x[3]), 0x5140);
    low = __byte_perm(first, second, 0x5410) ^ 0x80808080u;
    high = __byte_perm(first, second, 0x7632) ^ 0x80808080u;
  }
};

// Makes B of the activations of a block's chunks, integers of 16 bits in the unit of their row and these chunks. A warp takes a block of
// the groups of a chunk for eight rows, a lane 4r + t the groups 8t up of row r: of each coordinate 16 bytes as they lie.
template <Form kForm, int kRows, typename Late>
__device__ __forceinline__ void MakeOperands(const PackedView& w, const __half* a, int batch, const MiddleShare& share, uint32_t operands,
                                             uint32_t offsets, uint32_t* peaks, int warp, int lane, const Late& late) {
  constexpr int kTiles = kRows / 8, kAtOnce = 2, kColumns = 2 * kRows;
  const int t = lane % 4, row = lane / 4, all = share.chunks * 2 * kTiles;
  uint4 v[kAtOnce][4];
  const auto load = [&](int first) {
#pragma unroll
    for (int i = 0; i < kAtOnce * 4; ++i) {
      const int part = first + i / 4 * kMiddleWarps, tile = part % kTiles, block = part / kTiles % 2, chunk = part / (2 * kTiles);
      const int group = (share.first_chunk + chunk) * kPanelGroups + t * kPanelSteps, n = tile * 8 + row;
      v[i / 4][i % 4] = make_uint4(0, 0, 0, 0);
      // Another kernel has written the rows a moment ago, so they are read past the first-level cache.
      if (part < all && n < batch && group < w.groups)
        v[i / 4][i % 4] = __ldcg(reinterpret_cast<const uint4*>(a + static_cast<int64_t>(n) * w.cols + group + (4 * block + i % 4) * w.groups));
    }
  };
  constexpr int kStride = kAtOnce * kMiddleWarps;
  if (warp >= all) late();
  for (int first = warp; first < all; first += kStride) {
    load(first);
    if (first == warp) late();
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      uint32_t peak = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) peak = max(peak, Magnitude(v[i][j], __half()));
      peak = max(peak, __shfl_xor_sync(0xffffffffu, peak, 1));
      peak = max(peak, __shfl_xor_sync(0xffffffffu, peak, 2));
      if (t == 0 && first + i * kMiddleWarps < all) atomicMax(peaks + (first + i * kMiddleWarps) % kTiles * 8 + row, FloatMagnitude(peak, __half()));
    }
  }
  __syncthreads();
  constexpr float kRound = (3 << 22) + (1 << 15) + (1 << 7);
  for (int first = warp; first < all; first += kStride) {
    if (all > kStride) load(first);  // or it is still there
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int part = first + i * kMiddleWarps, tile = part % kTiles, block = part / kTiles % 2, chunk = part / (2 * kTiles);
      if (part >= all) break;
      const float scale = ScaleOf(peaks[tile * 8 + row]);
      const uint32_t column = operands + (tile * 8 + row) * kSliceBytes;
      const auto store = [&](int slice, int unit, int half, int of_lane, const SignedBytes& bytes) {
        const uint32_t to = column + of_lane * 4 + slice * kColumns * kSliceBytes + static_cast<uint32_t>((unit * 2 + half) ^ row) * 16;
        StoreShared4(to, bytes.high);
        StoreShared4(to + kRows * kSliceBytes, bytes.low);
      };
      float rests[kPanelSteps];
      int high = 0, low = 0;
#pragma unroll
      for (int step = 0; step < kPanelSteps; ++step) {
        float x[4];
        rests[step] = 0;
        const GroupPlace place(kForm, t * kPanelSteps + step);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint4& of = v[i][j];
          const __half2 pair = AsHalves(step / 2 == 0 ? of.x : step / 2 == 1 ? of.y : step / 2 == 2 ? of.z : of.w);
          x[j] = scale == 0 ? 0 : step % 2 == 0 ? __low2float(pair) : __high2float(pair);
          rests[step] = __fmaf_rn(block == 0 ? w.bytes.rest[j] : w.bytes.rest[4 + j], x[j], rests[step]);
          x[j] = __fmaf_rn(x[j], scale, kRound);
        }
        const SignedBytes bytes(x);
        store(chunk * kChunkSlices + place.step / kSliceUnits, place.step % kSliceUnits, block, place.t, bytes);
        high = DotBytes(w.bytes.base, bytes.high, high);
        low = DotBytes(w.bytes.base, bytes.low, low);
        rests[step] = __fmaf_rn(rests[step], -scale, kRound);
      }
      if constexpr (!IsColumns(kForm)) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
          store(share.chunks * kChunkSlices + chunk / 2, chunk % 2 * 2 + block, half, t, SignedBytes(rests + 4 * half));
      }
#pragma unroll
      for (int other = 1; other < 4; other *= 2) {
        high += __shfl_xor_sync(0xffffffffu, high, other);
        low += __shfl_xor_sync(0xffffffffu, low, other);
      }
      if (t == 0) {
        const uint32_t to = offsets + ((chunk * 2 + block) * kColumns + tile * 8 + row) * 4;
        StoreShared4(to, static_cast<uint32_t>(-high));
        StoreShared4(to + kRows * 4, static_cast<uint32_t>(-low));
      }
    }
  }
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_MIDDLE_OPERANDS_CUH_
