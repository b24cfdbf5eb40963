// Rotations of rows of activations by the warps of a block.

#ifndef COSETQ_CUDA_ROTATE_CUH_
#define COSETQ_CUDA_ROTATE_CUH_

#include <type_traits>

#include "activations.cuh"
#include "device.h"
#include "overlap.h"
#include "rotate.h"
#include "views.h"

namespace cosetq::cuda {

// Numbers next to each other, as they are in memory.
template <typename T>
struct alignas(16) Eight {
  T x[8];
};

namespace {

constexpr int kTurnOfLane = 8, kTurnOfWarp = 32 * kTurnOfLane;  // columns that are turned at the same time
static_assert(schema::kMaxRotation <= kTurnOfWarp && kTurnOfWarp % schema::kMaxRotation == 0);

// Whether rows at p can be read, or written, eight numbers at a time.
inline bool InEights(const void* p, int64_t cols) { return cols % kTurnOfLane == 0 && reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Numbers first ... first + 7 of a row, zeros past its end.
template <typename T>
__device__ __forceinline__ Eight<T> LoadOfRow(const T* row, int64_t first, int64_t cols, bool eights) {
  Eight<T> v = {};
  if (eights) {
    if (first < cols) v = *reinterpret_cast<const Eight<T>*>(row + first);
    return v;
  }
#pragma unroll
  for (int i = 0; i < kTurnOfLane; ++i) {
    if (first + i < cols) v.x[i] = row[first + i];
  }
  return v;
}

__device__ __forceinline__ void StoreOfRow(const Eight<float>& v, float* row, int64_t first, int64_t cols, bool eights) {
  if (eights) {
    if (first < cols) *reinterpret_cast<Eight<float>*>(row + first) = v;
    return;
  }
#pragma unroll
  for (int i = 0; i < kTurnOfLane; ++i) {
    if (first + i < cols) row[first + i] = v.x[i];
  }
}

// Turns the 256 columns of a warp, which hold whole blocks of the rotation: butterflies of strides below eight within a lane's columns, of
// larger ones between lanes.
template <typename T>
__device__ __forceinline__ Eight<float> TurnColumns(int block, const Eight<T>& a, const Eight<float>& factors) {
  const int lane = threadIdx.x % 32;
  Eight<float> v;
#pragma unroll
  for (int i = 0; i < kTurnOfLane; ++i) v.x[i] = ToFloat(a.x[i]) * factors.x[i];
#pragma unroll
  for (int stride = 1; stride < kTurnOfLane; stride *= 2) {
    if (stride >= block) break;
#pragma unroll
    for (int i = 0; i < kTurnOfLane; ++i) {
      if (i & stride) continue;
      const float x = v.x[i], y = v.x[i + stride];
      v.x[i] = x + y;
      v.x[i + stride] = x - y;
    }
  }
#pragma unroll
  for (int other = 1; other < 32; other *= 2) {
    if (other * kTurnOfLane >= block) break;
    const float sign = lane & other ? -1.0f : 1.0f;
#pragma unroll
    for (int i = 0; i < kTurnOfLane; ++i) v.x[i] = __fmaf_rn(sign, v.x[i], __shfl_xor_sync(0xffffffffu, v.x[i], other));
  }
  return v;
}

// A row of activations for the kThreads of a block that makes it ready: where it lies, or rotated in shared memory, for which there must be
// room (HasRoomToTurn).
template <bool kTurned, typename T>
using RowNumber = std::conditional_t<kTurned, float, T>;

template <bool kTurned, int kThreads, typename T>
__device__ __forceinline__ const RowNumber<kTurned, T>* RowOf(const Turn& turn, const T* row, int64_t cols) {
  if constexpr (!kTurned) {
    return row;
  } else {
    extern __shared__ __align__(16) float turned[];
    const bool whole = cols % kTurnOfLane == 0, eights = whole && reinterpret_cast<uintptr_t>(row) % 16 == 0;
    for (int64_t first = threadIdx.x / 32 * kTurnOfWarp; first < cols; first += kThreads / 32 * kTurnOfWarp) {
      const int64_t at = first + threadIdx.x % 32 * kTurnOfLane;
      StoreOfRow(TurnColumns(turn.block, LoadOfRow(row, at, cols, eights), LoadOfRow(turn.factors, at, cols, whole)), turned, at, cols, whole);
    }
    __syncthreads();
    return turned;
  }
}

// Launches such a kernel, a block for each row.
template <typename... Parameters, typename... Arguments>
void LaunchForRows(const char* what, void (*kernel)(Parameters...), int64_t rows, int threads, const Turn& turn, int64_t cols, cudaStream_t stream,
                   Arguments... arguments) {
  const size_t shared = turn.factors == nullptr ? 0 : static_cast<size_t>(cols) * sizeof(float);
  if (shared > 0) ReserveSharedMemory(kernel, kBesideTurned);
  LaunchOverlapped(what, kernel, dim3(static_cast<unsigned>(rows)), static_cast<unsigned>(threads), shared, CurrentDevice().hopper, stream, arguments...);
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ROTATE_CUH_
