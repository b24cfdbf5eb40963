// Rows of activations made ready for the kernel of wide.h: slices of float16 numbers or bytes.

#ifndef COSETQ_CUDA_WIDE_ROWS_CUH_
#define COSETQ_CUDA_WIDE_ROWS_CUH_

#include <cuda_fp16.h>

#include "activations.cuh"
#include "finish.cuh"
#include "overlap.h"
#include "rotate.cuh"
#include "wide.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kThreads = 128;  // of a block

// Chunks up to which a row is for a warp, which needs one pass for them, and meets nobody.
constexpr int kWarpChunks = 4;

// The threads that make a row ready: a block, or a warp.
template <bool kWarp>
struct RowThreads {
  static constexpr int kCount = kWarp ? 32 : kThreads, kRows = kThreads / kCount;  // rows of a block

  __device__ __forceinline__ static int Row() { return static_cast<int>(blockIdx.x) * kRows + static_cast<int>(threadIdx.x) / kCount; }
  __device__ __forceinline__ static int Thread() { return static_cast<int>(threadIdx.x) % kCount; }

  // What a block meets by is 0 before, and for one of these alone.
  __device__ __forceinline__ static void Begin(std::initializer_list<uint32_t*> meetings) {
    if (kWarp) return;
    if (threadIdx.x == 0) {
      for (uint32_t* meeting : meetings) *meeting = 0;
    }
    __syncthreads();
  }
  __device__ __forceinline__ static uint32_t Largest(uint32_t x, uint32_t* meeting) {
    x = __reduce_max_sync(0xffffffffu, x);
    if (kWarp) return x;
    if (threadIdx.x % 32 == 0) atomicMax(meeting, x);
    __syncthreads();
    return *meeting;
  }
  __device__ __forceinline__ static int32_t Sum(int32_t x, uint32_t* meeting) {
    x = __reduce_add_sync(0xffffffffu, x);
    if (kWarp) return x;
    if (threadIdx.x % 32 == 0) atomicAdd(meeting, static_cast<uint32_t>(x));
    __syncthreads();
    return static_cast<int32_t>(*meeting);
  }
};

// Two numbers times a scale as float16 numbers. Those that are float16 need none.
__device__ __forceinline__ uint32_t Pack(float x, float y, float scale) {
  const __half2 halves = __floats2half2_rn(x * scale, y * scale);
  return *reinterpret_cast<const uint32_t*>(&halves);
}
__device__ __forceinline__ uint32_t Pack(__half x, __half y, float) {
  const __half2 halves = __halves2half2(x, y);
  return *reinterpret_cast<const uint32_t*>(&halves);
}

// Eight groups next to each other, of a coordinate: those that the lanes of two steps have. Whole: they are all there, or none of them, and aligned.
template <typename T>
__device__ __forceinline__ Eight<T> LoadEight(const PackedView& w, const T* row, int group, int coordinate, bool whole) {
  const int at = group + w.groups * coordinate;
  Eight<T> v = {};
  if (whole) {
    if (group < w.groups) v = *reinterpret_cast<const Eight<T>*>(row + at);
    return v;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) v.x[i] = group + i < w.groups && at + i < w.cols ? row[at + i] : T(0.0f);
  return v;
}

// Where a row of activations goes: its column of a column tile.
struct ColumnPlace {
  unsigned char* to;  // of its first slice
  int column;
  int64_t stride;     // from slice to slice

  __device__ __forceinline__ ColumnPlace(unsigned char* slices, int row, int columns, int all) : column(row % columns) {
    stride = static_cast<int64_t>(columns) * kSliceBytes;
    to = slices + row / columns * all * stride + column * kSliceBytes;
  }
  __device__ __forceinline__ uint4* Piece(int slice, int piece) const {
    return reinterpret_cast<uint4*>(to + slice * stride + (piece ^ column % 8) * 16);
  }
};

// Whether a row, and those that follow it, are whole groups, to be read eight at a time.
template <typename T>
__host__ __device__ __forceinline__ bool Whole(const PackedView& w, const T* row) {
  return w.groups % 8 == 0 && w.groups * kGroup == w.cols && reinterpret_cast<uintptr_t>(row) % 16 == 0;
}

// Clears flags for the kernel behind.
__device__ __forceinline__ void Clear(uint32_t* flags, int count) {
  if (blockIdx.x > 0) return;
  for (int i = threadIdx.x; i < count; i += kThreads) flags[i] = 0;
}

