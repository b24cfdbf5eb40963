// The kernel of wide.h.
//
// A block takes 128 rows of the weight and kColumns rows of activations, the columns of its product. Each of two warp groups
// multiplies 64 rows, a row tile per warp: lanes decode panels into the registers of A while the tensor cores work on what was
// decoded before, and B comes from a ring in shared memory that a thread of a third warp group keeps full. Of float16 numbers a
// panel has four slices (operands.cuh), of bytes it has two. With bytes, the slices begin with those of the corrections, which the
// gains alone multiply, a product per panel; their sums are in steps of their own.
//
// The blocks of a cluster share a tile of the product: each takes a part of the columns of the weight, and sums up a part of the
// tile in the end.

#ifndef COSETQ_CUDA_WIDE_CUH_
#define COSETQ_CUDA_WIDE_CUH_

#include <cuda_fp16.h>

#include <cstring>
#include <type_traits>
#include <utility>

#include "device.h"
#include "errors.h"
#include "lookup.cuh"
#include "operands.cuh"
#include "overlap.h"
#include "panel_stream.cuh"
#include "pipeline.cuh"
#include "slice_ring.cuh"
#include "wide.h"

namespace cosetq::cuda {

constexpr int kWideRows = kConsumerWarps * kPanelRows;

// Slices of corrections come first.
__host__ __device__ constexpr int CorrectionSlices(int chunks, bool bytes) { return bytes ? (chunks + 3) / 4 : 0; }
__host__ __device__ constexpr int PanelSlices(bool bytes) { return bytes ? 2 : 4; }
__host__ __device__ constexpr int AllSlices(int chunks, bool bytes) {
  return CorrectionSlices(chunks, bytes) + chunks * PanelSlices(bytes);
}

// Activations as the kernel reads them: slices [column tile][slice][column of the tile], with the 16-byte pieces of column c at
// piece ^ c % 8; of every column, what its sum is multiplied by, and with bytes also what the sum of the corrections is multiplied by
// before, and what the bias of the weights has added to the sum.
struct WideActivations {
  unsigned char* slices;
  float* steps;
  int32_t *corrections, *added;  // corrections times 2^-31
};

// How a product is cut: rows of activations of a block, and blocks of a cluster.
struct WideCut {
  int columns;  // 64, 128 or 256
  int splits;   // 1, 2, 4 or 8
};

// One instance for float16 and one for bytes, each in a file of its own, so that they compile side by side.
template <bool kBytes>
void MultiplyWide(const PackedView& w, const WideActivations& x, WideCut cut, int batch, void* y, bool half_y, cudaStream_t stream);

namespace {

constexpr int kWideThreads = kConsumers + 128;

constexpr int WideShared(Form form, int columns) {
  const int stages = columns == 256 ? Ring<256>::kStages : columns == 128 ? Ring<128>::kStages : Ring<64>::kStages;
  return stages * (columns * kSliceBytes + 16) + TableWords(form) * 4 + columns * 12 + kWideRows * 8 + 1024;
}

// Sixteen columns, of which a lane has eight sums, leave a block together.
constexpr int kPieceColumns = 16, kPieceSums = 8;

// The pieces of a tile that each block of a cluster of 2^n owns.
struct Pieces {
  int rank, shift;  // 2^shift pieces for each

