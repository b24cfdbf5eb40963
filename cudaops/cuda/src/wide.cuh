// The kernel of wide.h.
//
// A block takes 128 rows of the weight and kColumns rows of activations, the columns of its product. Each of its two warp groups
// multiplies 64 rows, a row tile per warp: lanes decode panels into the registers of A, a slice ahead of the tensor
// cores, which take B from a ring in shared memory. Of float16 numbers a panel has four slices (operands.cuh), of bytes it has two,
// each step one product. With bytes, the slices begin with those of the corrections, which the gains alone multiply, a
// product per panel.

#ifndef COSETQ_CUDA_WIDE_CUH_
#define COSETQ_CUDA_WIDE_CUH_

#include <cuda_fp16.h>

#include <algorithm>

#include "device.h"
#include "errors.h"
#include "lookup.cuh"
#include "operands.cuh"
#include "overlap.h"
#include "pipeline.cuh"
#include "wgmma.cuh"
#include "wide.h"

namespace cosetq::cuda {

constexpr int kWideWarps = 8;
constexpr int kWideRows = kWideWarps * kPanelRows;

// Slices of corrections come first.
__host__ __device__ constexpr int CorrectionSlices(int chunks, bool bytes) { return bytes ? (chunks + 3) / 4 : 0; }
__host__ __device__ constexpr int PanelSlices(bool bytes) { return bytes ? 2 : 4; }
__host__ __device__ constexpr int AllSlices(int chunks, bool bytes) {
  return CorrectionSlices(chunks, bytes) + chunks * PanelSlices(bytes);
}

// Activations as the kernel reads them: slices [column tile][slice][column of the tile], with the 16-byte pieces of column c at
// piece ^ c % 8; steps, what a column's sum is multiplied by; with bytes, what the bias of the weights has added to it.
struct WideActivations {
  unsigned char* slices;
  float* steps;
  int32_t* sums;
};

namespace {

template <Form kForm>
struct Panel {
  PanelCodes<kForm> codes;
  uint32_t gains;

  __device__ __forceinline__ void Load(const unsigned char* panel, int lane) {
#pragma unroll
    for (int v = 0; v < PanelVectors(kForm); ++v) {
      const uint4 vector = __ldg(reinterpret_cast<const uint4*>(panel) + v * 32 + lane);
      codes.words[4 * v] = vector.x;
      codes.words[4 * v + 1] = vector.y;
      codes.words[4 * v + 2] = vector.z;
      codes.words[4 * v + 3] = vector.w;
    }
    gains = LoadGains(panel, lane);
  }

  __device__ __forceinline__ static uint32_t LoadGains(const unsigned char* panel, int lane) {
    return __ldg(reinterpret_cast<const uint32_t*>(panel + PanelVectors(kForm) * 512) + lane);
  }
};

// What a block does with the ring of slices.
template <int kColumns, int kStages>
struct Ring {
  static constexpr int kStageBytes = kColumns * kSliceBytes;
  uint32_t stages, full, empty;  // addresses in shared memory
  const unsigned char* from;     // of the slices of this column tile
  int slices;
  int fetched = 0, slot_in = 0, phase_in = 0;  // of the thread that fetches
  int slot_out = 0, phase_out = 0;

  __device__ __forceinline__ void FetchNext() {
    if (fetched == slices) return;
    if (fetched >= kStages) Wait(empty + slot_in * 8, phase_in ^ 1);
    Fetch(stages + slot_in * kStageBytes, from + static_cast<int64_t>(fetched) * kStageBytes, kStageBytes, full + slot_in * 8);
    ++fetched;
    if (++slot_in == kStages) slot_in = 0, phase_in ^= 1;
  }

  template <typename Sum>
  __device__ __forceinline__ void Multiply(const SliceA& a, Sum (&sums)[kColumns / kWgmmaColumns][64]) {
    Wait(full + slot_out * 8, phase_out);
    BeginProducts();
    const uint64_t stage = Columns(stages + slot_out * kStageBytes);
#pragma unroll
    for (int unit = 0; unit < kSliceUnits; ++unit) {
#pragma unroll
      for (int part = 0; part < kColumns / kWgmmaColumns; ++part)
        MultiplyColumns(sums[part], a[unit], stage + (part * kWgmmaColumns * kSliceBytes + unit * 32) / 16);
    }
    CommitProducts();
  }