// Makes float16 numbers. A thread reads two coordinates of eight groups, and writes two pieces of a
// slice, of two steps. Blocks are small, so that many rows are on their way at the same time. Loads of two chunks come before the stores
// of the first, which the compiler could not tell from what is loaded.
template <bool kTurned, bool kWarp, typename T>
__global__ void __launch_bounds__(kThreads) PrepareHalves(const __grid_constant__ PackedView w, Turn turn, const T* a, int batch, int columns,
                                                          WideActivations out, uint32_t* flags, int count) {
  using Number = RowNumber<kTurned, T>;
  using Threads = RowThreads<kWarp>;
  __shared__ uint32_t meeting;
  LetNextKernelBegin();
  Threads::Begin({&meeting});
  WaitForKernelsAhead();
  Clear(flags, count);
  const int row = Threads::Row(), thread = Threads::Thread();
  if (row >= batch) return;
  const Number* from = RowOf<kTurned, kThreads>(turn, a + static_cast<int64_t>(row) * w.cols, w.cols);
  float scale = 1, step = 1;
  if (sizeof(Number) == 4) {
    const uint32_t peak = Threads::Largest(PeakOf<kTurned>(from, w.cols, thread, Threads::kCount), &meeting);
    // A power of two that leaves room above and below.
    const int exponent = min(max(static_cast<int>(peak >> 23) - 10, 1), 253);
    step = __uint_as_float(static_cast<uint32_t>(exponent) << 23);
    scale = __uint_as_float(static_cast<uint32_t>(254 - exponent) << 23);
    if (peak >= 0x7f800000u) step = __int_as_float(0x7fffffff), scale = 0;
  }
  const ColumnPlace place(out.slices, row, columns, AllSlices(w, false));
  const bool whole = Whole(w, from);
  const int steps = thread % 4, pair = thread / 4 % 4;  // the first of two steps, halved
  const int all = (w.chunks + 1) / 2 * 2;               // whole warps
  constexpr int kAtOnce = 2, kStride = Threads::kCount / 16;  // chunks of a thread that are on their way together, and how far apart
  for (int first = thread / 16; first < all; first += kAtOnce * kStride) {
    Eight<Number> x[kAtOnce][2];
#pragma unroll
    for (int i = 0; i < 2 * kAtOnce; ++i) {
      const int group = (first + i / 2 * kStride) * kPanelGroups + steps * 8;
      x[i / 2][i % 2] = LoadEight(w, from, group, 2 * pair + i % 2, whole);
    }
#pragma unroll
    for (int i = 0; i < 2 * kAtOnce; ++i) {
      const int chunk = first + i / 2 * kStride, odd = i % 2;
      uint32_t words[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) words[r] = Pack(x[i / 2][0].x[2 * r + odd], x[i / 2][1].x[2 * r + odd], scale);
      if (first / 2 * 2 + i / 2 * kStride < all) ExchangeGroups(steps, words);
      if (chunk < w.chunks) *place.Piece(chunk * 4 + steps, odd * 4 + pair) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
  if (thread == 0) out.steps[row] = step;
}

// Four bytes from floats of 1.5 * 2^23 and more, whose low bits are integers.
__device__ __forceinline__ uint32_t LowBytes(const float x[4]) {
  return __byte_perm(__byte_perm(__float_as_uint(x[0]), __float_as_uint(x[1]), 0x0040),
                     __byte_perm(__float_as_uint(x[2]), __float_as_uint(x[3]), 0x0040), 0x5410);
}

// What the eight groups of a thread have for the gains: minus the products with what is missing of the centre, in the units of the
// activations. Float16 will do for float16, since bytes are made of them.
template <typename T>
struct Corrections;
template <>
struct Corrections<float> {
  float x[8] = {};
  __device__ __forceinline__ void Subtract(const Eight<float>& v, float rest) {
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] -= rest * v.x[i];
  }
  __device__ __forceinline__ void AddLane(int other) {
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] += __shfl_xor_sync(0xffffffffu, x[i], other);
  }
  __device__ __forceinline__ float operator[](int i) const { return x[i]; }
};
template <>
struct Corrections<__half> {
  __half2 x[4] = {};
  __device__ __forceinline__ void Subtract(const Eight<__half>& v, float rest) {
    const __half2 minus = __float2half2_rn(-rest);
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = __hfma2(minus, __halves2half2(v.x[2 * i], v.x[2 * i + 1]), x[i]);
  }
  __device__ __forceinline__ void AddLane(int other) {
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = __hadd2(x[i], __shfl_xor_sync(0xffffffffu, x[i], other));
  }
  __device__ __forceinline__ float operator[](int i) const { return i % 2 == 0 ? __low2float(x[i / 2]) : __high2float(x[i / 2]); }
};

