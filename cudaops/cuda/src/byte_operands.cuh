// Activations of few rows as bytes (activations.cuh): where a chunk of them lies, made ready, and how lanes load it.

#ifndef COSETQ_CUDA_BYTE_OPERANDS_CUH_
#define COSETQ_CUDA_BYTE_OPERANDS_CUH_

#include <cuda_fp16.h>

#include <algorithm>

#include "activations.cuh"
#include "device.h"
#include "lookup.cuh"
#include "overlap.h"
#include "shared.cuh"

namespace cosetq::cuda {

// Rows of activations that a kernel for a batch has room for, and the tiles of eight columns of B that they take. A row's high bytes
// are one column, its low bytes another. Either way a lane has both of what belongs to a row of A and one of B. Up to four rows
// share a tile, where they alternate; with more, tiles do.
//
// Up to four rows of T are made ready by every block itself, if shared memory has room for them beside all else, which takes so much at most.
template <typename T>
bool OwnActivations(int64_t batch, int64_t cols) {
  const int left = CurrentDevice().shared_limit - (batch <= 1 ? 96 : 152) * 1024;
  return batch <= 4 && batch * cols * static_cast<int64_t>(sizeof(T)) <= std::min(1 << 16, left);
}
constexpr int SmallRoom(int64_t batch, bool own) { return own && batch <= 1 ? 1 : batch <= 4 ? 4 : batch <= 8 ? 8 : 16; }
constexpr int ColumnTiles(int room) { return (room + 3) / 4; }

namespace {

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

// The bytes of what goes with gains.
constexpr int RestBytes(Form form) { return IsColumns(form) ? 2 : 1; }

// Sums of a panel as they begin. The gains themselves are A for what goes with them, so many bytes, the lowest first: a byte per step and lane
// is a column of A.
template <Form kForm, int kBytes>
__device__ __forceinline__ void MultiplyGains(int (&sums)[4], const uint32_t (&gains)[4], const uint2 (&rests)[kBytes]) {
  constexpr int kSecond = kForm == Form::kTwoBits ? 2 : 0;  // of rows g + 8
  static_assert(!IsColumns(kForm) || ColumnUnit(kForm, 1) * (1 << kSecond) == 1);
  const auto shift = [](int& x, int by) { x = static_cast<int>(static_cast<uint32_t>(x) << by); };
  Multiply(sums, gains, rests[kBytes - 1].x, rests[kBytes - 1].y);
#pragma unroll
  for (int byte = kBytes - 2; byte >= 0; --byte) {
#pragma unroll
    for (int i = 0; i < 4; ++i) shift(sums[i], 8);
    MultiplyAdd(sums, gains, rests[byte].x, rests[byte].y);
  }
#pragma unroll
  for (int i = 2; i < 4; ++i) shift(sums[i], kSecond);
}

// The activations of one chunk as a lane multiplies them: lane 4c + t has column c of the tiles; and what the sums of a panel lack so
// that the biases leave them, for the two rows of which the lane has sums.
template <Form kForm, int kRoom>
struct Operands {
  static constexpr int kTiles = ColumnTiles(kRoom), kPairs = kRoom == 16 ? 2 : 1, kRests = RestBytes(kForm);
  uint4 data[kPanelSteps / 2][kTiles];
  uint2 rests[kTiles][kRests];
  int offsets[kPairs][2];

  // Another kernel has written them a moment ago, so they are read past the first-level cache.
  __device__ __forceinline__ void Load(const Prepared& from, int chunk, int batch, int lane) {
    const int t = lane % 4, column = lane / 4;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int row = kRoom == 4 ? column / 2 : tile / 2 * 8 + column, low = kRoom == 4 ? column % 2 : tile % 2;
      const unsigned char* at = from.At(chunk, row, batch) + low * ChunkRow::kLow;
      const bool there = row < batch;
#pragma unroll
      for (int pair = 0; pair < kPanelSteps / 2; ++pair) {
        data[pair][tile] = make_uint4(0, 0, 0, 0);
        if (there) data[pair][tile] = __ldcg(reinterpret_cast<const uint4*>(at + ChunkRow::Data(2 * pair, t)));
      }
#pragma unroll
      for (int i = 0; i < kRests; ++i) {
        rests[tile][i] = make_uint2(0, 0);
        if (there) rests[tile][i] = __ldcg(reinterpret_cast<const uint2*>(at + ChunkRow::Rest(0, t, i)));
      }
    }
    if constexpr (!IsColumns(kForm)) {
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
#pragma unroll
        for (int i = 0; i < (kRoom == 4 ? 1 : 2); ++i) {
          const int row = kRoom == 4 ? t : 8 * pair + 2 * t + i;
          offsets[pair][i] = row < batch ? __ldcg(reinterpret_cast<const int*>(from.At(chunk, row, batch) + ChunkRow::kOffset)) : 0;
        }
      }
    }
  }

