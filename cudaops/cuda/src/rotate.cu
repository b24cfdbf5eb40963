#include "rotate.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "activations.cuh"
#include "device.h"
#include "overlap.h"

namespace cosetq::cuda {
namespace {

constexpr int kWarps = 4, kOfLane = 8, kOfWarp = 32 * kOfLane;  // columns
static_assert(schema::kMaxRotation <= kOfWarp && kOfWarp % schema::kMaxRotation == 0);

template <typename T>
struct alignas(16) Numbers {
  T x[kOfLane];
};

// Numbers first ... first + 7 of a row, zeros past its end. Whole: they are all there or none is, and aligned.
template <typename T>
__device__ __forceinline__ Numbers<T> Load(const T* row, int64_t first, int64_t cols, bool whole) {
  Numbers<T> v = {};
  if (whole) {
    if (first < cols) v = *reinterpret_cast<const Numbers<T>*>(row + first);
    return v;
  }
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    if (first + i < cols) v.x[i] = row[first + i];
  }
  return v;
}

// A warp turns 256 columns of a row, which hold whole rotation blocks: butterflies of strides below eight within a lane's columns, of larger
// ones between lanes.
template <typename T>
__global__ void __launch_bounds__(kWarps * 32) RotateRows(Turn turn, const T* a, int64_t cols, float* out, bool whole_in, bool whole_out) {
  LetNextKernelBegin();
  const int lane = threadIdx.x % 32;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32) * kOfWarp + lane * kOfLane;
  const Numbers<float> factors = Load(turn.factors, first, cols, cols % kOfLane == 0);
  WaitForKernelsAhead();
  const Numbers<T> in = Load(a + blockIdx.y * cols, first, cols, whole_in);
  Numbers<float> v;
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) v.x[i] = ToFloat(in.x[i]) * factors.x[i];
#pragma unroll
  for (int stride = 1; stride < kOfLane; stride *= 2) {
    if (stride >= turn.block) break;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      if (i & stride) continue;
      const float x = v.x[i], y = v.x[i + stride];
      v.x[i] = x + y;
      v.x[i + stride] = x - y;
    }
  }
#pragma unroll
  for (int other = 1; other < 32; other *= 2) {
    if (other * kOfLane >= turn.block) break;
    const float sign = lane & other ? -1.0f : 1.0f;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) v.x[i] = __fmaf_rn(sign, v.x[i], __shfl_xor_sync(0xffffffffu, v.x[i], other));
  }
  float* to = out + blockIdx.y * cols + first;
  if (whole_out) {
    if (first < cols) *reinterpret_cast<Numbers<float>*>(to) = v;
    return;
  }
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    if (first + i < cols) to[i] = v.x[i];
  }
}

template <typename T>
void Launch(const Turn& turn, const T* a, int64_t batch, int64_t cols, float* out, cudaStream_t stream) {
  constexpr int64_t kMost = 65535;  // of a grid
  const auto whole = [&](const void* p) { return cols % kOfLane == 0 && reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  for (int64_t row = 0; row < batch; row += kMost) {
    const dim3 grid(static_cast<unsigned>((cols + kWarps * kOfWarp - 1) / (kWarps * kOfWarp)), static_cast<unsigned>(std::min(kMost, batch - row)));
    LaunchOverlapped("rotate activations", RotateRows<T>, grid, kWarps * 32, 0, CurrentDevice().hopper, stream, turn, a + row * cols, cols,
                     out + row * cols, whole(a), whole(out));
  }
}

}  // namespace

void Rotate(const Turn& turn, const void* a, bool half, int64_t batch, int64_t cols, float* out, cudaStream_t stream) {
  half ? Launch(turn, static_cast<const __half*>(a), batch, cols, out, stream) : Launch(turn, static_cast<const float*>(a), batch, cols, out, stream);
}

}  // namespace cosetq::cuda
