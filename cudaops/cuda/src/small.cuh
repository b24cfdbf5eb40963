// The kernel of small.h.
//
// A block takes a range of row tiles, a warp an equal share of the block's panels, in an order that goes through the tiles of one
// chunk of columns before the next: a warp thus keeps the activations of its chunk in registers, and the warps need not wait for
// each other. Panels come through a ring in shared memory, private to the warp, every lane fetching the bytes that it will use
// itself. Sums are integers, so they can be added in any order.
//
// What does not depend on the activations is done before the kernel ahead has ended: the table, the first panels of the ring, and
// the bytes of the first one where they have room in registers. A single row of activations every block makes bytes of by itself,
// since a kernel of its own for that would take longer; several are prepared by one.

#ifndef COSETQ_CUDA_SMALL_CUH_
#define COSETQ_CUDA_SMALL_CUH_

#include <cuda_fp16.h>

#include <algorithm>

#include "activations.cuh"
#include "device.h"
#include "errors.h"
#include "lookup.cuh"
#include "overlap.h"
#include "shared.cuh"
#include "small.h"

namespace cosetq::cuda {

// Rows of activations that a kernel for a batch has room for, and the tiles of eight columns of B that they take. A row's high bytes
// are one column, its low bytes another: of a single row, columns 0 and 2, which lie in register 0 of two lanes; up to four rows
// share a tile, high bytes first; with more, tiles alternate.
constexpr int SmallRoom(int64_t batch) { return batch <= 1 ? 1 : batch <= 4 ? 4 : batch <= 8 ? 8 : 16; }
constexpr int ColumnTiles(int room) { return (room + 3) / 4; }

namespace {

struct Column {
  int tile, column;
};
template <int kRoom>
__device__ __forceinline__ Column ColumnOf(int row, bool low) {
  if constexpr (kRoom == 1) return {0, 2 * low};
  if constexpr (kRoom == 4) return {0, row + 4 * low};
  return {row / 8 * 2 + low, row % 8};
}

// Activations made ready by a kernel of their own: [chunk][row] as ChunkRow has it, and the peaks of the rows.
struct Prepared {
  unsigned char* chunks;
  uint32_t* peaks;

  static size_t Bytes(const PackedView& w, int64_t batch) {
    return static_cast<size_t>(batch) * (static_cast<size_t>(w.chunks) * ChunkRow::kBytes + 4);
  }
  Prepared(void* memory, const PackedView& w, int batch)
      : chunks(static_cast<unsigned char*>(memory)),
        peaks(reinterpret_cast<uint32_t*>(chunks + static_cast<size_t>(w.chunks) * static_cast<size_t>(batch) * ChunkRow::kBytes)) {}

  __device__ __forceinline__ const unsigned char* At(int chunk, int row, int batch) const {
    return chunks + (static_cast<int64_t>(chunk) * batch + row) * ChunkRow::kBytes;
  }
};

// The activations of one chunk as a lane multiplies them: lane 4c + t has column c of the tiles.
template <int kRoom>
struct Operands {
  static constexpr int kTiles = ColumnTiles(kRoom);
  uint4 data[kPanelSteps / 2][kTiles];
  uint2 rests[kTiles];

  // Another kernel has written them a moment ago, so they are read past the first-level cache.
  __device__ __forceinline__ void Load(const Prepared& from, int chunk, int batch, int lane) {
    const int t = lane % 4, column = lane / 4;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int row = kRoom == 4 ? column % 4 : tile / 2 * 8 + column, low = kRoom == 4 ? column / 4 : tile % 2;
      const unsigned char* at = from.At(chunk, row, batch) + low * ChunkRow::kLow;
      const bool there = row < batch;
#pragma unroll
      for (int pair = 0; pair < kPanelSteps / 2; ++pair) {
        data[pair][tile] = make_uint4(0, 0, 0, 0);
        if (there) data[pair][tile] = __ldcg(reinterpret_cast<const uint4*>(at + ChunkRow::Data(2 * pair, t)));
      }
      rests[tile] = make_uint2(0, 0);
      if (there) rests[tile] = __ldcg(reinterpret_cast<const uint2*>(at + ChunkRow::Rest(0, t)));
    }
  }