// The largest magnitude of eight numbers, as the bits of a float.
__device__ __forceinline__ uint32_t LargestOf(const Eight<float>& v) {
  const auto* words = reinterpret_cast<const uint4*>(v.x);
  return max(Magnitude(words[0], 0.0f), Magnitude(words[1], 0.0f));
}
__device__ __forceinline__ uint32_t LargestOf(const Eight<__half>& v) {
  return FloatMagnitude(Magnitude(*reinterpret_cast<const uint4*>(v.x), __half()), __half());
}

// Rounds to bytes. A thread reads a block of eight groups.
template <bool kTurned, bool kWarp, typename T>
__global__ void __launch_bounds__(kThreads) PrepareBytes(const __grid_constant__ PackedView w, Turn turn, const T* a, int batch, int columns,
                                                         WideActivations out, uint32_t* flags, int count) {
  using Number = RowNumber<kTurned, T>;
  using Threads = RowThreads<kWarp>;
  __shared__ uint32_t meetings[3];
  LetNextKernelBegin();
  Threads::Begin({meetings, meetings + 1, meetings + 2});
  WaitForKernelsAhead();
  Clear(flags, count);
  const int row = Threads::Row(), thread = Threads::Thread();
  if (row >= batch) return;
  const Number* from = RowOf<kTurned, kThreads>(turn, a + static_cast<int64_t>(row) * w.cols, w.cols);
  const bool whole = Whole(w, from);
  const int steps = thread % 4, block = thread / 4 % 2;
  constexpr int kStride = Threads::kCount / 8;
  const int first = thread / 8, all = (w.chunks + 3) / 4 * 4;  // whole warps
  Eight<Number> x[4];  // [coordinate]
  Corrections<Number> correction;
  const auto load = [&](int chunk) {
    const int group = chunk * kPanelGroups + steps * 8;
    correction = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      x[j] = LoadEight(w, from, group, 4 * block + j, whole);
      correction.Subtract(x[j], w.bytes.rest[4 * block + j]);
    }
    correction.AddLane(4);  // of the other block
  };
  uint32_t largest = 0, largest_correction = 0;
  for (int chunk = first; chunk < all; chunk += kStride) {
    load(chunk);
#pragma unroll
    for (int j = 0; j < 4; ++j) largest = max(largest, LargestOf(x[j]));
#pragma unroll
    for (int i = 0; i < 8; ++i) largest_correction = max(largest_correction, Magnitude(correction[i]));
  }
  const uint32_t peak = Threads::Largest(largest, meetings), correction_peak = Threads::Largest(largest_correction, meetings + 1);
  const auto choose = [](uint32_t of, float* step, float* scale) {
    *step = __uint_as_float(of) / 127;
    *scale = 1 / *step;
    if (!(*scale > 0 && *scale < INFINITY)) *scale = 0;
  };
  float step, scale, correction_step, correction_scale;
  choose(peak, &step, &scale);
  choose(correction_peak, &correction_step, &correction_scale);
  if (peak >= 0x7f800000u) step = __int_as_float(0x7fffffff), scale = 0;  // and whatever the bytes are, results are NaN
  if (scale == 0) correction_scale = 0;
  const int corrections = CorrectionSlices(w.form, w.chunks, true);
  const ColumnPlace place(out.slices, row, columns, AllSlices(w, true));
  constexpr float kRound = 3 << 22;
  int32_t added = 0;
  for (int chunk = first; chunk < all; chunk += kStride) {
    if (kStride < all) load(chunk);  // or it is still there
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      uint32_t words[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        float group[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) group[j] = __fmaf_rn(ToFloat(x[j].x[2 * r + odd]), scale, kRound);
        words[r] = LowBytes(group);
        added = DotBytes(w.bytes.base, words[r], added);
      }
      ExchangeGroups(steps, words);
      if (chunk >= w.chunks) continue;
      *place.Piece(corrections + chunk * 2 + steps / 2, (steps % 2 * 2 + odd) * 2 + block) =
          make_uint4(words[0], words[1], words[2], words[3]);
    }
    // The correction of step s of lane t is byte 4t + s % 4 of a piece. Each of the two threads of the groups writes half of them.
    if (chunk >= w.chunks) continue;
    float four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) four[i] = __fmaf_rn(block == 0 ? correction[i] : correction[4 + i], correction_scale, kRound);
    reinterpret_cast<uint32_t*>(place.Piece(chunk / 4, chunk % 4 * 2 + block))[steps] = LowBytes(four);
  }
  added = Threads::Sum(added, meetings + 2);
  if (thread == 0) {
    out.steps[row] = step;
    // At most 1: the rests of a group are less than 1 in sum.
    out.corrections[row] = static_cast<int32_t>(fminf(scale * correction_step * 0x1p31f, 0x1.fffffep30f));
    out.added[row] = added;
  }
}

