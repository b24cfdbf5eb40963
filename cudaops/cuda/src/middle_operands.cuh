// Activations as the kernel of middle.cuh multiplies them.

#ifndef COSETQ_CUDA_MIDDLE_OPERANDS_CUH_
#define COSETQ_CUDA_MIDDLE_OPERANDS_CUH_

#include "activations.cuh"
#include "middle_cut.cuh"

namespace cosetq::cuda {
namespace {

// Four integers of 16 bits as bytes, in the low bits of floats that kRound has been added to: a multiple of 2^16, and 2^7.
struct SignedBytes {
  static constexpr float kRound = (3 << 22) + (1 << 7);
  uint32_t high, low;

  __device__ __forceinline__ explicit SignedBytes(const float x[4]) {
    const uint32_t first = __byte_perm(__float_as_uint(x[0]), __float_as_uint(x[1]), 0x5140);
    const uint32_t second = __byte_perm(__float_as_uint(x[2]), __float_as_uint(x[3]), 0x5140);
    low = __byte_perm(first, second, 0x5410) ^ 0x80808080u;
    high = __byte_perm(first, second, 0x7632);
  }
};

// Makes B of the activations of a block's chunks, integers of 16 bits in the unit of their row and these chunks. A warp takes a block of
// the groups of a chunk for eight rows, then of chunks further on; a lane 4r + t the groups 8t up of row r: of each coordinate eight numbers as they lie.
template <Form kForm, int kRows, typename T>
class OperandMaker {
  static constexpr int kTiles = kRows / 8, kColumns = 2 * kRows;
  static constexpr int kStep = kMiddleWarps / (2 * kTiles);  // between chunks of a warp
  static constexpr int kVectors = sizeof(T) / 2, kAtOnce = 2 / kVectors;  // of eight numbers; chunks that are read at once

 public:
  // Does what does not depend on the activations.
  __device__ __forceinline__ OperandMaker(const PackedView& w, const T* a, int batch, const MiddleShare& share, int warp, int lane)
      : w_(w),
        chunks_(share.chunks),
        tile_(warp % kTiles),
        block_(warp / kTiles % 2),
        first_(warp / (2 * kTiles)),
        t_(lane % 4),
        row_(lane / 4) {
    const int row = tile_ * 8 + row_, group = t_ * kPanelSteps;
    end_ = row < batch ? min(chunks_, (w.groups - group + kPanelGroups - 1) / kPanelGroups - share.first_chunk) : 0;
    const T* from = a + static_cast<int64_t>(row) * w.cols + (share.first_chunk + first_) * kPanelGroups + group + 4 * block_ * w.groups;
    asm volatile("" : "+r"(end_));  // now, while there is time
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      from_[j] = from + j * w.groups;
      asm volatile("" : "+l"(from_[j]));
    }
  }

  // Raises peaks to the largest magnitudes; calls late() when the first loads are on their way.
  template <typename Late>
  __device__ __forceinline__ void Peaks(uint32_t* peaks, const Late& late) {
    if (first_ >= chunks_) late();
    for (int chunk = first_; chunk < chunks_; chunk += kAtOnce * kStep) {
      Load(chunk);
      if (chunk == first_) late();
      uint32_t peak = 0;
#pragma unroll
      for (int i = 0; i < kAtOnce * 4 * kVectors; ++i) peak = max(peak, Magnitude(v_[i / (4 * kVectors)][i / kVectors % 4][i % kVectors], T()));
      peak = max(peak, __shfl_xor_sync(0xffffffffu, peak, 1));
      peak = max(peak, __shfl_xor_sync(0xffffffffu, peak, 2));
      if (t_ == 0) atomicMax(peaks + tile_ * 8 + row_, FloatMagnitude(peak, T()));
    }
  }

  // Stores B, when peaks are those of all, and what sums lack so that the biases leave them: added to offsets [chunk][column] of all chunks
  // behind.
  __device__ __forceinline__ void Make(uint32_t operands, uint32_t offsets, const uint32_t* peaks) {
    const float scale = ScaleOf(peaks[tile_ * 8 + row_]);
    const bool again = first_ + kAtOnce * kStep < chunks_;  // else all is still there
    if (again) Turn(-((chunks_ - first_ + kAtOnce * kStep - 1) / (kAtOnce * kStep)));
    for (int chunk = first_; chunk < chunks_; chunk += kAtOnce * kStep) {
      if (again) Load(chunk);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (chunk + i * kStep < chunks_) Make(v_[i], chunk + i * kStep, scale, operands, offsets);
      }
    }
  }