  // The same of a single row from the activations themselves: a lane makes a group, and a stage of the warp's own in shared memory
  // brings each to its place. Adds the sums for the biases to [high, low] if asked to.
  __device__ __forceinline__ void Make(const ByteView& w, float x[kGroup], uint32_t peak, int lane, uint32_t stage, int* biases, bool add) {
    const GroupBytes bytes(w, x, ScaleOf(peak));
    const int step = lane / kStepGroups, t = lane % kStepGroups, column = lane / 4, low = column / 2;
    StoreShared8(stage + ChunkRow::Data(step, t), bytes.high[0], bytes.high[1]);
    StoreShared8(stage + ChunkRow::kLow + ChunkRow::Data(step, t), bytes.low[0], bytes.low[1]);
    StoreShared1(stage + ChunkRow::Rest(step, t), bytes.high_rest);
    StoreShared1(stage + ChunkRow::kLow + ChunkRow::Rest(step, t), bytes.low_rest);
    __syncwarp();
    const bool there = column == 0 || column == 2;
#pragma unroll
    for (int pair = 0; pair < kPanelSteps / 2; ++pair) {
      data[pair][0] = make_uint4(0, 0, 0, 0);
      if (there) data[pair][0] = LoadShared16(stage + low * ChunkRow::kLow + ChunkRow::Data(2 * pair, t));
    }
    rests[0] = make_uint2(0, 0);
    if (there) rests[0] = LoadShared8(stage + low * ChunkRow::kLow + ChunkRow::Rest(0, t));
    __syncwarp();
    if (add) {
      const int high_sum = __reduce_add_sync(0xffffffffu, bytes.high_bias), low_sum = __reduce_add_sync(0xffffffffu, bytes.low_bias);
      if (lane == 0) atomicAdd(biases, high_sum), atomicAdd(biases + 1, low_sum);
    }
  }
};

// How much of the work is done, for measuring what each part costs: the weights fetched, decoded, multiplied.
enum Work { kFetch, kDecode, kMultiply };

template <Form kForm, int kStep = 0, typename Use>
__device__ __forceinline__ void ForEachStep(const PanelCodes<kForm>& codes, uint32_t lane_table, const uint32_t gains[2][2],
                                            uint32_t base, const Use& use) {
  if constexpr (kStep < kPanelSteps) {
    uint32_t a[4];
    DecodeStep<kForm, kStep>(codes, lane_table, gains, base, a);
    use(std::integral_constant<int, kStep>(), a);
    ForEachStep<kForm, kStep + 1>(codes, lane_table, gains, base, use);
  }
}

// Shared memory of a block, by address from its begin.
template <Form kForm, int kRoom, int kWarps, int kDepth>
struct SmallLayout {
  static constexpr int kTileBytes = ColumnTiles(kRoom) * 512 + 2 * kPanelRows * 4;
  static constexpr int kRings = TableWords(kForm) * 4;
  static constexpr int kStages = kRings + kWarps * kDepth * PanelBytes(kForm);
  static constexpr int kPeaks = kStages + (kRoom == 1 ? kWarps * ChunkRow::kBias : 0);
  static constexpr int kBiases = kPeaks + kRoom * 4;
  static constexpr int kTiles = (kBiases + kRoom * 8 + 15) / 16 * 16;

