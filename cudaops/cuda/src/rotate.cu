#include "rotate.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "errors.h"

namespace cosetq::cuda {
namespace {

__device__ float ToFloat(float x) { return x; }
__device__ float ToFloat(__half x) { return __half2float(x); }

constexpr int kThreads = 128;

// A block per rotation block of a row: butterflies of growing stride.
template <typename T>
__global__ void RotateRows(Turn turn, const T* a, float* out) {
  __shared__ float row[schema::kMaxRotation];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * turn.block;
  const int64_t at = static_cast<int64_t>(blockIdx.y) * gridDim.x * turn.block + first;
  for (int i = threadIdx.x; i < turn.block; i += kThreads) row[i] = ToFloat(a[at + i]) * turn.factors[first + i];
  for (int half = 1; half < turn.block; half *= 2) {
    __syncthreads();
    for (int i = threadIdx.x; i < turn.block / 2; i += kThreads) {
      float* low = row + i / half * 2 * half + i % half;
      const float x = low[0], y = low[half];
      low[0] = x + y;
      low[half] = x - y;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < turn.block; i += kThreads) out[at + i] = row[i];
}

}  // namespace

void Rotate(const Turn& turn, const void* a, bool half, int64_t batch, int64_t cols, float* out, cudaStream_t stream) {
  constexpr int64_t kMost = 65535;  // of a grid
  for (int64_t first = 0; first < batch; first += kMost) {
    const dim3 grid(static_cast<unsigned>(cols / turn.block), static_cast<unsigned>(std::min(kMost, batch - first)));
    const int64_t at = first * cols;
    if (half) {
      RotateRows<<<grid, kThreads, 0, stream>>>(turn, static_cast<const __half*>(a) + at, out + at);
    } else {
      RotateRows<<<grid, kThreads, 0, stream>>>(turn, static_cast<const float*>(a) + at, out + at);
    }
    CheckLaunch("rotate activations");
  }
}

}  // namespace cosetq::cuda
