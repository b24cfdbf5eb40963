// The kernel of small.h.
//
// A block takes a range of row tiles, a warp an equal share of the block's panels, in an order that goes through the tiles
// of one chunk of columns before the next: a warp thus keeps the activations of its chunk in registers, and the warps
// need not wait for each other. Panels come through a ring in shared memory, private to the warp, every lane fetching
// the bytes that it will use itself. Sums are integers, so they can be added in any order.
//
// Everything that does not depend on the activations, the table and the first panels of the ring, is done before the
// kernel ahead has ended.

#ifndef COSETQ_CUDA_SMALL_CUH_
#define COSETQ_CUDA_SMALL_CUH_

#include <cooperative_groups.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "device.h"
#include "fragments.cuh"
#include "lookup.cuh"
#include "overlap.h"
#include "small.h"

namespace cosetq::cuda {
namespace {

__device__ __forceinline__ void CopyAsync16(uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared), "l"(global));
}

__device__ __forceinline__ void CopyAsync4(uint32_t shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared), "l"(global));
}

__device__ __forceinline__ void CommitCopies() { asm volatile("cp.async.commit_group;"); }

template <int kLeft>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

__device__ __forceinline__ uint4 LoadShared16(uint32_t shared) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(shared));
  return v;
}

// What a block does: row tiles first ... first + count - 1 and chunks from ... to - 1.
struct Share {
  int first, count, from, to;
};

__device__ __forceinline__ int Part(int64_t total, int i, int parts) { return static_cast<int>(total * i / parts); }

// Walks through the panels of a warp.
struct Walk {
  int tile, chunk;

  __device__ Walk(const Share& s, int item) : tile(item % s.count), chunk(s.from + item / s.count) {}

  __device__ void Advance(const Share& s) {
    if (++tile == s.count) {
      tile = 0;
      ++chunk;
    }
  }
};

// How much of the work is done, for measuring what each part costs: the weights fetched, decoded, multiplied.
enum Work { kFetch, kDecode, kMultiply };

template <Form kForm, int kRoom, int kStep, Work kWork>
__device__ __forceinline__ void Steps(const PanelCodes<kForm>& codes, uint32_t lane_table, int shift,
                                      const uint32_t gains[2][2], const ChunkActivations<kRoom>& b,
                                      int sums[DataTiles(kRoom)][4]) {
  if constexpr (kStep < kPanelSteps) {
    uint32_t a[4];
    DecodeStep<kForm, kStep>(codes, lane_table, shift, gains, a);
    if constexpr (kWork == kDecode) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[0][i] ^= a[i];
    }
#pragma unroll
    for (int tile = 0; tile < DataTiles(kRoom) && kWork == kMultiply; ++tile) {
      const uint4& v = b.data[kStep / 2][tile];
      MultiplyAdd(sums[tile], a, kStep % 2 == 0 ? v.x : v.z, kStep % 2 == 0 ? v.y : v.w);
    }
    Steps<kForm, kRoom, kStep + 1, kWork>(codes, lane_table, shift, gains, b, sums);
  }
}

template <Form kForm, int kRoom, int kWarps, int kDepth, Work kWork>
__global__ void __launch_bounds__(kWarps * 32, kRoom == 4 && kWarps <= 12 ? 2 : 1)
    Small(PackedView w, const void* a, bool half_a, int batch, void* y, bool half_y) {
  constexpr int kTiles = DataTiles(kRoom), kTops = TopTiles(kRoom);
  constexpr int kVectors = PanelVectors(kForm), kSlot = PanelBytes(kForm);
  constexpr int kThreads = kWarps * 32, kHeld = kRoom == 4 ? 1 : 4;
  LetNextKernelBegin();
  extern __shared__ __align__(128) unsigned char shared[];
  uint32_t* table = reinterpret_cast<uint32_t*>(shared);
  unsigned char* ring = shared + TableWords(kForm) * 4;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  Share share;
  share.first = Part(w.tiles, blockIdx.x, gridDim.x);
  share.count = Part(w.tiles, blockIdx.x + 1, gridDim.x) - share.first;
  share.from = Part(w.chunks, blockIdx.y, gridDim.y);
  share.to = Part(w.chunks, blockIdx.y + 1, gridDim.y);
  Fragments activations;
  activations.from = share.from;
  activations.count = share.to - share.from;
  activations.batch = batch;
  activations.peaks = reinterpret_cast<uint32_t*>(ring + kWarps * kDepth * kSlot);
  int* sums = reinterpret_cast<int*>(activations.peaks + kMaxSmallBatch);  // [tile][eight rows of A][register][lane]
  activations.chunks = reinterpret_cast<unsigned char*>(sums + share.count * kTops * 128);
  const int items = share.count * (share.to - share.from);
  const int begin = Part(items, warp, kWarps), end = Part(items, warp + 1, kWarps);

  const uint32_t my_ring = static_cast<uint32_t>(__cvta_generic_to_shared(ring + warp * kDepth * kSlot)) + lane * 16;
  Walk ahead(share, begin);
  int fetched = begin, slot_in = 0;
  const auto fetch = [&] {
    if (fetched < end) {
      const unsigned char* panel =
          w.panels + (static_cast<int64_t>(share.first + ahead.tile) * w.chunks + ahead.chunk) * kSlot;
      const uint32_t to = my_ring + slot_in * kSlot;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) CopyAsync16(to + v * 512, panel + v * 512 + lane * 16);
      CopyAsync4(to + kVectors * 512 - lane * 12, panel + kVectors * 512 + lane * 4);
      ahead.Advance(share);
      ++fetched;
      slot_in = slot_in + 1 == kDepth ? 0 : slot_in + 1;
    }
    CommitCopies();
  };
