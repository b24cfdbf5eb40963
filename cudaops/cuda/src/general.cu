#include "general.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "errors.h"
#include "general.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kRows = 64;   // of the weight, one per thread
constexpr int kSlices = 8;  // of the groups, per row
constexpr int kBatch = 8;   // rows of activations that a decoded group serves

__device__ float Load(const float* p) { return *p; }
__device__ float Load(const __half* p) { return __half2float(*p); }
__device__ void Store(float* to, float value) { *to = value; }
__device__ void Store(__half* to, float value) { *to = __float2half_rn(value); }

template <typename A, typename Y>
__global__ void __launch_bounds__(kRows* kSlices) General(GeneralView w, const A* a, int64_t batch, Y* y) {
  __shared__ float parts[kSlices][kBatch][kRows];
  const int r = threadIdx.x, slice = threadIdx.y;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + r;
  for (int64_t first = static_cast<int64_t>(blockIdx.y) * kBatch; first < batch; first += gridDim.y * kBatch) {
    const int count = static_cast<int>(min(static_cast<int64_t>(kBatch), batch - first));
    float sums[kBatch] = {};
    for (int64_t group = slice; row < w.rows && group < w.groups; group += kSlices) {
      float x[kGroup];
      DecodeGroup(w, row, group, x);
#pragma unroll
      for (int j = 0; j < kGroup; ++j) {
        const int64_t column = group + w.groups * j;
        if (column >= w.cols) break;
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          if (b < count) sums[b] += x[j] * Load(a + (first + b) * w.cols + column);
        }
      }
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) parts[slice][b][r] = sums[b];
    __syncthreads();
    for (int b = slice; b < count; b += kSlices) {
      if (row >= w.rows) break;
      float sum = 0;
      for (int s = 0; s < kSlices; ++s) sum += parts[s][b][r];
      Store(y + (first + b) * w.rows + row, sum * w.scales[row] + (w.offsets != nullptr ? w.offsets[row] : 0.0f));
    }
    __syncthreads();
  }
}

template <typename A, typename Y>
void Launch(const GeneralView& w, const A* a, int64_t batch, Y* y, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((w.rows + kRows - 1) / kRows),
                  static_cast<unsigned>(std::min<int64_t>((batch + kBatch - 1) / kBatch, 1 << 12)));
  General<<<grid, dim3(kRows, kSlices), 0, stream>>>(w, a, batch, y);
  CheckLaunch("multiply");
}

template <typename A>
void LaunchTo(const GeneralView& w, const A* a, int64_t batch, void* y, bool half_y, cudaStream_t stream) {
  half_y ? Launch(w, a, batch, static_cast<__half*>(y), stream) : Launch(w, a, batch, static_cast<float*>(y), stream);
}

}  // namespace

void GeneralLinear(const GeneralView& w, const void* a, bool half_a, int64_t batch, void* y, bool half_y,
                   cudaStream_t stream) {
  half_a ? LaunchTo(w, static_cast<const __half*>(a), batch, y, half_y, stream)
         : LaunchTo(w, static_cast<const float*>(a), batch, y, half_y, stream);
}

}  // namespace cosetq::cuda