// The same for weights of single columns, of which nothing is missing: a thread reads four coordinates of eight groups, which make a piece
// of two products, see column_bytes.cuh.
template <bool kTurned, bool kWarp, typename T>
__global__ void __launch_bounds__(kThreads) PrepareColumnBytes(const __grid_constant__ PackedView w, Turn turn, const T* a, int batch, int columns,
                                                               WideActivations out, uint32_t* flags, int count) {
  using Number = RowNumber<kTurned, T>;
  using Threads = RowThreads<kWarp>;
  __shared__ uint32_t meetings[2];
  LetNextKernelBegin();
  Threads::Begin({meetings, meetings + 1});
  WaitForKernelsAhead();
  Clear(flags, count);
  const int row = Threads::Row(), thread = Threads::Thread();
  if (row >= batch) return;
  const Number* from = RowOf<kTurned, kThreads>(turn, a + static_cast<int64_t>(row) * w.cols, w.cols);
  const bool whole = Whole(w, from);
  const int all = w.chunks * 8;
  Eight<Number> x[4];  // [coordinate]
  const auto load = [&](int i) {
    const int group = i / 8 * kPanelGroups + i % 4 * 8, coordinate = i / 4 % 2 * 4;
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] = LoadEight(w, from, group, coordinate + j, whole);
  };
  uint32_t largest = 0;
  for (int i = thread; i < all; i += Threads::kCount) {
    load(i);
#pragma unroll
    for (int j = 0; j < 4; ++j) largest = max(largest, LargestOf(x[j]));
  }
  const uint32_t peak = Threads::Largest(largest, meetings);
  float step = __uint_as_float(peak) / 127, scale = 1 / step;
  if (!(scale > 0 && scale < INFINITY)) scale = 0;
  if (peak >= 0x7f800000u) step = __int_as_float(0x7fffffff), scale = 0;  // and whatever the bytes are, results are NaN
  const ColumnPlace place(out.slices, row, columns, AllSlices(w, true));
  constexpr float kRound = 3 << 22;
  int32_t added = 0;
  for (int i = thread; i < all; i += Threads::kCount) {
    if (Threads::kCount < all) load(i);  // or it is still there
    uint32_t words[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      float group[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) group[j] = __fmaf_rn(ToFloat(x[j].x[k]), scale, kRound);
      words[k] = LowBytes(group);
      added = DotBytes(w.bytes.base, words[k], added);
    }
    const int eights = i / 2 % 2, half = i % 2;
#pragma unroll
    for (int odd = 0; odd < 2; ++odd)
      *place.Piece(i / 4, (2 * eights + odd) * 2 + half) = make_uint4(words[odd], words[2 + odd], words[4 + odd], words[6 + odd]);
  }
  added = Threads::Sum(added, meetings + 1);
  if (thread == 0) {
    out.steps[row] = step;
    out.added[row] = added;
  }
}

// A block for each row, or for several.
template <bool kTurned, typename T>
void PrepareRows(const PackedView& w, const Turn& turn, const void* a, bool bytes, int64_t batch, int columns, const WideActivations& to,
                 uint32_t* flags, int count, cudaStream_t stream) {
  const auto launch = [&](auto warp) {
    constexpr bool kWarp = decltype(warp)::value;
    const auto prepare = !bytes               ? PrepareHalves<kTurned, kWarp, T>
                         : IsColumns(w.form) ? PrepareColumnBytes<kTurned, kWarp, T>
                                             : PrepareBytes<kTurned, kWarp, T>;
    constexpr int kRows = RowThreads<kWarp>::kRows;
    LaunchForRows("prepare activations", prepare, (batch + kRows - 1) / kRows, kThreads, turn, w.cols, stream, w, turn, static_cast<const T*>(a),
                  static_cast<int>(batch), columns, to, flags, count);
  };
  if constexpr (!kTurned) {
    if (w.chunks <= kWarpChunks) return launch(std::true_type());
  }
  launch(std::false_type());
}

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_WIDE_ROWS_CUH_
