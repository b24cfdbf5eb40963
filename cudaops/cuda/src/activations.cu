#include "activations.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "device.h"
#include "overlap.h"

namespace cosetq::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kHeld = 4;  // groups that a thread keeps in registers between the two passes
constexpr float kLargest = 32639;

__device__ float ToFloat(float x) { return x; }
__device__ float ToFloat(__half x) { return __half2float(x); }

// The low byte of x, signed, and what is left above it.
__device__ int SplitLow(int* x) {
  const int low = static_cast<signed char>(*x);
  *x = (*x - low) >> 8;
  return low;
}

template <typename T>
__device__ void LoadGroup(const PackedView& w, const T* a, int group, float x[kGroup]) {
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    const int column = group + w.groups * j;
    x[j] = group < w.groups && column < w.cols ? ToFloat(a[column]) : 0.0f;
  }
}

__device__ void StoreGroup(const PackedView& w, const float x[kGroup], float scale, int group, int row, int room,
                           unsigned char* chunks) {
  const int data_tiles = room / 4;
  const int tile = room <= 4 ? 0 : row / 8 * 2;
  const int column = row % (room <= 4 ? 4 : 8);
  // The place of the low bytes.
  const int low_tile = room <= 4 ? 0 : tile + 1, low_column = room <= 4 ? column + 4 : column;
  uint32_t high[2] = {}, low[2] = {};
  int sum = 0;
  float inner = 0;
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    int q = __float2int_rn(x[j] * scale);
    sum += q;
    inner += w.centre[j] * static_cast<float>(q);
    const int byte = SplitLow(&q);
    low[j / 4] |= (static_cast<uint32_t>(byte) & 255) << (j % 4 * 8);
    high[j / 4] |= (static_cast<uint32_t>(q) & 255) << (j % 4 * 8);
  }
  const int step = group % kPanelGroups / kStepGroups, t = group % kStepGroups;
  unsigned char* chunk = chunks + static_cast<size_t>(group / kPanelGroups) * ChunkBytes(room);
  const auto data = [&](int tile_, int column_) {
    return reinterpret_cast<uint2*>(chunk + ((step / 2 * data_tiles + tile_) * 32 + column_ * 4 + t) * 16 +
                                    step % 2 * 8);
  };
  *data(tile, column) = make_uint2(high[0], high[1]);
  *data(low_tile, low_column) = make_uint2(low[0], low[1]);

  int correction = -(w.bias * sum + __float2int_rn(inner));
  const int bottom = SplitLow(&correction);
  const int middle = SplitLow(&correction);
  unsigned char* corrections = chunk + 4 * data_tiles * 512;
  const auto place = [&](int tile_, int column_) -> unsigned char& {
    return corrections[(tile_ * 32 + column_ * 4 + t) * 8 + step];
  };
  place(low_tile, low_column) = static_cast<unsigned char>(bottom);
  place(tile, column) = static_cast<unsigned char>(middle);
  place(data_tiles + row / 8, column) = static_cast<unsigned char>(correction);
  // The other half of the only top tile.
  if (room <= 4) place(data_tiles, low_column) = 0;
}

// Rotates a row in shared memory, block by block: butterflies of growing stride. All threads take part.
__device__ void RotateShared(int block, int cols, float* row) {
  for (int half = 1; half < block; half *= 2) {
    __syncthreads();
    for (int i = threadIdx.x; i < cols / 2; i += blockDim.x) {
      float* low = row + i / half * 2 * half + i % half;
      const float x = low[0], y = low[half];
      low[0] = x + y;
      low[half] = x - y;
    }
  }
  __syncthreads();
}

template <typename T>
__device__ void LoadShared(const Turn& turn, const T* from, int cols, float* row) {
  for (int i = threadIdx.x; i < cols; i += blockDim.x) row[i] = ToFloat(from[i]) * turn.factors[i];
}

// A block per rotation block of a row.
template <typename T>
__global__ void RotateRows(Turn turn, const T* a, float* out) {
  extern __shared__ float rotated[];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * turn.block;
  const int64_t at = static_cast<int64_t>(blockIdx.y) * gridDim.x * turn.block + first;
  turn.factors += first;
  LoadShared(turn, a + at, turn.block, rotated);
  RotateShared(turn.block, turn.block, rotated);
  for (int i = threadIdx.x; i < turn.block; i += blockDim.x) out[at + i] = rotated[i];
}

// The largest of all threads' values, in every thread.
__device__ uint32_t BlockMax(uint32_t value) {
  __shared__ uint32_t of_warp[kThreads / 32];
  value = __reduce_max_sync(0xffffffffu, value);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  const uint32_t mine = threadIdx.x % 32 < kThreads / 32 ? of_warp[threadIdx.x % 32] : 0;
  return __reduce_max_sync(0xffffffffu, mine);
}