  // After the products: the slot is free, and the one before it is filled again.
  __device__ __forceinline__ void Release() {
    WaitForProducts();
    if (threadIdx.x % 32 == 0) Arrive(empty + slot_out * 8);
    if (++slot_out == kStages) slot_out = 0, phase_out ^= 1;
    if (threadIdx.x == 0) FetchNext();
  }
};

constexpr int WideStages(int columns) { return columns == 256 ? 5 : 8; }

constexpr int WideShared(Form form, int columns) {
  return WideStages(columns) * columns * kSliceBytes + TableWords(form) * 4 + WideStages(columns) * 16 + columns * 8 + 1024;
}

constexpr int kTogether = 16;  // column tiles

template <Form kForm, bool kBytes, int kColumns>
__global__ void __launch_bounds__(kWideWarps * 32, 1)
    Wide(const __grid_constant__ PackedView w, WideActivations x, int batch, void* y, bool half_y) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int kThreads = kWideWarps * 32, kStages = WideStages(kColumns), kParts = kColumns / kWgmmaColumns;
  using Sum = std::conditional_t<kBytes, int, float>;
  LetNextKernelBegin();
  extern __shared__ unsigned char unaligned[];
  unsigned char* shared = unaligned + (1024 - static_cast<uint32_t>(__cvta_generic_to_shared(unaligned)) % 1024) % 1024;
  Ring<kColumns, kStages> ring;
  uint32_t* table = reinterpret_cast<uint32_t*>(shared + kStages * ring.kStageBytes);
  uint64_t* barriers = reinterpret_cast<uint64_t*>(table + TableWords(kForm));
  float* steps = reinterpret_cast<float*>(barriers + 2 * kStages);
  int32_t* added = reinterpret_cast<int32_t*>(steps + kColumns);
  ring.stages = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  ring.full = static_cast<uint32_t>(__cvta_generic_to_shared(barriers));
  ring.empty = ring.full + kStages * 8;
  ring.slices = AllSlices(w.chunks, kBytes);
  // Blocks that run at the same time share slices and panels in the second-level cache: they go through all rows for a few column
  // tiles before the next.
  const int row_blocks = (w.tiles + kWideWarps - 1) / kWideWarps, column_tiles = gridDim.x / row_blocks;
  const int block = blockIdx.x, group = block / (row_blocks * kTogether), first_tile = group * kTogether;
  const int together = min(kTogether, column_tiles - first_tile), place = block - group * row_blocks * kTogether;
  const int column_tile = first_tile + place % together, row_block = place / together;
  ring.from = x.slices + static_cast<int64_t>(column_tile) * ring.slices * ring.kStageBytes;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int tile = row_block * kWideWarps + warp;
  // Warps past the last tile multiply another's weights, since all of a warp group must come along.
  const TilePanels panels(w, min(tile, w.tiles - 1));
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(ring.full + i * 8, 1);
      InitBarrier(ring.empty + i * 8, kWideWarps);
    }
    PublishBarriers();
  }
  const Table<kForm, kThreads> codebook(w);
  Panel<kForm> next;
  next.Load(panels[0], lane);
  const auto load_gains = [&](int chunk) {
    return chunk < w.chunks ? Panel<kForm>::LoadGains(panels[chunk], lane) : 0u;
  };
  uint32_t packed[kSliceUnits];  // gains of the next chunks
