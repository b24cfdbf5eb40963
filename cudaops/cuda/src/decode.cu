#include "decode.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "device.h"
#include "errors.h"
#include "general.cuh"
#include "lookup.cuh"

namespace cosetq::cuda {
namespace {

__device__ void Store(float* to, float value) { *to = value; }
__device__ void Store(__half* to, float value) { *to = __float2half_rn(value); }

constexpr int kThreads = 256;

template <typename T>
__global__ void DecodeGeneral(GeneralView w, int64_t first, T* out) {
  const int64_t group = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x, row = blockIdx.x + first;
  if (group >= w.groups) return;
  float x[kGroup];
  DecodeGroup(w, row, group, x);
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    const int64_t column = group + w.groups * j;
    if (column < w.cols) Store(out + blockIdx.x * w.cols + column, w.scales[row] * x[j]);
  }
}

// Where a warp gathers the weights of a panel, [row][coordinate][group], so that they leave in runs of 32 columns. Rows are padded
// so that eight of them lie in different banks.
constexpr int kStageRow = kGroup * kPanelGroups + 8;

// Copies a panel from its stage to count rows of out, whose columns are aligned to 16 bytes.
__device__ __forceinline__ void CopyPanel(const PackedView& w, const __half* stage, int lane, int chunk, int count,
                                          __half* out) {
  // Eight groups are 16 bytes.
  for (int i = lane; i < kPanelRows * kGroup * 4; i += 32) {
    const int part = i % 4, j = i / 4 % kGroup, row = i / 4 / kGroup;
    const int group = chunk * kPanelGroups + part * 8;
    if (row >= count || group >= w.groups) continue;
    *reinterpret_cast<uint4*>(out + static_cast<int64_t>(row) * w.cols + group + static_cast<int64_t>(w.groups) * j) =
        *reinterpret_cast<const uint4*>(stage + row * kStageRow + j * kPanelGroups + part * 8);
  }
}

// A warp takes one panel after the other of the tiles first ... last - 1; out begins with the first of them.
template <Form kForm, bool kStaged, typename T>
__global__ void __launch_bounds__(kThreads) DecodePacked(PackedView w, int first, int last, T* out) {
  extern __shared__ __align__(128) uint32_t table[];
  FillTable(w, table, threadIdx.x, kThreads);
  __syncthreads();
  const int lane = threadIdx.x % 32, warps = gridDim.x * (kThreads / 32);
  T* stage = reinterpret_cast<T*>(table + TableWords(kForm)) + threadIdx.x / 32 * kPanelRows * kStageRow;
  const uint32_t lane_table = static_cast<uint32_t>(__cvta_generic_to_shared(table)) + lane * 4;
  const int64_t panels = static_cast<int64_t>(last - first) * w.chunks;
  for (int64_t i = blockIdx.x * (kThreads / 32) + threadIdx.x / 32; i < panels; i += warps) {
    const int tile = static_cast<int>(i / w.chunks), chunk = static_cast<int>(i % w.chunks);
    const unsigned char* panel = w.panels + (static_cast<int64_t>(first) * w.chunks + i) * PanelBytes(kForm);
    PanelCodes<kForm> codes;
#pragma unroll
    for (int v = 0; v < PanelVectors(kForm); ++v) {
      const uint4 vector = __ldg(reinterpret_cast<const uint4*>(panel) + v * 32 + lane);
      codes.words[4 * v] = vector.x;
      codes.words[4 * v + 1] = vector.y;
      codes.words[4 * v + 2] = vector.z;
      codes.words[4 * v + 3] = vector.w;
    }
    uint32_t gains[2][2];
    ExpandGains(w.gains, __ldg(reinterpret_cast<const uint32_t*>(panel + PanelVectors(kForm) * 512) + lane), gains);
    const int row = lane / 4, rows = min(kPanelRows, w.rows - (first + tile) * kPanelRows);
    const float* tile_scales = w.scales + (first + tile) * kPanelRows;
    const float scales[2] = {tile_scales[row], tile_scales[row + 8]};
    T* tile_out = out + static_cast<int64_t>(tile) * kPanelRows * w.cols;
    const auto store = [&](int step, const uint32_t a[4]) {
      const int within = step * kStepGroups + lane % 4, group = chunk * kPanelGroups + within;
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int half = r % 2, block = r / 2, n = row + 8 * half;
        const float gain = static_cast<float>(gains[half][step / 4] >> (step % 4 * 8) & 255);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int coordinate = 4 * block + j;
          const float point = static_cast<float>(a[r] >> (8 * j) & 255) - gain * static_cast<float>(w.bias);  // exact
          const float value = scales[half] * (point - gain * w.centre[coordinate]);
          if constexpr (kStaged) {
            Store(stage + n * kStageRow + coordinate * kPanelGroups + within, value);
          } else {
            const int64_t column = group + static_cast<int64_t>(w.groups) * coordinate;
            if (n < rows && group < w.groups && column < w.cols)
              Store(tile_out + static_cast<int64_t>(n) * w.cols + column, value);
          }
        }
      }
    };
    uint32_t a[4];
#define COSETQ_STEP(step)                                        \
  DecodeStep<kForm, step>(codes, lane_table, w.shift, gains, a); \
  store(step, a);
    COSETQ_STEP(0)
    COSETQ_STEP(1)
    COSETQ_STEP(2)
    COSETQ_STEP(3)
    COSETQ_STEP(4)
    COSETQ_STEP(5)
    COSETQ_STEP(6)
    COSETQ_STEP(7)
#undef COSETQ_STEP
    if constexpr (kStaged) {
      __syncwarp();
      CopyPanel(w, stage, lane, chunk, rows, tile_out);
      __syncwarp();
    }
  }
}

