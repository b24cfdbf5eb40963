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

#include <cuda_fp16.h>

#include <algorithm>

#include "device.h"
#include "errors.h"
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

// The row tiles of a block: first ... first + count - 1.
struct Share {
  int first, count;
};

__device__ __forceinline__ int Part(int64_t total, int i, int parts) { return static_cast<int>(total * i / parts); }

// Walks through the panels of a warp.
struct Walk {
  int tile, chunk;

  __device__ Walk(const Share& s, int item) : tile(item % s.count), chunk(item / s.count) {}

  __device__ void Advance(const Share& s) {
    if (++tile == s.count) {
      tile = 0;
      ++chunk;
    }
  }
};

// How much of the work is done, for measuring what each part costs: the weights fetched, decoded, multiplied.
enum Work { kFetch, kDecode, kMultiply };

template <Form kForm, int kRoom, Work kWork, int kStep = 0>
__device__ __forceinline__ void Steps(const PanelCodes<kForm>& codes, uint32_t lane_table, uint32_t ratio,
                                      const uint32_t gains[2][2], const ChunkActivations<kRoom>& b,
                                      int sums[DataTiles(kRoom)][4]) {
  if constexpr (kStep < kPanelSteps) {
    uint32_t a[4];
    DecodeStep<kForm, kStep>(codes, lane_table, ratio, gains, a);
#pragma unroll
    for (int i = 0; i < 4 && kWork == kDecode; ++i) sums[0][i] ^= static_cast<int>(a[i]);
#pragma unroll
    for (int tile = 0; tile < DataTiles(kRoom) && kWork == kMultiply; ++tile) {
      const uint4& v = b.data[kStep / 2][tile];
      MultiplyAdd(sums[tile], a, kStep % 2 == 0 ? v.x : v.z, kStep % 2 == 0 ? v.y : v.w);
    }
    Steps<kForm, kRoom, kWork, kStep + 1>(codes, lane_table, ratio, gains, b, sums);
  }
}

