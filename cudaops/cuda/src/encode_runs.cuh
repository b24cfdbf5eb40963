// Blocks of one column in one thread: the code is a run of integers, and a block that overloads is coded as the end of the run that is
// nearer (cpu/encode_columns.h). Compile without contraction.

#ifndef COSETQ_CUDA_ENCODE_RUNS_CUH_
#define COSETQ_CUDA_ENCODE_RUNS_CUH_

#include "encode_block.cuh"

namespace cosetq::cuda {

// A shape beside those of encode_block.cuh.
constexpr int kRunShape = -1;

// The classes of a group, four bits for each column.
constexpr int kRunBits = 4;

// The integer of the run nearest to y.
__device__ __forceinline__ float NearestInRun(const EncoderView& codec, float y, bool* outside) {
  const float nearest = y + kRound - kRound;
  *outside = *outside || nearest < codec.run_low || nearest > codec.run_high;
  return fminf(fmaxf(nearest, codec.run_low), codec.run_high);
}

__device__ __forceinline__ uint32_t RunClass(const EncoderView& codec, float v, int column) {
  return (__float_as_uint(v + kRound) & codec.level[0].mask) << (kRunBits * column);
}

__device__ __forceinline__ void StoreRuns(uint32_t classes, uint16_t* indices) {
  auto* out = reinterpret_cast<uint32_t*>(indices);
  constexpr uint32_t kClass = (1 << kRunBits) - 1;
#pragma unroll
  for (int i = 0; i < schema::kGroup / 2; ++i) {
    const uint32_t two = classes >> (2 * kRunBits * i);
    out[i] = (two & kClass) | (two >> kRunBits & kClass) << 16;
  }
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ENCODE_RUNS_CUH_