  __device__ __forceinline__ Pieces(int pieces, int rank_of_block, int blocks) {
    rank = rank_of_block;
    shift = 31 - __clz(pieces / blocks);
  }
  __device__ __forceinline__ int OwnerOf(int piece) const { return piece >> shift; }
  __device__ __forceinline__ bool Mine(int piece) const { return OwnerOf(piece) == rank; }
};

// Adds up what the blocks of a cluster have of their tiles: each ends up with the pieces that it owns, and has sent the others away.
// Shared memory at memory takes what comes in.
template <typename Sum, int kSums>
__device__ __forceinline__ void SumOverCluster(Sum (&sums)[kSums], uint32_t memory, const Pieces& pieces, int blocks) {
  const auto place = [&](uint32_t at, int from, int piece) {
    const int local = piece & ((1 << pieces.shift) - 1);
    return at + ((((from << pieces.shift) + local) * 2) * kConsumers + threadIdx.x) * 16;
  };
  WaitForCluster();  // for the rings to be idle
#pragma unroll
  for (int i = 0; i < kSums / kPieceSums; ++i) {
    if (pieces.Mine(i)) continue;
    const int owner = pieces.OwnerOf(i), from = ((pieces.rank - owner) & (blocks - 1)) - 1;
    const uint32_t to = place(InBlock(memory, owner), from, i);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      uint4 words;
      memcpy(&words, &sums[i * kPieceSums + part * 4], 16);
      StoreInCluster(to + part * kConsumers * 16, words);
    }
  }
  WaitForCluster();
#pragma unroll
  for (int i = 0; i < kSums / kPieceSums; ++i) {
    if (!pieces.Mine(i)) continue;
#pragma unroll 1
    for (int from = 0; from < blocks - 1; ++from) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        uint4 words;
        asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                     : "r"(place(memory, from, i) + part * kConsumers * 16));
        Sum loaded[4];
        memcpy(loaded, &words, 16);
#pragma unroll
        for (int k = 0; k < 4; ++k) sums[i * kPieceSums + part * 4 + k] += loaded[k];
      }
    }
  }
}

constexpr int kTogether = 16;  // column tiles

template <typename Do, int... kIndices>
__device__ __forceinline__ void ForEach(const Do& run, std::integer_sequence<int, kIndices...>) {
  (run(std::integral_constant<int, kIndices>{}), ...);
}