 private:
  // Loads the chunks whose turn it is. Another kernel has written the rows a moment ago, so they are read past the first-level cache.
  __device__ __forceinline__ void Load(int chunk) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int k = 0; k < kVectors; ++k) {
          v_[i][j][k] = make_uint4(0, 0, 0, 0);
          if (chunk + i * kStep < end_) v_[i][j][k] = __ldcg(reinterpret_cast<const uint4*>(from_[j] + i * kStep * kPanelGroups) + k);
        }
      }
    }
    Turn(1);
  }
  __device__ __forceinline__ void Turn(int times) {
#pragma unroll
    for (int j = 0; j < 4; ++j) from_[j] += times * kAtOnce * kStep * kPanelGroups;
  }

  __device__ __forceinline__ void Make(const uint4 (&v)[4][kVectors], int chunk, float scale, uint32_t operands, uint32_t offsets) const {
    const uint32_t column = operands + (tile_ * 8 + row_) * kSliceBytes;
    const auto store = [&](int slice, int unit, int half, int of_lane, const SignedBytes& bytes) {
      const uint32_t to = column + of_lane * 4 + slice * kColumns * kSliceBytes + static_cast<uint32_t>((unit * 2 + half) ^ row_) * 16;
      StoreShared4(to, bytes.high);
      StoreShared4(to + kRows * kSliceBytes, bytes.low);
    };
    float rests[kPanelSteps];
    int high = 0, low = 0;
#pragma unroll
    for (int step = 0; step < kPanelSteps; ++step) {
      float x[4];
      rests[step] = 0;
      const GroupPlace place(kForm, t_ * kPanelSteps + step);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        x[j] = Number(v[j], step);
        rests[step] = __fmaf_rn(block_ == 0 ? w_.bytes.rest[j] : w_.bytes.rest[4 + j], x[j], rests[step]);
        x[j] = __fmaf_rn(x[j], scale, SignedBytes::kRound);
      }
      const SignedBytes bytes(x);
      store(chunk * kChunkSlices + place.step / kSliceUnits, place.step % kSliceUnits, block_, place.t, bytes);
      high = DotBytes(w_.bytes.base, bytes.high, high);
      low = DotBytes(w_.bytes.base, bytes.low, low);
      rests[step] = __fmaf_rn(rests[step], -scale, SignedBytes::kRound);
    }
    if constexpr (!IsColumns(kForm)) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        store(chunks_ * kChunkSlices + chunk / 2, chunk % 2 * 2 + block_, half, t_, SignedBytes(rests + 4 * half));
    }
#pragma unroll
    for (int other = 1; other < 4; other *= 2) {
      high += __shfl_xor_sync(0xffffffffu, high, other);
      low += __shfl_xor_sync(0xffffffffu, low, other);
    }
    if (t_ == 0) {
      for (int behind = chunk + 1; behind <= chunks_; ++behind) {
        const uint32_t to = offsets + (behind * kColumns + tile_ * 8 + row_) * 4;
        AddShared(to, -high);
        AddShared(to + kRows * 4, -low);
      }
    }
  }

  // One of eight.
  __device__ __forceinline__ static float Number(const uint4 (&v)[kVectors], int i) {
    const auto word = [](const uint4& from, int at) { return at == 0 ? from.x : at == 1 ? from.y : at == 2 ? from.z : from.w; };
    if constexpr (kVectors == 2) return __uint_as_float(word(v[i / 4], i % 4));
    const __half2 pair = AsHalves(word(v[0], i / 2));
    return i % 2 == 0 ? __low2float(pair) : __high2float(pair);
  }

  const PackedView& w_;
  int chunks_, tile_, block_, first_, t_, row_;
  int end_;           // of the chunks that the lane's row has
  const T* from_[4];  // of the next chunk, each a coordinate
  uint4 v_[kAtOnce][4][kVectors];
};

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_MIDDLE_OPERANDS_CUH_