  static int Bytes(int tiles) { return kTiles + tiles * kTileBytes; }
};

template <Form kForm, int kRoom, int kWarps, int kDepth, bool kAhead, Work kWork, typename T>
__global__ void __launch_bounds__(kWarps * 32, 1)
    Small(const __grid_constant__ PackedView w, const T* a, const __grid_constant__ Prepared prepared, int batch, void* y, bool half_y) {
  using Layout = SmallLayout<kForm, kRoom, kWarps, kDepth>;
  constexpr int kVectors = PanelVectors(kForm), kSlot = PanelBytes(kForm), kThreads = kWarps * 32, kColumnTiles = ColumnTiles(kRoom);
  LetNextKernelBegin();
  extern __shared__ __align__(128) unsigned char shared[];
  auto* peaks = reinterpret_cast<uint32_t*>(shared + Layout::kPeaks);
  int* biases = reinterpret_cast<int*>(shared + Layout::kBiases);  // [row][high, low]
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32;

  // The loads first, that they are all on their way at the same time.
  const Share share(w, blockIdx.x);
  const int items = share.count * w.chunks, begin = Part(items, warp, kWarps), end = Part(items, warp + 1, kWarps);
  const uint32_t my_ring = address + Layout::kRings + warp * kDepth * kSlot + lane * 16;
  const unsigned char* next = w.panels + (static_cast<int64_t>(share.first) * w.chunks + begin) * kSlot + lane * 16;
  int left = end - begin;
  const auto fetch = [&](int slot) {
    if (left > 0) {
      const uint32_t to = my_ring + slot * kSlot;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) CopyAsync16(to + v * 512, next + v * 512);
      CopyAsync4(to + kVectors * 512 - lane * 12, next + kVectors * 512 - lane * 12);
    }
    CommitCopies();
    next += kSlot;
    --left;
  };
#pragma unroll
  for (int i = 0; i < kDepth; ++i) fetch(i);
  Table<kForm, kThreads> table(w);
  const int rows = share.count * kPanelRows, first_row = share.first * kPanelRows;
  auto* scales = reinterpret_cast<float*>(shared + Layout::kTiles);
  float* offsets = scales + rows;
  int* sums = reinterpret_cast<int*>(offsets + rows);  // [tile][tile of columns][register][lane]
  for (int i = threadIdx.x; i < rows; i += kThreads) {
    CopyAsync4(static_cast<uint32_t>(__cvta_generic_to_shared(scales + i)), w.scales + first_row + i);
    if (w.offsets != nullptr && first_row + i < w.rows) {
      CopyAsync4(static_cast<uint32_t>(__cvta_generic_to_shared(offsets + i)), w.offsets + first_row + i);
    } else {
      offsets[i] = 0;
    }
  }
  for (int i = threadIdx.x; i < share.count * kColumnTiles * 128; i += kThreads) sums[i] = 0;
  if (threadIdx.x < kRoom) peaks[threadIdx.x] = 0, biases[2 * threadIdx.x] = 0, biases[2 * threadIdx.x + 1] = 0;
  table.Store(reinterpret_cast<uint32_t*>(shared));
  __syncthreads();

