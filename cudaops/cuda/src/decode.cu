#include "decode.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "column_halves.cuh"
#include "device.h"
#include "errors.h"
#include "general.cuh"
#include "operands.cuh"
#include "overlap.h"

namespace cosetq::cuda {
namespace {

__device__ void Store(float* to, float value) { *to = value; }
__device__ void Store(__half* to, float value) { *to = __float2half_rn(value); }

constexpr int kThreads = 256;

// Numbers 1024 + byte.
template <int kFirst, int kSecond>
__device__ __forceinline__ __half2 FromBytes(uint32_t bytes) {
  return AsHalves(__byte_perm(bytes, 0x64646464, 0x4040 | kFirst | kSecond << 8));
}

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

// The panels of a warp: one after the other of the tiles first ... last - 1.
template <Form kForm>
struct Panels {
  const PackedView& w;
  int first, lane;
  PanelCodes<kForm> codes;
  uint32_t packed_gains;
  int tile, chunk;

  __device__ __forceinline__ void Load(int64_t i) {
    tile = static_cast<int>(i / w.chunks), chunk = static_cast<int>(i % w.chunks);
    const unsigned char* panel = TilePanels(w, first + tile)[chunk];
#pragma unroll
    for (int v = 0; v < PanelVectors(kForm); ++v) {
      const uint4 vector = __ldg(reinterpret_cast<const uint4*>(panel) + v * 32 + lane);
      codes.words[4 * v] = vector.x;
      codes.words[4 * v + 1] = vector.y;
      codes.words[4 * v + 2] = vector.z;
      codes.words[4 * v + 3] = vector.w;
    }
    packed_gains = __ldg(reinterpret_cast<const uint32_t*>(panel + PanelVectors(kForm) * 512) + lane);
  }
};

// The weights of a lane in a panel, in float16: of two rows and each coordinate eight groups that lie next to each other in the matrix.
struct Runs {
  uint32_t of[2][kGroup][kPanelSteps / 2];

  __device__ __forceinline__ void Set(int half, int coordinate, int step, __half x) {
    const uint32_t bits = __half_as_ushort(x);
    uint32_t& word = of[half][coordinate][step / 2];
    word = step % 2 == 0 ? bits : word | bits << 16;
  }
};

// out begins with the first row of tile first. Aligned: float16, and runs of eight groups to 16 bytes.
template <Form kForm, bool kAligned, typename T>
__global__ void __launch_bounds__(kThreads, 2) DecodePacked(const __grid_constant__ PackedView w, int first, int last, T* out) {
  LetNextKernelBegin();
  extern __shared__ __align__(128) uint32_t table[];
  const int lane = threadIdx.x % 32, warps = gridDim.x * (kThreads / 32), row = lane / 4;
  const uint32_t lane_table = static_cast<uint32_t>(__cvta_generic_to_shared(table)) + lane * 4, base = w.bytes.base;
  const __half2 zero[2] = {FromBytes<0, 1>(base), FromBytes<2, 3>(base)};
  const int64_t count = static_cast<int64_t>(last - first) * w.chunks;
  const Table<kForm, kThreads> codebook(w);
  int64_t i = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  Panels<kForm> next{w, first, lane, {}, 0, 0, 0};
  if (i < count) next.Load(i);
  codebook.Store(table);
  __syncthreads();
  WaitForKernelsAhead();
  for (; i < count; i += warps) {
    const Panels<kForm> panel = next;
    if (i + warps < count) next.Load(i + warps);
    uint32_t gains[2][2];
    ExpandGains(w.bytes.gains, panel.packed_gains, gains);
    const int rows = min(kPanelRows, w.rows - (first + panel.tile) * kPanelRows);
    const float* scales = w.scales + (first + panel.tile) * kPanelRows + row;
    T* tile_out = out + static_cast<int64_t>(panel.tile) * kPanelRows * w.cols;
    const float row_scales[2] = {scales[0], scales[8]};
    if constexpr (kAligned) {
      Runs runs;
      ForEachStep<kForm>(panel.codes, lane_table, gains, w.bytes, [&](int step, const uint32_t a[4]) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const int half = r % 2, block = r / 2;
          const float gain = static_cast<float>(gains[half][step / 4] >> (step % 4 * 8) & 255);
          const float2 points[2] = {__half22float2(__hsub2(FromBytes<0, 1>(a[r]), zero[0])),  // exact
                                    __half22float2(__hsub2(FromBytes<2, 3>(a[r]), zero[1]))};
#pragma unroll
          for (int pair = 0; pair < 2; ++pair) {
            const int coordinate = 4 * block + 2 * pair;
            const float* c = w.bytes.rest + coordinate;
            const __half2 values = __floats2half2_rn(row_scales[half] * (points[pair].x - gain * c[0]),
                                                     row_scales[half] * (points[pair].y - gain * c[1]));
            runs.Set(half, coordinate, step, __low2half(values));
            runs.Set(half, coordinate + 1, step, __high2half(values));
          }
        }
      });
      const int group = panel.chunk * kPanelGroups + GroupOf(kForm, 0, lane % 4);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int j = 0; j < kGroup; ++j) {
          const uint32_t(&run)[kPanelSteps / 2] = runs.of[half][j];
          const int n = row + 8 * half;
          if (n < rows && group < w.groups)
            *reinterpret_cast<uint4*>(tile_out + static_cast<int64_t>(n) * w.cols + group + static_cast<int64_t>(w.groups) * j) =
                make_uint4(run[0], run[1], run[2], run[3]);
        }
      }
    } else {
      ForEachStep<kForm>(panel.codes, lane_table, gains, w.bytes, [&](int step, const uint32_t a[4]) {
        const int group = panel.chunk * kPanelGroups + GroupOf(kForm, step, lane % 4);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const int half = r % 2, block = r / 2, n = row + 8 * half;
          const float gain = static_cast<float>(gains[half][step / 4] >> (step % 4 * 8) & 255);
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const int coordinate = 4 * block + j;
            const int64_t column = group + static_cast<int64_t>(w.groups) * coordinate;
            const float point = static_cast<float>(static_cast<int>(a[r] >> (8 * j) & 255) - static_cast<int>(base >> (8 * j) & 255));
            if (n < rows && group < w.groups && column < w.cols)
              Store(tile_out + static_cast<int64_t>(n) * w.cols + column,
                    row_scales[half] * (point - gain * w.bytes.rest[coordinate]));
          }
        }
      });
    }
  }
}