template <Form kForm, bool kBytes, int kColumns>
__global__ void __launch_bounds__(kWideThreads, 1)
    Wide(const __grid_constant__ PackedView w, WideActivations x, int batch, void* y, bool half_y) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int kSums = kColumns / 2, kHalves = 2 * PanelSlices(kBytes);
  using Sum = std::conditional_t<kBytes, int, float>;
  LetNextKernelBegin();
  extern __shared__ unsigned char unaligned[];
  unsigned char* shared = unaligned + (1024 - static_cast<uint32_t>(__cvta_generic_to_shared(unaligned)) % 1024) % 1024;
  Ring<kColumns> ring;
  uint32_t* table = reinterpret_cast<uint32_t*>(shared + ring.kStages * ring.kStageBytes);
  uint64_t* barriers = reinterpret_cast<uint64_t*>(table + TableWords(kForm));
  float* steps = reinterpret_cast<float*>(barriers + 2 * ring.kStages);
  int32_t* correction_steps = reinterpret_cast<int32_t*>(steps + kColumns);
  int32_t* added = correction_steps + kColumns;
  float2* row_factors = reinterpret_cast<float2*>(added + kColumns);  // scale and offset
  ring.stages = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  ring.full = static_cast<uint32_t>(__cvta_generic_to_shared(barriers));
  ring.empty = ring.full + ring.kStages * 8;
  // Blocks that run at the same time share slices and panels in the second-level cache: they go through all rows for a few column
  // tiles before the next.
  const int rank = ClusterRank(), splits = ClusterBlocks();
  const int row_blocks = (w.tiles + kConsumerWarps - 1) / kConsumerWarps, column_tiles = gridDim.x / splits / row_blocks;
  const int block = blockIdx.x / splits, group = block / (row_blocks * kTogether), first_tile = group * kTogether;
  const int together = min(kTogether, column_tiles - first_tile), place = block - group * row_blocks * kTogether;
  const int column_tile = first_tile + place % together, row_block = place / together;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, tile = row_block * kConsumerWarps + warp % kConsumerWarps;
  // Warps past the last tile multiply another's weights, since all of a warp group must come along.
  const TilePanels panels(w, min(tile, w.tiles - 1));
  // The block's part.
  const int corrections = CorrectionSlices(w.chunks, kBytes);
  const int first_correction = Part(corrections, rank, splits), last_correction = Part(corrections, rank + 1, splits);
  const int first_chunk = Part(w.chunks, rank, splits), last_chunk = Part(w.chunks, rank + 1, splits);
  if (threadIdx.x == kConsumers) ring.Create();
  if (warp < kConsumerWarps) {
    const Table<kForm, kConsumers> codebook(w);
    const int row = row_block * kWideRows + threadIdx.x;
    if (threadIdx.x < kWideRows) {
      const bool there = row < w.rows;
      row_factors[threadIdx.x] = make_float2(there ? w.scales[row] : 0, there && w.offsets != nullptr ? w.offsets[row] : 0);
    }
    codebook.Store(table);
  }
  __syncthreads();
  if (warp >= kConsumerWarps) {
    ShrinkRegisters<24>();
    if (threadIdx.x == kConsumers) {
      WaitForKernelsAhead();
      const unsigned char* slices =
          x.slices + static_cast<int64_t>(column_tile) * AllSlices(w.chunks, kBytes) * ring.kStageBytes;
      const auto fill = [&](int first, int last) {
        ring.Fill(slices + static_cast<int64_t>(first) * ring.kStageBytes, last - first);
      };
      if (kBytes) fill(first_correction, last_correction);
      fill(corrections + first_chunk * PanelSlices(kBytes), corrections + last_chunk * PanelSlices(kBytes));
    }
    __syncwarp();
    if (splits > 1) WaitForCluster(), WaitForCluster();
  } else {
    GrowRegisters<240>();
    PanelStream<kForm> panel(panels, first_chunk, last_chunk - first_chunk, lane);
    uint32_t correction_gains[kSliceUnits];  // of the next slice
    const auto load_gains = [&](int slice) {
#pragma unroll
      for (int unit = 0; unit < kSliceUnits; ++unit) {
        const int chunk = slice * kSliceUnits + unit;
        if (slice < last_correction && chunk < w.chunks) correction_gains[unit] = panel.LoadGains(panels[chunk], lane);
      }
    };
    if (kBytes) load_gains(first_correction);
    WaitForKernelsAhead();
    if (threadIdx.x < kColumns) {
      const int64_t at = static_cast<int64_t>(column_tile) * kColumns + threadIdx.x;
      steps[threadIdx.x] = __ldcg(x.steps + at);
      if (kBytes) {
        correction_steps[threadIdx.x] = __ldcg(x.corrections + at);
        added[threadIdx.x] = __ldcg(x.added + at);
      }
    }
    WaitForThreads<kConsumers>();
    const uint32_t lane_table = static_cast<uint32_t>(__cvta_generic_to_shared(table)) + lane * 4;
    const Centre centre(w);
    const uint32_t base = w.bytes.base;
    const int g = lane / 4, t = lane % 4;
    Sum sums[kSums] = {};
    HalfSliceA a[2];
    if constexpr (kBytes) {
      for (int slice = first_correction; slice < last_correction; ++slice) {
#pragma unroll
        for (int unit = 0; unit < kSliceUnits; ++unit) {
          const int chunk = slice * kSliceUnits + unit;
          uint32_t gains[2][2] = {};
          if (chunk < w.chunks) ExpandGains(w.bytes.gains, correction_gains[unit], gains);
          uint32_t(&of)[4] = a[unit / 2][unit % 2];
          of[0] = gains[0][0];
          of[1] = gains[1][0];
          of[2] = gains[0][1];
          of[3] = gains[1][1];
        }
        load_gains(slice + 1);
        ring.WaitForSlice();
        ring.template Multiply<0>(a[0], sums);
        ring.template Multiply<1>(a[1], sums);
        WaitForProducts<0>();
        Keep(a[0]);
        Keep(a[1]);
        ring.Release(ring.slot);
        ring.Advance();
      }
#pragma unroll
      for (int i = 0; i < kSums; i += 4) {
        const int2 step = *reinterpret_cast<const int2*>(correction_steps + i / 4 * 8 + 2 * t);
#pragma unroll
        for (int k = 0; k < 4; ++k) sums[i + k] = __mulhi(2 * sums[i + k], k % 2 == 0 ? step.x : step.y);
      }
    }
    // Look-ups are half a slice ahead of the registers that they end up in, and those half a slice ahead of the products.
    constexpr int kSteps = HalfSliceSteps(kBytes);
    HalfSliceWords<kForm, kBytes> words;
    uint32_t gains[2][2], next_gains = panel.LoadGains(panels[min(first_chunk + 1, last_chunk - 1)], lane);
    ExpandGains(w.bytes.gains, panel.LoadGains(panels[first_chunk], lane), gains);
    LookUpHalfSlice<kForm, kBytes, 0>(panel.codes, lane_table, words);
    panel.Refill(0, kSteps - 1);
    CombineHalfSlice<kForm, kBytes, 0>(words, gains, base, centre, a[0]);
    LookUpHalfSlice<kForm, kBytes, 1>(panel.codes, lane_table, words);
    panel.Refill(kSteps, 2 * kSteps - 1);
    for (auto& unit : a[1]) unit[0] = unit[1] = unit[2] = unit[3] = 0;
    int released = -1;  // the slot before this one, once there is one
    for (int chunk = first_chunk; chunk < last_chunk; ++chunk) {
      ForEach(
          [&](auto half) {
            constexpr int kHalf = decltype(half)::value, kNext = (kHalf + 1) % kHalves, kAhead = (kHalf + 2) % kHalves;
            if (kHalf % 2 == 0) ring.WaitForSlice();
            ring.template Multiply<kHalf % 2>(a[kHalf % 2], sums);
            if (kNext == 0 && chunk + 1 == last_chunk) {
              WaitForProducts<0>();  // before anything is done to the sums
              return;
            }
            WaitForProducts<1>();
            Keep(a[kNext % 2]);  // which the products before have read until now
            if constexpr (kHalf % 2 == 0) {
              if (released >= 0) ring.Release(released);
            } else {
              released = ring.slot;
              ring.Advance();
            }
            if (kNext == 0) {
              ExpandGains(w.bytes.gains, next_gains, gains);
              if (panel.left > 0) next_gains = panel.LoadGains(panel.at + panel.stride - lane * 16, lane);
            }
            CombineHalfSlice<kForm, kBytes, kNext>(words, gains, base, centre, a[kNext % 2]);
            if (kAhead == 0) {
              if (panel.left == 0) return;
              panel.Advance(lane);
            }
            LookUpHalfSlice<kForm, kBytes, kAhead>(panel.codes, lane_table, words);
            panel.Refill(kAhead * kSteps, kAhead * kSteps + kSteps - 1);
          },
          std::make_integer_sequence<int, kHalves>{});
    }
    Keep(a[0]);
    Keep(a[1]);

    // Of the columns of the tile this block finishes kColumns / splits, from first_own on.
    const Pieces pieces(kColumns / kPieceColumns, rank, splits);
    const int own = kPieceColumns << pieces.shift, first_own = rank * own;
    if (splits > 1) {
      SumOverCluster(sums, ring.stages, pieces, splits);
    } else {
      WaitForThreads<kConsumers>();
    }
    const float2 factors[2] = {row_factors[warp * kPanelRows + g], row_factors[warp * kPanelRows + g + 8]};
    // Results 2i and 2i + 1: of two columns of a row.
    const auto results = [&](int i) {
      const int column = i / 4 * 8 + 2 * t;
      const float2 step = *reinterpret_cast<const float2*>(steps + column), factor = factors[i / 2 % 2];
      Sum sum[2] = {sums[i], sums[i + 1]};
      if constexpr (kBytes) {
        const int2 bias = *reinterpret_cast<const int2*>(added + column);
        sum[0] -= bias.x;
        sum[1] -= bias.y;
      }
      return make_float2(static_cast<float>(sum[0]) * step.x * factor.x + factor.y,
                         static_cast<float>(sum[1]) * step.y * factor.x + factor.y);
    };
    const int64_t first_column = static_cast<int64_t>(column_tile) * kColumns + first_own;
    const int columns = static_cast<int>(min(static_cast<int64_t>(own), batch - first_column));
    const int first_row = row_block * kWideRows;
    if (!half_y) {
      auto* out = static_cast<float*>(y) + first_column * w.rows;
#pragma unroll
      for (int i = 0; i < kSums; i += 2) {
        if (!pieces.Mine(i / kPieceSums)) continue;
        const int at = i / 4 * 8 + 2 * t - first_own, row = first_row + warp * kPanelRows + g + i / 2 % 2 * 8;
        const float2 y2 = results(i);
        float* to = out + static_cast<int64_t>(at) * w.rows + row;
        if (row < w.rows && at < columns) to[0] = y2.x;
        if (row < w.rows && at + 1 < columns) to[w.rows] = y2.y;
      }
    } else {
      // Through shared memory, [column][row], so that rows leave in order.
      constexpr int kPitch = kWideRows + 8;
      auto* stage = reinterpret_cast<__half*>(shared + (splits - 1) * (kConsumers * kPieceSums * 4 << pieces.shift));
      const int matrix = lane / 8;  // of the four that a store writes, lane % 8 is the column
#pragma unroll
      for (int i = 0; i < kSums; i += kPieceSums) {
        if (!pieces.Mine(i / kPieceSums)) continue;
        uint32_t words[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) words[k] = AsWord(__float22half2_rn(results(i + 2 * k)));
        const int column = (i / 4 + matrix / 2) * 8 + lane % 8 - first_own;
        const uint32_t to = static_cast<uint32_t>(
            __cvta_generic_to_shared(stage + column * kPitch + warp * kPanelRows + matrix % 2 * 8));
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]),
                     "r"(words[1]), "r"(words[2]), "r"(words[3])
                     : "memory");
      }
      WaitForThreads<kConsumers>();
      auto* out = static_cast<__half*>(y) + first_column * w.rows + first_row;
      const int rows = min(kWideRows, w.rows - first_row);
      if (rows == kWideRows && w.rows % 8 == 0 && reinterpret_cast<uintptr_t>(y) % 16 == 0) {
        for (int i = threadIdx.x; i < columns * (kWideRows / 8); i += kConsumers) {
          const int column = i / (kWideRows / 8), piece = i % (kWideRows / 8);
          *reinterpret_cast<uint4*>(out + static_cast<int64_t>(column) * w.rows + piece * 8) =
              *reinterpret_cast<const uint4*>(stage + column * kPitch + piece * 8);
        }
      } else {
        for (int i = threadIdx.x; i < columns * rows; i += kConsumers)
          out[static_cast<int64_t>(i / rows) * w.rows + i % rows] = stage[i / rows * kPitch + i % rows];
      }
    }
  }