  const uint32_t lane_table = address + lane * 4;
  int slot = 0;
  PanelCodes<kForm> codes;
  uint32_t gains[2][2];
  const auto take = [&] {
    WaitForCopies<kDepth - 1>();
    const uint32_t from = my_ring + slot * kSlot;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const uint4 vector = LoadShared16(from + v * 512);
      codes.words[4 * v] = vector.x;
      codes.words[4 * v + 1] = vector.y;
      codes.words[4 * v + 2] = vector.z;
      codes.words[4 * v + 3] = vector.w;
    }
    ExpandGains(w.bytes.gains, LoadShared4(from + kVectors * 512 - lane * 12), gains);
    fetch(slot);
    slot = slot + 1 == kDepth ? 0 : slot + 1;
  };
  uint32_t first_gains[4], first_steps[kPanelSteps][4];
  if (kAhead && begin < end) {
    take();
    first_gains[0] = gains[0][0], first_gains[1] = gains[1][0], first_gains[2] = gains[0][1], first_gains[3] = gains[1][1];
    ForEachStep<kForm>(codes, lane_table, gains, w.bytes.base, [&](auto step, const uint32_t of[4]) {
#pragma unroll
      for (int r = 0; r < 4; ++r) first_steps[step()][r] = of[r];
    });
  }
  WaitForKernelsAhead();

  int tile = begin % share.count, chunk = begin / share.count;
  Operands<kRoom> b;
  constexpr int kOwnRows = (kRoom + kWarps - 1) / kWarps;  // of the activations: warp, warp + kWarps
  int high_biases[kOwnRows] = {}, low_biases[kOwnRows] = {};
  const auto make = [&](float x[kGroup]) {
    b.Make(w.bytes, x, peaks[0], lane, address + Layout::kStages + warp * ChunkRow::kBias, biases, tile == 0);
  };
  if constexpr (kRoom == 1) {
    float x[kGroup];
    LoadGroup(w, a, chunk * kPanelGroups + lane, x);
    const uint32_t peak = __reduce_max_sync(0xffffffffu, PeakOf(a, w.cols, threadIdx.x, kThreads));
    if (lane == 0) atomicMax(peaks, peak);
    __syncthreads();
    if (begin < end) make(x);
  } else {
    if (begin < end) b.Load(prepared, chunk, batch, lane);
    // Needed in the end: nobody waits for them here.
#pragma unroll
    for (int own = 0; own < kOwnRows; ++own) {
      const int row = warp + own * kWarps;
      for (int i = lane; i < w.chunks && row < batch; i += 32) {
        const int2 of = __ldcg(reinterpret_cast<const int2*>(prepared.At(i, row, batch) + ChunkRow::kBias));
        high_biases[own] += of.x;
        low_biases[own] += of.y;
      }
    }
  }

  const uint32_t first_sum = address + static_cast<uint32_t>(reinterpret_cast<unsigned char*>(sums) - shared) + lane * 4;
  uint32_t to = first_sum + tile * kColumnTiles * 512;
  bool turned = false;  // to another chunk
  const auto add = [&](const int (&sum)[kColumnTiles][4]) {
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) {
#pragma unroll
      for (int r = 0; r < 4; r += kRoom == 1 ? 2 : 1) AddShared(to + static_cast<uint32_t>(i * 4 + r) * 128, sum[i][r]);
    }
    to += kColumnTiles * 512;
    if (++tile == share.count) {
      tile = 0;
      ++chunk;
      to = first_sum;
      turned = true;
    }
  };
  const auto multiply = [&](const uint32_t of[4], int step, int (&sum)[kColumnTiles][4]) {
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) {
      const uint4& v = b.data[step / 2][i];
      MultiplyAdd(sum[i], of, step % 2 == 0 ? v.x : v.z, step % 2 == 0 ? v.y : v.w);
    }
  };
  int item = begin;
  if (kAhead && item < end) {
    int sum[kColumnTiles][4] = {};
#pragma unroll
    for (int i = 0; i < kColumnTiles; ++i) MultiplyAdd(sum[i], first_gains, b.rests[i].x, b.rests[i].y);
#pragma unroll
    for (int step = 0; step < kPanelSteps; ++step) multiply(first_steps[step], step, sum);
    add(sum);
    ++item;
  }
  for (; item < end; ++item) {
    if (turned) {
      turned = false;
      if constexpr (kRoom == 1) {
        float x[kGroup];
        LoadGroup(w, a, chunk * kPanelGroups + lane, x);
        make(x);
      } else {
        b.Load(prepared, chunk, batch, lane);
      }
    }
    take();
    int sum[kColumnTiles][4] = {};
    if constexpr (kWork == kFetch) {
#pragma unroll
      for (int i = 0; i < kVectors * 4; ++i) sum[0][i % 4] ^= static_cast<int>(codes.words[i] ^ gains[0][0]);
    } else {
      // The gains themselves are A for what goes with them: a byte per step and lane is a column of A.
      const uint32_t gain_bytes[4] = {gains[0][0], gains[1][0], gains[0][1], gains[1][1]};
#pragma unroll
      for (int i = 0; i < kColumnTiles; ++i) MultiplyAdd(sum[i], gain_bytes, b.rests[i].x, b.rests[i].y);
      ForEachStep<kForm>(codes, lane_table, gains, w.bytes.base, [&](auto step, const uint32_t of[4]) {
        if constexpr (kWork == kDecode) {
#pragma unroll
          for (int i = 0; i < 4; ++i) sum[0][i] ^= static_cast<int>(of[i]);
        } else {
          multiply(of, step(), sum);
        }
      });
    }
    add(sum);
  }
  if constexpr (kRoom > 1) {
#pragma unroll
    for (int own = 0; own < kOwnRows; ++own) {
      const int row = warp + own * kWarps;
      if (row >= batch) continue;
      biases[2 * row] = __reduce_add_sync(0xffffffffu, high_biases[own]);
      biases[2 * row + 1] = __reduce_add_sync(0xffffffffu, low_biases[own]);
      peaks[row] = __ldcg(prepared.peaks + row);
    }
  }
  CommitCopies();  // those of the scales, if no panel's took them along
  WaitForCopies<0>();
  __syncthreads();

  // Sixteen lanes take the rows of a tile, for one row of the activations.
  const int r = threadIdx.x % kPanelRows;
  for (int i = threadIdx.x / kPanelRows; i < share.count * kRoom; i += kThreads / kPanelRows) {
    const int row = i % kRoom, at = i / kRoom, n = first_row + at * kPanelRows + r;
    if (row >= batch || n >= w.rows) continue;
    const auto sum = [&](bool low) {
      const Column c = ColumnOf<kRoom>(row, low);
      const int place = (r / 8 * 2 + c.column % 2) * 32 + r % 8 * 4 + c.column / 2;  // of the registers of a product
      return static_cast<float>(sums[(at * kColumnTiles + c.tile) * 128 + place] - biases[2 * row + low]);
    };
    const float product = (sum(false) * 256.0f + sum(true)) * StepOf(peaks[row]);
    const float value = product * scales[at * kPanelRows + r] + offsets[at * kPanelRows + r];
    const int64_t out = static_cast<int64_t>(row) * w.rows + n;
    if (half_y) {
      static_cast<__half*>(y)[out] = __float2half_rn(value);
    } else {
      static_cast<float*>(y)[out] = value;
    }
  }
}

