#include "wide.h"

#include <cuda_fp16.h>

#include "activations.cuh"
#include "wide.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ uint32_t Pack(float x, float y) {
  const __half2 halves = __floats2half2_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&halves);
}

// Rounds four numbers to bytes.
__device__ __forceinline__ uint32_t PackBytes(const float x[4], float scale) {
  uint32_t bytes = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) bytes |= (static_cast<uint32_t>(__float2int_rn(x[j] * scale)) & 255) << (8 * j);
  return bytes;
}

// A block per row of activations.
template <bool kBytes, typename T>
__global__ void __launch_bounds__(kThreads) PrepareWide(const __grid_constant__ PackedView w, const T* a, int columns,
                                                        WideActivations out) {
  __shared__ uint32_t peak;
  __shared__ int32_t sum;
  LetNextKernelBegin();
  if (threadIdx.x == 0) peak = 0, sum = 0;
  __syncthreads();
  WaitForKernelsAhead();
  const int row = blockIdx.x, column = row % columns;
  const T* from = a + static_cast<int64_t>(row) * w.cols;
  // Two neighbouring groups at once, where their columns are neighbours as well.
  const bool paired = w.groups % 2 == 0 && w.groups * kGroup == w.cols && reinterpret_cast<uintptr_t>(a) % (2 * sizeof(T)) == 0;
  const auto load = [&](int group, float x[2][kGroup]) {
    struct alignas(2 * sizeof(T)) Pair {
      T first, second;
    };
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      const int at = group + w.groups * j;
      if (paired && group < w.groups) {
        const Pair pair = *reinterpret_cast<const Pair*>(from + at);
        x[0][j] = ToFloat(pair.first);
        x[1][j] = ToFloat(pair.second);
      } else {
        x[0][j] = group < w.groups && at < w.cols ? ToFloat(from[at]) : 0.0f;
        x[1][j] = group + 1 < w.groups && at + 1 < w.cols ? ToFloat(from[at + 1]) : 0.0f;
      }
    }
  };
  float scale = 1, step = 1;
  if (kBytes || sizeof(T) == 4) {
    const uint32_t largest = __reduce_max_sync(0xffffffffu, PeakOf(from, w.cols, threadIdx.x, kThreads));
    if (threadIdx.x % 32 == 0) atomicMax(&peak, largest);
    __syncthreads();
    if (kBytes) {
      step = __uint_as_float(peak) / 127;
      scale = 1 / step;
      if (!(scale > 0 && scale < INFINITY)) scale = 0;
    } else {
      // A power of two that leaves room above and below.
      const int exponent = min(max(static_cast<int>(peak >> 23) - 10, 1), 253);
      step = __uint_as_float(static_cast<uint32_t>(exponent) << 23);
      scale = __uint_as_float(static_cast<uint32_t>(254 - exponent) << 23);
    }
    if (peak >= 0x7f800000u) step = __int_as_float(0x7fffffff), scale = 0;
  }
  const int corrections = CorrectionSlices(w.chunks, kBytes), slices = AllSlices(w.chunks, kBytes);
  unsigned char* to = out.slices + static_cast<int64_t>(row / columns) * slices * columns * kSliceBytes + column * kSliceBytes;
  const auto place = [&](int slice, int piece) {
    return to + static_cast<int64_t>(slice) * columns * kSliceBytes + (piece ^ column % 8) * 16;
  };
  int32_t added = 0;
  for (int group = 2 * threadIdx.x; group < w.chunks * kPanelGroups; group += 2 * kThreads) {
    float x[2][kGroup];
    load(group, x);
    const int chunk = group / kPanelGroups, s = group % kPanelGroups / kStepGroups, t = group % kStepGroups;
    if (kBytes) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        float inner = 0;
#pragma unroll
        for (int j = 0; j < kGroup; ++j) {
          if (scale == 0) x[k][j] = 0;
          inner += w.bytes.rest[j] * x[k][j];
          added += static_cast<int>(w.bytes.base >> (j % 4 * 8) & 255) * __float2int_rn(x[k][j] * scale);
        }
        place(chunk / 4, chunk % 4 * 2 + s / 4)[4 * (t + k) + s % 4] =
            static_cast<unsigned char>(__float2int_rn(-inner * scale));
      }
#pragma unroll
      for (int block = 0; block < 2; ++block)
        *reinterpret_cast<uint2*>(place(corrections + chunk * 2 + s / 4, s % 4 * 2 + block) + 4 * t) =
            make_uint2(PackBytes(x[0] + 4 * block, scale), PackBytes(x[1] + 4 * block, scale));
    } else {
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {  // of coordinates
        const int unit = 2 * s + pair / 2;
        *reinterpret_cast<uint2*>(place(chunk * 4 + unit / 4, unit % 4 * 2 + pair % 2) + 4 * t) =
            make_uint2(Pack(x[0][2 * pair] * scale, x[0][2 * pair + 1] * scale),
                       Pack(x[1][2 * pair] * scale, x[1][2 * pair + 1] * scale));
      }
    }
  }
  if (kBytes) {
    added = __reduce_add_sync(0xffffffffu, added);
    if (threadIdx.x % 32 == 0) atomicAdd(&sum, added);
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    out.steps[row] = step;
    if (kBytes) out.sums[row] = sum;
  }
}

int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Rows of activations of a block: as few waves of blocks as may be, and wide ones rather than narrow ones.
int ColumnsOf(const PackedView& w, int64_t batch) {
  if (batch <= 128) return 128;
  const int64_t tiles = (w.tiles + kWideWarps - 1) / kWideWarps, processors = CurrentDevice().processors;
  const auto waves = [&](int64_t columns) { return (tiles * ((batch + columns - 1) / columns) + processors - 1) / processors; };
  return 2 * waves(256) <= waves(128) ? 256 : 128;
}

template <bool kBytes>
void Prepare(const PackedView& w, const void* a, bool half_a, int64_t batch, int columns, const WideActivations& x,
             cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(batch));
  if (half_a) {
    LaunchOverlapped("prepare activations", PrepareWide<kBytes, __half>, grid, kThreads, 0, true, stream, w,
                     static_cast<const __half*>(a), columns, x);
  } else {
    LaunchOverlapped("prepare activations", PrepareWide<kBytes, float>, grid, kThreads, 0, true, stream, w,
                     static_cast<const float*>(a), columns, x);
  }
}

}  // namespace

size_t WideWorkspace(const PackedView& w, int64_t batch, bool bytes) {
  const int64_t rows = RoundUp(batch, 256);
  return static_cast<size_t>(rows * AllSlices(w.chunks, bytes) * kSliceBytes + 8 * rows);
}

void WideLinear(const PackedView& w, const void* a, bool half_a, int64_t batch, bool bytes, void* y, bool half_y,
                void* workspace, cudaStream_t stream) {
  const int columns = ColumnsOf(w, batch);
  const int64_t rows = RoundUp(batch, 256);
  WideActivations x;
  x.slices = static_cast<unsigned char*>(workspace);
  x.steps = reinterpret_cast<float*>(x.slices + rows * AllSlices(w.chunks, bytes) * kSliceBytes);
  x.sums = reinterpret_cast<int32_t*>(x.steps + rows);
  bytes ? Prepare<true>(w, a, half_a, batch, columns, x, stream) : Prepare<false>(w, a, half_a, batch, columns, x, stream);
  const auto multiply = bytes ? WideBytes : WideHalves;
  multiply(w, x, columns, static_cast<int>(batch), y, half_y, stream);
}

}  // namespace cosetq::cuda