// The same of single columns.
template <Form kForm, bool kAligned, typename T>
__global__ void __launch_bounds__(kThreads) DecodeColumns(const __grid_constant__ PackedView w, int first, int last, T* out) {
  LetNextKernelBegin();
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int64_t count = static_cast<int64_t>(last - first) * w.chunks;
  const typename ColumnGains<kForm>::Table table(w);
  WaitForKernelsAhead();
  for (int64_t i = blockIdx.x * (kThreads / 32) + threadIdx.x / 32; i < count; i += gridDim.x * (kThreads / 32)) {
    const int tile = static_cast<int>(i / w.chunks), chunk = static_cast<int>(i % w.chunks);
    const unsigned char* panel = TilePanels(w, first + tile)[chunk];
    const int row = (first + tile) * kPanelRows + g;
    const float scales[2] = {w.scales[row] * kHalvesScale, w.scales[row + 8] * kHalvesScale};
    T* to = out + (static_cast<int64_t>(tile) * kPanelRows + g) * w.cols;
    ColumnGains<kForm> gains;
    gains.Expand(table, __ldg(reinterpret_cast<const uint32_t*>(panel + PanelVectors(kForm) * 512) + lane));
#pragma unroll
    for (int v = 0; v < PanelVectors(kForm); ++v) {
      const uint4 vector = __ldg(reinterpret_cast<const uint4*>(panel) + v * 32 + lane);
#pragma unroll
      for (int k = 0; k < 2 * VectorCoordinates(kForm); ++k) {
        const int coordinate = VectorCoordinates(kForm) * v + k / 2, s = k % 2;
        uint32_t a[4];
        gains.Decode(vector, coordinate, s, a);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const int half = r % 2, group = chunk * kPanelGroups + 16 * s + 8 * (r / 2) + 2 * t;
          const int64_t column = group + static_cast<int64_t>(w.groups) * coordinate;
          if (row + 8 * half >= w.rows || group >= w.groups || column >= w.cols) continue;
          float2 values = __half22float2(AsHalves(a[r]));
          values = make_float2(values.x * scales[half], values.y * scales[half]);
          T* at = to + 8 * half * w.cols + column;
          if constexpr (kAligned) {
            *reinterpret_cast<__half2*>(at) = __float22half2_rn(values);
          } else {
            Store(at, values.x);
            if (group + 1 < w.groups && column + 1 < w.cols) Store(at + 1, values.y);
          }
        }
      }
    }
  }
}

unsigned DecodeBlocks(const PackedView& w, int tiles) {
  const int64_t panels = static_cast<int64_t>(tiles) * w.chunks;
  return static_cast<unsigned>(std::min<int64_t>((panels + 7) / 8, 2 * CurrentDevice().processors));
}

template <Form kForm, bool kAligned, typename T>
void LaunchColumns(const PackedView& w, int first, int last, T* out, cudaStream_t stream) {
  LaunchOverlapped("decode weights", DecodeColumns<kForm, kAligned, T>, dim3(DecodeBlocks(w, last - first)), kThreads, 0, CurrentDevice().hopper,
                   stream, w, first, last, out);
}

template <Form kForm, bool kAligned, typename T>
void LaunchForm(const PackedView& w, int first, int last, T* out, cudaStream_t stream) {
  constexpr int kShared = TableWords(kForm) * 4;
  const auto kernel = DecodePacked<kForm, kAligned, T>;
  AllowSharedMemory(kernel, kShared);
  LaunchOverlapped("decode weights", kernel, dim3(DecodeBlocks(w, last - first)), kThreads, kShared, CurrentDevice().hopper, stream, w, first,
                   last, out);
}

template <bool kAligned, typename T>
void LaunchPacked(const PackedView& w, int64_t row, int64_t count, T* out, cudaStream_t stream) {
  const int first = static_cast<int>(row / kPanelRows), last = static_cast<int>((row + count + kPanelRows - 1) / kPanelRows);
  switch (w.form) {
    case Form::kOneByte:
      return LaunchForm<Form::kOneByte, kAligned>(w, first, last, out, stream);
    case Form::kTwoByte:
      return LaunchForm<Form::kTwoByte, kAligned>(w, first, last, out, stream);
    case Form::kNibbles:
      return LaunchColumns<Form::kNibbles, kAligned>(w, first, last, out, stream);
    case Form::kTwoBits:
      return LaunchColumns<Form::kTwoBits, kAligned>(w, first, last, out, stream);
    default:
      return LaunchForm<Form::kNibbleByte, kAligned>(w, first, last, out, stream);
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