// A block takes four chunks of one row of activations, and finds the peak of the whole row by itself.
constexpr int kPrepareThreads = 4 * kPanelGroups;

template <typename T>
__global__ void __launch_bounds__(kPrepareThreads)
    Prepare(const __grid_constant__ PackedView w, const T* a, const __grid_constant__ Prepared to, int batch) {
  __shared__ uint32_t peak;
  LetNextKernelBegin();
  if (threadIdx.x == 0) peak = 0;
  __syncthreads();
  const int row = blockIdx.y, group = blockIdx.x * kPrepareThreads + threadIdx.x, chunk = group / kPanelGroups;
  const T* from = a + static_cast<int64_t>(row) * w.cols;
  WaitForKernelsAhead();
  float x[kGroup];
  LoadGroup(w, from, group, x);
  const uint32_t largest = __reduce_max_sync(0xffffffffu, PeakOf(from, w.cols, threadIdx.x, kPrepareThreads));
  if (threadIdx.x % 32 == 0) atomicMax(&peak, largest);
  __syncthreads();
  if (group == 0) to.peaks[row] = peak;
  if (chunk >= w.chunks) return;
  const GroupBytes bytes(w.bytes, x, ScaleOf(peak));
  const int lane = threadIdx.x % 32, step = lane / kStepGroups, t = lane % kStepGroups;
  unsigned char* out = to.chunks + (static_cast<int64_t>(chunk) * batch + row) * ChunkRow::kBytes;
  *reinterpret_cast<uint2*>(out + ChunkRow::Data(step, t)) = make_uint2(bytes.high[0], bytes.high[1]);
  *reinterpret_cast<uint2*>(out + ChunkRow::kLow + ChunkRow::Data(step, t)) = make_uint2(bytes.low[0], bytes.low[1]);
  out[ChunkRow::Rest(step, t)] = static_cast<unsigned char>(bytes.high_rest);
  out[ChunkRow::kLow + ChunkRow::Rest(step, t)] = static_cast<unsigned char>(bytes.low_rest);
  const int high = __reduce_add_sync(0xffffffffu, bytes.high_bias), low = __reduce_add_sync(0xffffffffu, bytes.low_bias);
  if (lane == 0) *reinterpret_cast<int2*>(out + ChunkRow::kBias) = make_int2(high, low);
}

// Launches the kernels over the whole device; false if the weight does not fit. kAhead: the first panel of a warp is decoded before
// the activations are there.
template <Form kForm, int kRoom, int kWarps, int kDepth, bool kAhead, Work kWork = kMultiply, typename T>
bool LaunchSmall(const PackedView& w, const T* a, int batch, void* workspace, void* y, bool half_y, cudaStream_t stream) {
  const auto kernel = Small<kForm, kRoom, kWarps, kDepth, kAhead, kWork, T>;
  const Device& device = CurrentDevice();
  const int shared = SmallLayout<kForm, kRoom, kWarps, kDepth>::Bytes((w.tiles + w.shares - 1) / w.shares);
  if (shared > device.shared_limit) return false;
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "reserve shared memory");
  const Prepared prepared(workspace, w, batch);
  if constexpr (kRoom > 1) {
    LaunchOverlapped("prepare activations", Prepare<T>, dim3(static_cast<unsigned>((w.chunks + 3) / 4), static_cast<unsigned>(batch)), kPrepareThreads, 0,
                     device.hopper, stream, w, a, prepared, batch);
  }
  LaunchOverlapped("multiply a small batch", kernel, dim3(static_cast<unsigned>(w.shares)), kWarps * 32, static_cast<size_t>(shared), device.hopper,
                   stream, w, a, prepared, batch, y, half_y);
  return true;
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SMALL_CUH_