#pragma unroll
  for (int unit = 0; unit < kSliceUnits && kBytes; ++unit) packed[unit] = load_gains(unit);
  codebook.Store(table);
  __syncthreads();
  WaitForKernelsAhead();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages - 1; ++i) ring.FetchNext();
  }
  for (int i = threadIdx.x; i < kColumns; i += kThreads) {
    steps[i] = __ldcg(x.steps + column_tile * kColumns + i);
    if (kBytes) added[i] = __ldcg(x.sums + column_tile * kColumns + i);
  }
  const uint32_t lane_table = static_cast<uint32_t>(__cvta_generic_to_shared(table)) + lane * 4;
  const Centre centre(w);
  const uint32_t base = w.bytes.base;
  Sum sums[kParts][64] = {};
  SliceA even, odd;
  if constexpr (kBytes) {
    for (int first = 0; first < w.chunks; first += kSliceUnits) {
#pragma unroll
      for (int unit = 0; unit < kSliceUnits; ++unit) {
        uint32_t gains[2][2] = {};
        if (first + unit < w.chunks) ExpandGains(w.bytes.gains, packed[unit], gains);
        packed[unit] = load_gains(first + kSliceUnits + unit);
        even[unit][0] = gains[0][0];
        even[unit][1] = gains[1][0];
        even[unit][2] = gains[0][1];
        even[unit][3] = gains[1][1];
      }
      ring.Multiply(even, sums);
      ring.Release();
    }
  }
  uint32_t gains[2][2];
  ExpandGains(w.bytes.gains, next.gains, gains);
  DecodeSlice<kForm, kBytes, 0>(next.codes, lane_table, gains, base, centre, even);
  for (int chunk = 0; chunk < w.chunks; ++chunk) {
    const Panel<kForm> panel = next;
    if (chunk + 1 < w.chunks) next.Load(panels[chunk + 1], lane);
    ring.Multiply(even, sums);
    DecodeSlice<kForm, kBytes, 1>(panel.codes, lane_table, gains, base, centre, odd);
    ring.Release();
    if constexpr (!kBytes) {
      ring.Multiply(odd, sums);
      DecodeSlice<kForm, kBytes, 2>(panel.codes, lane_table, gains, base, centre, even);
      ring.Release();
      ring.Multiply(even, sums);
      DecodeSlice<kForm, kBytes, 3>(panel.codes, lane_table, gains, base, centre, odd);
      ring.Release();
    }
    ring.Multiply(odd, sums);
    if (chunk + 1 < w.chunks) {
      ExpandGains(w.bytes.gains, next.gains, gains);
      DecodeSlice<kForm, kBytes, 0>(next.codes, lane_table, gains, base, centre, even);
    }
    ring.Release();
  }
  __syncthreads();

  const int g = lane / 4, t = lane % 4, n = tile * kPanelRows + g;
  float scales[2] = {}, offsets[2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (n + 8 * half >= w.rows || tile >= w.tiles) continue;
    scales[half] = w.scales[n + 8 * half];
    if (w.offsets != nullptr) offsets[half] = w.offsets[n + 8 * half];
  }
  const auto value = [&](int part, int i, int column) {
    Sum sum = sums[part][i];
    if constexpr (kBytes) sum -= added[column];
    return static_cast<float>(sum) * steps[column] * scales[i / 2 % 2] + offsets[i / 2 % 2];
  };
  const int64_t first_column = static_cast<int64_t>(column_tile) * kColumns;
  const int columns = static_cast<int>(min(static_cast<int64_t>(kColumns), batch - first_column));
  const int first_row = row_block * kWideRows;
  if (!half_y) {
    auto* out = static_cast<float*>(y) + first_column * w.rows;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int i = 0; i < 64; ++i) {
        const int column = part * kWgmmaColumns + i / 4 * 8 + 2 * t + i % 2, row = n + i / 2 % 2 * 8;
        if (column < columns && row < w.rows && tile < w.tiles)
          out[static_cast<int64_t>(column) * w.rows + row] = value(part, i, column);
      }
    }
    return;
  }
  // Through shared memory, [column][row], so that rows leave in order.
  constexpr int kPitch = kWideRows + 8;
  auto* stage = reinterpret_cast<__half*>(shared);
  const int matrix = lane / 8;  // of the four that a store writes, lane % 8 is the column
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
#pragma unroll
    for (int i = 0; i < 64; i += 8) {
      uint32_t words[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int column = part * kWgmmaColumns + (i + 2 * k) / 4 * 8 + 2 * t;
        words[k] = AsWord(__floats2half2_rn(value(part, i + 2 * k, column), value(part, i + 2 * k + 1, column + 1)));
      }
      const int column = part * kWgmmaColumns + (i / 4 + matrix / 2) * 8 + lane % 8;
      const uint32_t to = static_cast<uint32_t>(
          __cvta_generic_to_shared(stage + column * kPitch + warp * kPanelRows + matrix % 2 * 8));
      asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]),
                   "r"(words[1]), "r"(words[2]), "r"(words[3])
                   : "memory");
    }
  }
  __syncthreads();
  auto* out = static_cast<__half*>(y) + first_column * w.rows + first_row;
  const int rows = min(kWideRows, w.rows - first_row);
  if (rows == kWideRows && w.rows % 8 == 0 && reinterpret_cast<uintptr_t>(y) % 16 == 0) {
    for (int i = threadIdx.x; i < columns * (kWideRows / 8); i += kThreads) {
      const int column = i / (kWideRows / 8), piece = i % (kWideRows / 8);
      *reinterpret_cast<uint4*>(out + static_cast<int64_t>(column) * w.rows + piece * 8) =
          *reinterpret_cast<const uint4*>(stage + column * kPitch + piece * 8);
    }
    return;
  }
  for (int i = threadIdx.x; i < columns * rows; i += kThreads)
    out[static_cast<int64_t>(i / rows) * w.rows + i % rows] = stage[i / rows * kPitch + i % rows];
#endif
}

template <Form kForm, bool kBytes, int kColumns>
void LaunchWide(const PackedView& w, const WideActivations& x, int batch, void* y, bool half_y, cudaStream_t stream) {
  const auto kernel = Wide<kForm, kBytes, kColumns>;
  constexpr int kShared = WideShared(kForm, kColumns);
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared), "reserve shared memory");
  const auto column_tiles = static_cast<unsigned>((batch + kColumns - 1) / kColumns);
  const auto row_blocks = static_cast<unsigned>((w.tiles + kWideWarps - 1) / kWideWarps);
  LaunchOverlapped("multiply a wide batch", kernel, dim3(row_blocks * column_tiles), kWideWarps * 32, kShared, true, stream, w, x, batch, y, half_y);
}

}  // namespace

// Instances, each in a file of its own, so that they compile side by side. columns is 128 or 256.
void WideHalves(const PackedView& w, const WideActivations& x, int columns, int batch, void* y, bool half_y, cudaStream_t stream);
void WideBytes(const PackedView& w, const WideActivations& x, int columns, int batch, void* y, bool half_y, cudaStream_t stream);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_WIDE_CUH_