template <Form kForm, bool kStaged, typename T>
void LaunchForm(const PackedView& w, int64_t row, int64_t count, T* out, cudaStream_t stream) {
  const int first = static_cast<int>(row / kPanelRows), last = static_cast<int>((row + count + kPanelRows - 1) / kPanelRows);
  constexpr int kStage = kStaged ? kThreads / 32 * kPanelRows * kStageRow * static_cast<int>(sizeof(T)) : 0;
  constexpr int kShared = TableWords(kForm) * 4 + kStage;
  const auto kernel = DecodePacked<kForm, kStaged, T>;
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared), "reserve shared memory");
  const int64_t panels = static_cast<int64_t>(last - first) * w.chunks;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>((panels + 7) / 8, 2 * CurrentDevice().processors));
  kernel<<<blocks, kThreads, kShared, stream>>>(w, first, last, out);
  CheckLaunch("decode weights");
}

template <bool kStaged, typename T>
void LaunchPacked(const PackedView& w, int64_t first, int64_t count, T* out, cudaStream_t stream) {
  switch (w.form) {
    case Form::kOneByte:
      return LaunchForm<Form::kOneByte, kStaged>(w, first, count, out, stream);
    case Form::kTwoByte:
      return LaunchForm<Form::kTwoByte, kStaged>(w, first, count, out, stream);
    default:
      return LaunchForm<Form::kNibbleByte, kStaged>(w, first, count, out, stream);
  }
}

template <typename T>
void LaunchGeneral(const GeneralView& w, int64_t first, int64_t count, T* out, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>((w.groups + kThreads - 1) / kThreads));
  DecodeGeneral<<<grid, kThreads, 0, stream>>>(w, first, out);
  CheckLaunch("decode weights");
}

}  // namespace

void Decode(const PackedView& w, int64_t first, int64_t count, void* out, bool half, cudaStream_t stream) {
  if (!half) return LaunchPacked<false>(w, first, count, static_cast<float*>(out), stream);
  // Runs of eight groups are aligned if the coordinates' distance is.
  const bool aligned = w.groups % 8 == 0 && w.groups * kGroup == w.cols && reinterpret_cast<uintptr_t>(out) % 16 == 0;
  aligned ? LaunchPacked<true>(w, first, count, static_cast<__half*>(out), stream)
          : LaunchPacked<false>(w, first, count, static_cast<__half*>(out), stream);
}

void Decode(const GeneralView& w, int64_t first, int64_t count, void* out, bool half, cudaStream_t stream) {
  half ? LaunchGeneral(w, first, count, static_cast<__half*>(out), stream)
       : LaunchGeneral(w, first, count, static_cast<float*>(out), stream);
}

}  // namespace cosetq::cuda