#pragma unroll
  for (int i = 0; i < kDepth; ++i) fetch();

  FillTable(w, table, threadIdx.x, kThreads);
  for (int i = threadIdx.x; i < share.count * kTops * 128; i += kThreads) sums[i] = 0;
  if (threadIdx.x < kMaxSmallBatch) activations.peaks[threadIdx.x] = 0;
  __syncthreads();
  WaitForKernelsAhead();
  if (half_a) {
    activations.Fill<kThreads, kHeld>(w, static_cast<const __half*>(a));
  } else {
    activations.Fill<kThreads, kHeld>(w, static_cast<const float*>(a));
  }

  const uint32_t lane_table = static_cast<uint32_t>(__cvta_generic_to_shared(table)) + lane * 4;
  // A panel's sum takes 31 bits at most; those of all chunks must fit as well.
  const int shift = 32 - __clz(share.to - share.from), round = 1 << shift >> 1;
  ChunkActivations<kRoom> b;
  Walk at(share, begin);
  int loaded = -1, slot_out = 0;
  for (int item = begin; item < end; ++item, at.Advance(share)) {
    if (at.chunk != loaded) {
      b.Load(activations, at.chunk - share.from, lane);
      loaded = at.chunk;
    }
    WaitForCopies<kDepth - 1>();
    PanelCodes<kForm> codes;
    const uint32_t from = my_ring + slot_out * kSlot;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const uint4 vector = LoadShared16(from + v * 512);
      codes.words[4 * v] = vector.x;
      codes.words[4 * v + 1] = vector.y;
      codes.words[4 * v + 2] = vector.z;
      codes.words[4 * v + 3] = vector.w;
    }
    uint32_t packed, gains[2][2];
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(packed) : "r"(from + kVectors * 512 - lane * 12));
    ExpandGains(w.gains, packed, gains);
    slot_out = slot_out + 1 == kDepth ? 0 : slot_out + 1;
    fetch();

    int sum[kTiles][4] = {};
    int top[kTops][4] = {};
    if constexpr (kWork == kFetch) {
#pragma unroll
      for (int i = 0; i < kVectors * 4; ++i) sum[0][i % 4] ^= codes.words[i];
      sum[0][0] ^= packed;
      if (sum[0][0] == 12345 && sum[0][1] == 54321) atomicAdd(sums, 1);
      continue;
    }
    // The gains themselves are A for the corrections: a byte per step and lane is a column of A.
    const uint32_t gain_bytes[4] = {gains[0][0], gains[1][0], gains[0][1], gains[1][1]};
#pragma unroll
    for (int tile = 0; tile < kTiles + kTops; ++tile) {
      const uint2 v = b.corrections[tile];
      MultiplyAdd(tile < kTiles ? sum[tile] : top[tile - kTiles], gain_bytes, v.x, v.y);
    }
    Steps<kForm, kRoom, 0, kWork>(codes, lane_table, w.shift, gains, b, sum);
    int* to = sums + at.tile * kTops * 128 + lane;
    if constexpr (kRoom == 4) {
      // High bytes are in the lanes of the left columns, low bytes in those of the right ones.
      const bool high = lane % 4 < 2;
      to -= lane & 2;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int value = high ? (sum[0][i] + top[0][i] * 256) * 256 : sum[0][i];
        atomicAdd(to + i * 32, (value + round) >> shift);
      }
    } else {
#pragma unroll
      for (int rows = 0; rows < kTops; ++rows) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int value = (sum[2 * rows][i] + top[rows][i] * 256) * 256 + sum[2 * rows + 1][i];
          atomicAdd(to + rows * 128 + i * 32, (value + round) >> shift);
        }
      }
    }
  }
  __syncthreads();

  // Place of row and column in a tile's sums.
  const auto place = [](int row, int column) {
    return (row / 8 * 2 + column % 2) * 32 + row % 8 * 4 + column / 2;
  };
  const int outputs = share.count * kPanelRows * batch;
  int ranks = 1, rank = 0;