// One row of the fragments; those past the batch become zero.
template <typename T>
__device__ void FragmentRow(const PackedView& w, const T* from, int row, int batch, int room, const Fragments& out) {
  const int groups = w.chunks * kPanelGroups;
  float held[kHeld][kGroup];
  uint32_t largest = 0;  // the bits of a magnitude are ordered like it, NaN above infinity
  const auto take = [&](const float x[kGroup]) {
#pragma unroll
    for (int j = 0; j < kGroup; ++j) largest = max(largest, __float_as_uint(x[j]) & 0x7fffffffu);
  };
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int group = threadIdx.x + i * kThreads;
    if (row < batch) {
      LoadGroup(w, from, group, held[i]);
    } else {
#pragma unroll
      for (int j = 0; j < kGroup; ++j) held[i][j] = 0;
    }
    take(held[i]);
  }
  for (int group = threadIdx.x + kHeld * kThreads; group < groups && row < batch; group += kThreads) {
    float x[kGroup];
    LoadGroup(w, from, group, x);
    take(x);
  }
  const uint32_t bits = BlockMax(largest);
  const bool finite = bits < 0x7f800000u;
  const float peak = finite ? __uint_as_float(bits) : 0;
  // A peak so small that the factor overflows is as good as 0.
  float scale = peak > 0 ? kLargest / peak : 0;
  if (isinf(scale)) scale = 0;
  if (threadIdx.x == 0) out.steps[row] = finite ? peak / kLargest : __int_as_float(0x7fffffff);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int group = threadIdx.x + i * kThreads;
    if (group >= groups) break;
    if (!finite) {
#pragma unroll
      for (int j = 0; j < kGroup; ++j) held[i][j] = 0;
    }
    StoreGroup(w, held[i], scale, group, row, room, out.chunks);
  }
  for (int group = threadIdx.x + kHeld * kThreads; group < groups; group += kThreads) {
    float x[kGroup] = {};
    if (row < batch && finite) LoadGroup(w, from, group, x);
    StoreGroup(w, x, scale, group, row, room, out.chunks);
  }
}

// A block per row of the fragments.
template <typename T>
__global__ void __launch_bounds__(kThreads) FragmentRows(PackedView w, Turn turn, const T* a, int batch, int room,
                                                         Fragments out) {
  LetNextKernelBegin();
  WaitForKernelsAhead();
  const int row = blockIdx.x;
  const T* from = a + static_cast<int64_t>(row) * w.cols;
  if (turn.factors == nullptr || row >= batch) return FragmentRow(w, from, row, batch, room, out);
  extern __shared__ float rotated[];
  LoadShared(turn, from, w.cols, rotated);
  RotateShared(turn.block, w.cols, rotated);
  FragmentRow(w, rotated, row, batch, room, out);
}

template <typename T>
void LaunchFragment(const PackedView& w, const Turn& turn, const T* a, int batch, int room, const Fragments& out,
                    cudaStream_t stream) {
  const size_t shared = turn.factors == nullptr ? 0 : static_cast<size_t>(w.cols) * sizeof(float);
  if (shared > 48 << 10) {
    Check(cudaFuncSetAttribute(FragmentRows<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
          "reserve shared memory");
  }
  LaunchOverlapped("prepare activations", FragmentRows<T>, dim3(static_cast<unsigned>(room)), dim3(kThreads), shared, 1,
                   CurrentDevice().hopper, stream, w, turn, a, batch, room, out);
}

}  // namespace

void Fragment(const PackedView& w, const Turn& turn, const void* a, bool half, int batch, int room, const Fragments& out,
              cudaStream_t stream) {
  if (half) {
    LaunchFragment(w, turn, static_cast<const __half*>(a), batch, room, out, stream);
  } else {
    LaunchFragment(w, turn, static_cast<const float*>(a), batch, room, out, stream);
  }
}

void Rotate(const Turn& turn, const void* a, bool half, int64_t batch, int64_t cols, float* out, cudaStream_t stream) {
  constexpr int64_t kMost = 65535;  // of a grid
  for (int64_t first = 0; first < batch; first += kMost) {
    const dim3 grid(static_cast<unsigned>(cols / turn.block), static_cast<unsigned>(std::min(kMost, batch - first)));
    const auto shared = static_cast<size_t>(turn.block) * sizeof(float);
    const int64_t at = first * cols;
    if (half) {
      RotateRows<<<grid, 128, shared, stream>>>(turn, static_cast<const __half*>(a) + at, out + at);
    } else {
      RotateRows<<<grid, 128, shared, stream>>>(turn, static_cast<const float*>(a) + at, out + at);
    }
    CheckLaunch("rotate activations");
  }
}

}  // namespace cosetq::cuda