#endif
}

template <Form kForm, bool kBytes, int kColumns>
void LaunchWide(const PackedView& w, const WideActivations& x, int splits, int batch, void* y, bool half_y, cudaStream_t stream) {
  const auto kernel = Wide<kForm, kBytes, kColumns>;
  constexpr int kShared = WideShared(kForm, kColumns);
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared), "reserve shared memory");
  const auto column_tiles = static_cast<unsigned>((batch + kColumns - 1) / kColumns);
  const auto row_blocks = static_cast<unsigned>((w.tiles + kConsumerWarps - 1) / kConsumerWarps);
  LaunchClusters("multiply a wide batch", kernel, dim3(row_blocks * column_tiles * static_cast<unsigned>(splits)), kWideThreads,
                 kShared, static_cast<unsigned>(splits), true, stream, w, x, batch, y, half_y);
}

template <Form kForm, bool kBytes>
void LaunchWide(const PackedView& w, const WideActivations& x, WideCut cut, int batch, void* y, bool half_y, cudaStream_t stream) {
  const auto launch = cut.columns == 256   ? LaunchWide<kForm, kBytes, 256>
                      : cut.columns == 128 ? LaunchWide<kForm, kBytes, 128>
                                           : LaunchWide<kForm, kBytes, 64>;
  launch(w, x, cut.splits, batch, y, half_y, stream);
}

}  // namespace

template <bool kBytes>
void MultiplyWide(const PackedView& w, const WideActivations& x, WideCut cut, int batch, void* y, bool half_y, cudaStream_t stream) {
  switch (w.form) {
    case Form::kOneByte:
      return LaunchWide<Form::kOneByte, kBytes>(w, x, cut, batch, y, half_y, stream);
    case Form::kTwoByte:
      return LaunchWide<Form::kTwoByte, kBytes>(w, x, cut, batch, y, half_y, stream);
    default:
      return LaunchWide<Form::kNibbleByte, kBytes>(w, x, cut, batch, y, half_y, stream);
  }
}

extern template void MultiplyWide<false>(const PackedView&, const WideActivations&, WideCut, int, void*, bool, cudaStream_t);
extern template void MultiplyWide<true>(const PackedView&, const WideActivations&, WideCut, int, void*, bool, cudaStream_t);

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_WIDE_CUH_