#if __CUDA_ARCH__ >= 900
  namespace cg = cooperative_groups;
  if (gridDim.y > 1) {
    cg::this_cluster().sync();
    ranks = gridDim.y;
    rank = blockIdx.y;
  }
#endif
  for (int i = rank * kThreads + threadIdx.x; i < outputs; i += ranks * kThreads) {
    const int r = i % kPanelRows, rest = i / kPanelRows;
    const int tile = rest % share.count, row = rest / share.count;
    const int n = (share.first + tile) * kPanelRows + r;
    if (n >= w.rows) continue;
    const int sum_at = (tile * kTops + row / 8) * 128 + place(r, row % 8);
    float product = 0;
    for (int k = 0; k < ranks; ++k) {
      const int* theirs = sums;
      const uint32_t* peaks = activations.peaks;
#if __CUDA_ARCH__ >= 900
      if (ranks > 1) {
        theirs = cg::this_cluster().map_shared_rank(sums, k);
        peaks = cg::this_cluster().map_shared_rank(activations.peaks, k);
      }
#endif
      const int chunks = Part(w.chunks, k + 1, ranks) - Part(w.chunks, k, ranks);
      const float unit = static_cast<float>(1 << (32 - __clz(chunks)));
      product += static_cast<float>(theirs[sum_at]) * (unit * activations.Step(peaks[row]));
    }
    const float value = product * w.scales[n] + (w.offsets != nullptr ? w.offsets[n] : 0.0f);
    const int64_t to = static_cast<int64_t>(row) * w.rows + n;
    if (half_y) {
      static_cast<__half*>(y)[to] = __float2half_rn(value);
    } else {
      static_cast<float*>(y)[to] = value;
    }
  }
#if __CUDA_ARCH__ >= 900
  // Nobody's shared memory may go while others read it.
  if (gridDim.y > 1) cg::this_cluster().sync();
#endif
}

// How a weight and a batch are spread over the device.
struct Spread {
  int blocks, splits;
  size_t shared;  // memory of a block
};

// fixed is the shared memory that a block takes whatever its share; false if nothing fits.
inline bool SpreadOver(const Device& device, const PackedView& w, int batch, int fixed, int max_splits,
                       Spread* spread) {
  const int tile_bytes = TopTiles(SmallRoom(batch)) * 512;
  const auto chunk_bytes = [&](int splits) { return (w.chunks + splits - 1) / splits * batch * kChunkBytes; };
  // Columns are split among the blocks of a cluster until their activations are quickly made, or while that fills the
  // device. Clusters of more than two leave multiprocessors idle, so many rows of the weight are worth no more.
  constexpr int kEnough = 20 << 10;
  int splits = 1;
  while (device.hopper && splits < 8 && splits * 4 <= w.chunks && w.tiles * splits * 2 <= device.processors) splits *= 2;
  while (device.hopper && splits < max_splits && splits * 4 <= w.chunks && chunk_bytes(splits) > kEnough) splits *= 2;
  const int room = device.shared_limit - fixed - chunk_bytes(splits);
  const int most_tiles = room / tile_bytes;
  if (room < 0 || most_tiles < 1) return false;
  spread->splits = splits;
  spread->blocks = std::max(std::min(w.tiles, device.processors / splits), (w.tiles + most_tiles - 1) / most_tiles);
  const int tiles = (w.tiles + spread->blocks - 1) / spread->blocks;
  spread->shared = static_cast<size_t>(fixed + tiles * tile_bytes + chunk_bytes(splits));
  return true;
}

// Launches the kernel over the whole device; false if the activations do not fit.
template <Form kForm, int kRoom, int kWarps, int kDepth, Work kWork = kMultiply>
bool LaunchSmall(const PackedView& w, const void* a, bool half_a, int batch, void* y, bool half_y, int max_splits,
                 cudaStream_t stream) {
  const auto kernel = Small<kForm, kRoom, kWarps, kDepth, kWork>;
  const Device& device = CurrentDevice();
  constexpr int kFixed = TableWords(kForm) * 4 + kWarps * kDepth * PanelBytes(kForm) + kMaxSmallBatch * 4;
  Spread spread;
  if (!SpreadOver(device, w, batch, kFixed, max_splits, &spread)) return false;
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, device.shared_limit),
        "reserve shared memory");
  LaunchOverlapped("multiply a small batch", kernel,
                   dim3(static_cast<unsigned>(spread.blocks), static_cast<unsigned>(spread.splits)), dim3(kWarps * 32),
                   spread.shared, static_cast<unsigned>(spread.splits), device.hopper, stream, w, a, half_a, batch, y,
                   half_y);
  return true;
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_CUH_