template <Form kForm, int kRoom, int kWarps, int kDepth, Work kWork>
__global__ void __launch_bounds__(kWarps * 32, 1) Small(PackedView w, Fragments activations, int batch, void* y, bool half_y) {
  constexpr int kTiles = DataTiles(kRoom), kTops = TopTiles(kRoom);
  constexpr int kVectors = PanelVectors(kForm), kSlot = PanelBytes(kForm), kThreads = kWarps * 32;
  LetNextKernelBegin();
  extern __shared__ __align__(128) unsigned char shared[];
  uint32_t* table = reinterpret_cast<uint32_t*>(shared);
  unsigned char* ring = shared + TableWords(kForm) * 4;
  float* scales = reinterpret_cast<float*>(ring + kWarps * kDepth * kSlot);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  Share share;
  share.first = Part(w.tiles, blockIdx.x, gridDim.x);
  share.count = Part(w.tiles, blockIdx.x + 1, gridDim.x) - share.first;
  float* offsets = scales + share.count * kPanelRows;
  int* sums = reinterpret_cast<int*>(offsets + share.count * kPanelRows);  // [tile][eight rows of A][register][lane]
  const int items = share.count * w.chunks;
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
  for (int i = threadIdx.x; i < share.count * kPanelRows; i += kThreads) {
    const int n = share.first * kPanelRows + i;
    scales[i] = w.scales[n];
    offsets[i] = w.offsets != nullptr && n < w.rows ? w.offsets[n] : 0.0f;
  }
  __syncthreads();
  WaitForKernelsAhead();

  const uint32_t lane_table = static_cast<uint32_t>(__cvta_generic_to_shared(table)) + lane * 4;
  // A panel's sum takes 31 bits at most; those of all chunks must fit as well.
  const int shift = 32 - __clz(w.chunks), round = 1 << shift >> 1;
  ChunkActivations<kRoom> b;
  Walk at(share, begin);
  int loaded = -1, slot_out = 0;
  for (int item = begin; item < end; ++item, at.Advance(share)) {
    if (at.chunk != loaded) {
      b.Load(activations, at.chunk, lane);
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
      for (int i = 0; i < kVectors * 4; ++i) sum[0][i % 4] ^= static_cast<int>(codes.words[i] ^ packed);
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
    Steps<kForm, kRoom, kWork>(codes, lane_table, 1u << w.shift, gains, b, sum);
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
  for (int i = threadIdx.x; i < outputs; i += kThreads) {
    const int r = i % kPanelRows, rest = i / kPanelRows;
    const int tile = rest % share.count, row = rest / share.count;
    const int n = (share.first + tile) * kPanelRows + r;
    if (n >= w.rows) continue;
    const int sum = sums[(tile * kTops + row / 8) * 128 + place(r, row % 8)];
    const float product = static_cast<float>(sum) * static_cast<float>(1 << shift) * activations.Step(__ldcg(activations.peaks + row));
    const float value = product * scales[tile * kPanelRows + r] + offsets[tile * kPanelRows + r];
    const int64_t to = static_cast<int64_t>(row) * w.rows + n;
    if (half_y) {
      static_cast<__half*>(y)[to] = __float2half_rn(value);
    } else {
      static_cast<float*>(y)[to] = value;
    }
  }
}

// A block takes four chunks of one row of activations, and finds the peak of the whole row by itself.
constexpr int kPrepareThreads = 4 * kPanelGroups;

template <typename T>
__global__ void __launch_bounds__(kPrepareThreads) Prepare(PackedView w, const T* a, Fragments to) {
  __shared__ uint32_t peak;
  LetNextKernelBegin();
  if (threadIdx.x == 0) peak = 0;
  __syncthreads();
  WaitForKernelsAhead();
  const int row = blockIdx.y, group = blockIdx.x * kPrepareThreads + threadIdx.x;
  const T* from = a + static_cast<int64_t>(row) * w.cols;
  uint32_t largest = 0;  // the bits of magnitudes are ordered like them, NaN above infinity
  const auto take = [&](T x) { largest = max(largest, __float_as_uint(ToFloat(x)) & 0x7fffffffu); };
  constexpr int kVector = 16 / sizeof(T);
  if (reinterpret_cast<uintptr_t>(from) % 16 == 0 && w.cols % kVector == 0) {
#pragma unroll 4
    for (int i = threadIdx.x; i < w.cols / kVector; i += kPrepareThreads) {
      const uint4 v = reinterpret_cast<const uint4*>(from)[i];
#pragma unroll
      for (int j = 0; j < kVector; ++j) take(reinterpret_cast<const T*>(&v)[j]);
    }
  } else {
#pragma unroll 4
    for (int i = threadIdx.x; i < w.cols; i += kPrepareThreads) take(from[i]);
  }
  largest = __reduce_max_sync(0xffffffffu, largest);
  if (threadIdx.x % 32 == 0) atomicMax(&peak, largest);
  __syncthreads();
  if (group < w.chunks * kPanelGroups) {
    float x[kGroup];
    LoadGroup(w, from, group, x);
    to.Store(w, x, group, row, peak);
  }
  if (group == 0) to.peaks[row] = peak;
}

// Launches the kernels over the whole device; false if the weight does not fit.
template <Form kForm, int kRoom, int kWarps, int kDepth, Work kWork = kMultiply>
bool LaunchSmall(const PackedView& w, const void* a, bool half_a, int batch, void* workspace, void* y, bool half_y,
                 cudaStream_t stream) {
  const auto kernel = Small<kForm, kRoom, kWarps, kDepth, kWork>;
  const Device& device = CurrentDevice();
  constexpr int kFixed = TableWords(kForm) * 4 + kWarps * kDepth * PanelBytes(kForm), kTileBytes = TopTiles(kRoom) * 512 + 2 * kPanelRows * 4;
  const int most_tiles = (device.shared_limit - kFixed) / kTileBytes;
  if (most_tiles < 1) return false;
  const int blocks = std::max(std::min(w.tiles, device.processors), (w.tiles + most_tiles - 1) / most_tiles);
  const int shared = kFixed + (w.tiles + blocks - 1) / blocks * kTileBytes;
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "reserve shared memory");
  const Fragments activations = FragmentsAt(workspace, w, batch);
  const dim3 rows(static_cast<unsigned>((w.chunks + 3) / 4), static_cast<unsigned>(batch));
  if (half_a) {
    LaunchOverlapped("prepare activations", Prepare<__half>, rows, kPrepareThreads, 0, device.hopper, stream, w,
                     static_cast<const __half*>(a), activations);
  } else {
    LaunchOverlapped("prepare activations", Prepare<float>, rows, kPrepareThreads, 0, device.hopper, stream, w,
                     static_cast<const float*>(a), activations);
  }
  LaunchOverlapped("multiply a small batch", kernel, dim3(static_cast<unsigned>(blocks)), kWarps * 32,
                   static_cast<size_t>(shared), device.hopper, stream, w, activations, batch, y, half_y);
  return true;
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_CUH_