  // The same from what Store has brought to the stage of the warp, of rows up to four.
  __device__ __forceinline__ void Collect(uint32_t stage, int batch, int lane) {
    const int t = lane % 4, column = lane / 4, row = column / 2, low = column % 2;
    const uint32_t at = stage + row * ChunkRow::kOffset + low * ChunkRow::kLow;
    const bool there = row < (kRoom == 1 ? 1 : batch);
#pragma unroll
    for (int pair = 0; pair < kPanelSteps / 2; ++pair) {
      data[pair][0] = make_uint4(0, 0, 0, 0);
      if (there) data[pair][0] = LoadShared16(at + ChunkRow::Data(2 * pair, t));
    }
#pragma unroll
    for (int i = 0; i < kRests; ++i) {
      rests[0][i] = make_uint2(0, 0);
      if (there) rests[0][i] = LoadShared8(at + ChunkRow::Rest(0, t, i));
    }
  }
};

// A lane makes a group of a chunk's row and brings it to its place; returns the offset of the row.
template <Form kForm>
__device__ __forceinline__ int StoreGroup(const ByteView& w, float x[kGroup], uint32_t peak, int lane, uint32_t stage) {
  const GroupBytes bytes(w, IsColumns(kForm), x, ScaleOf(peak));
  const auto [step, t] = GroupPlace(kForm, lane);
  StoreShared8(stage + ChunkRow::Data(step, t), bytes.high[0], bytes.high[1]);
  StoreShared8(stage + ChunkRow::kLow + ChunkRow::Data(step, t), bytes.low[0], bytes.low[1]);
#pragma unroll
  for (int i = 0; i < RestBytes(kForm); ++i) {
    StoreShared1(stage + ChunkRow::Rest(step, t, i), bytes.high_rest >> (8 * i));
    StoreShared1(stage + ChunkRow::kLow + ChunkRow::Rest(step, t, i), bytes.low_rest >> (8 * i));
  }
  return IsColumns(kForm) ? 0 : static_cast<int>(__reduce_add_sync(0xffffffffu, static_cast<unsigned>(bytes.Offset())));
}

// A block takes four chunks of one row of activations, and finds the peak of the whole row by itself. It has few threads, so that it
// fits beside a block of the kernel ahead. Rows that
// are not long are kept in shared memory, which is faster than fetching columns one by one.
constexpr int kPrepareThreads = 4 * kPanelGroups, kKeptRow = 1 << 12;

template <typename T>
__global__ void __launch_bounds__(kPrepareThreads)
    Prepare(const __grid_constant__ PackedView w, const T* a, const __grid_constant__ Prepared to, int batch) {
  __shared__ uint32_t peak;
  extern __shared__ __align__(1024) unsigned char shared[];
  LetNextKernelBegin();
  if (threadIdx.x == 0) peak = 0;
  __syncthreads();
  const int row = blockIdx.y, group = blockIdx.x * kPrepareThreads + threadIdx.x, chunk = group / kPanelGroups;
  const T* from = a + static_cast<int64_t>(row) * w.cols;
  T* const copy = w.cols <= kKeptRow ? reinterpret_cast<T*>(shared) : nullptr;
  WaitForKernelsAhead();
  float x[kGroup];
  if (copy == nullptr) LoadGroup(w, from, group, x);
  const uint32_t largest = PeakOf(from, w.cols, threadIdx.x, kPrepareThreads, copy);
  if (threadIdx.x % 32 == 0) atomicMax(&peak, largest);
  __syncthreads();
  if (group == 0) to.peaks[row] = peak;
  if (chunk >= w.chunks) return;
  if (copy != nullptr) LoadGroup(w, copy, group, x);
  const GroupBytes bytes(w.bytes, IsColumns(w.form), x, ScaleOf(peak));
  const int lane = threadIdx.x % 32;
  const auto [step, t] = GroupPlace(w.form, lane);
  unsigned char* out = to.chunks + (static_cast<int64_t>(chunk) * batch + row) * ChunkRow::kBytes;
  *reinterpret_cast<uint2*>(out + ChunkRow::Data(step, t)) = make_uint2(bytes.high[0], bytes.high[1]);
  *reinterpret_cast<uint2*>(out + ChunkRow::kLow + ChunkRow::Data(step, t)) = make_uint2(bytes.low[0], bytes.low[1]);
  for (int i = 0; i < RestBytes(w.form); ++i) {
    out[ChunkRow::Rest(step, t, i)] = static_cast<unsigned char>(bytes.high_rest >> (8 * i));
    out[ChunkRow::kLow + ChunkRow::Rest(step, t, i)] = static_cast<unsigned char>(bytes.low_rest >> (8 * i));
  }
  const int offset = static_cast<int>(__reduce_add_sync(0xffffffffu, static_cast<unsigned>(bytes.Offset())));
  if (lane == 0) *reinterpret_cast<int*>(out + ChunkRow::kOffset) = offset;
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_BYTE_OPERANDS_CUH_
