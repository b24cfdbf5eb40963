#include "wide.h"

#include <cuda_fp16.h>

#include <algorithm>

#include "rotate.cuh"
#include "row_map.h"
#include "wide.cuh"

namespace cosetq::cuda {
namespace {

constexpr int kThreads = 128;  // of a block that prepares a row

// Two numbers times a scale as float16 numbers. Those that are float16 need none.
__device__ __forceinline__ uint32_t Pack(float x, float y, float scale) {
  const __half2 halves = __floats2half2_rn(x * scale, y * scale);
  return *reinterpret_cast<const uint32_t*>(&halves);
}
__device__ __forceinline__ uint32_t Pack(__half x, __half y, float) {
  const __half2 halves = __halves2half2(x, y);
  return *reinterpret_cast<const uint32_t*>(&halves);
}

// Eight groups next to each other, of a coordinate: those that the lanes of two steps have. Whole: they are all there, and aligned.
template <typename T>
__device__ __forceinline__ Eight<T> LoadEight(const PackedView& w, const T* row, int group, int coordinate, bool whole) {
  const int at = group + w.groups * coordinate;
  if (whole) return *reinterpret_cast<const Eight<T>*>(row + at);
  Eight<T> v;
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

// Makes float16 numbers. A block per row of activations: a thread reads two coordinates of eight groups, and writes two pieces of a
// slice, of two steps. Blocks are small, so that many rows are on their way at the same time. Loads of two chunks come before the stores
// of the first, which the compiler could not tell from what is loaded.
template <bool kTurned, typename T>
__global__ void __launch_bounds__(kThreads) PrepareHalves(const __grid_constant__ PackedView w, Turn turn, const T* a, int columns,
                                                          WideActivations out, uint32_t* flags, int count) {
  using Number = RowNumber<kTurned, T>;
  __shared__ uint32_t peak;
  LetNextKernelBegin();
  if (threadIdx.x == 0) peak = 0;
  __syncthreads();
  WaitForKernelsAhead();
  Clear(flags, count);
  const Number* from = RowOf<kTurned, kThreads>(turn, a + static_cast<int64_t>(blockIdx.x) * w.cols, w.cols);
  float scale = 1, step = 1;
  if (sizeof(Number) == 4) {
    const uint32_t largest = __reduce_max_sync(0xffffffffu, PeakOf<kTurned>(from, w.cols, threadIdx.x, kThreads));
    if (threadIdx.x % 32 == 0) atomicMax(&peak, largest);
    __syncthreads();
    // A power of two that leaves room above and below.
    const int exponent = min(max(static_cast<int>(peak >> 23) - 10, 1), 253);
    step = __uint_as_float(static_cast<uint32_t>(exponent) << 23);
    scale = __uint_as_float(static_cast<uint32_t>(254 - exponent) << 23);
    if (peak >= 0x7f800000u) step = __int_as_float(0x7fffffff), scale = 0;
  }
  const ColumnPlace place(out.slices, blockIdx.x, columns, AllSlices(w, false));
  const bool whole = Whole(w, from);
  const int steps = threadIdx.x % 4, pair = threadIdx.x / 4 % 4;  // the first of two steps, halved
  const int all = (w.chunks + 1) / 2 * 2;                          // whole warps
  constexpr int kAtOnce = 2, kStride = kThreads / 16;  // chunks of a thread that are on their way together, and how far apart
  for (int first = threadIdx.x / 16; first < all; first += kAtOnce * kStride) {
    Eight<Number> x[kAtOnce][2];
#pragma unroll
    for (int i = 0; i < 2 * kAtOnce; ++i) {
      const int group = (first + i / 2 * kStride) * kPanelGroups + steps * 8;
      x[i / 2][i % 2] = LoadEight(w, from, group, 2 * pair + i % 2, whole && group < w.groups);
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
  if (threadIdx.x == 0) out.steps[blockIdx.x] = step;
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

// Rounds to bytes. A block per row of activations: a thread reads a block of eight groups.
template <bool kTurned, typename T>
__global__ void __launch_bounds__(kThreads) PrepareBytes(const __grid_constant__ PackedView w, Turn turn, const T* a, int columns,
                                                         WideActivations out, uint32_t* flags, int count) {
  using Number = RowNumber<kTurned, T>;
  __shared__ uint32_t peak, correction_peak;
  __shared__ int32_t sum;
  LetNextKernelBegin();
  if (threadIdx.x == 0) peak = correction_peak = 0, sum = 0;
  __syncthreads();
  WaitForKernelsAhead();
  Clear(flags, count);
  const Number* from = RowOf<kTurned, kThreads>(turn, a + static_cast<int64_t>(blockIdx.x) * w.cols, w.cols);
  const bool whole = Whole(w, from);
  const int lane = threadIdx.x % 32, steps = lane % 4, block = lane / 4 % 2;
  constexpr int kStride = kThreads / 8;
  const int first = threadIdx.x / 8, all = (w.chunks + 3) / 4 * 4;  // whole warps
  Eight<Number> x[4];  // [coordinate]
  Corrections<Number> correction;
  const auto load = [&](int chunk) {
    const int group = chunk * kPanelGroups + steps * 8;
    correction = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      x[j] = LoadEight(w, from, group, 4 * block + j, whole && group < w.groups);
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
  largest = __reduce_max_sync(0xffffffffu, largest);
  largest_correction = __reduce_max_sync(0xffffffffu, largest_correction);
  if (lane == 0) {
    atomicMax(&peak, largest);
    atomicMax(&correction_peak, largest_correction);
  }
  __syncthreads();
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
  const ColumnPlace place(out.slices, blockIdx.x, columns, AllSlices(w, true));
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
  added = __reduce_add_sync(0xffffffffu, added);
  if (lane == 0) atomicAdd(&sum, added);
  __syncthreads();
  if (threadIdx.x == 0) {
    out.steps[blockIdx.x] = step;
    // At most 1: the rests of a group are less than 1 in sum.
    out.corrections[blockIdx.x] = static_cast<int32_t>(fminf(scale * correction_step * 0x1p31f, 0x1.fffffep30f));
    out.added[blockIdx.x] = sum;
  }
}

// The same for weights of single columns, of which nothing is missing: a thread reads four coordinates of eight groups, which make a piece
// of two products, see column_bytes.cuh.
template <bool kTurned, typename T>
__global__ void __launch_bounds__(kThreads) PrepareColumnBytes(const __grid_constant__ PackedView w, Turn turn, const T* a, int columns,
                                                               WideActivations out, uint32_t* flags, int count) {
  using Number = RowNumber<kTurned, T>;
  __shared__ uint32_t peak;
  __shared__ int32_t sum;
  LetNextKernelBegin();
  if (threadIdx.x == 0) peak = 0, sum = 0;
  __syncthreads();
  WaitForKernelsAhead();
  Clear(flags, count);
  const Number* from = RowOf<kTurned, kThreads>(turn, a + static_cast<int64_t>(blockIdx.x) * w.cols, w.cols);
  const bool whole = Whole(w, from);
  const int lane = threadIdx.x % 32, all = w.chunks * 8;
  Eight<Number> x[4];  // [coordinate]
  const auto load = [&](int i) {
    const int group = i / 8 * kPanelGroups + i % 4 * 8, coordinate = i / 4 % 2 * 4;
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] = LoadEight(w, from, group, coordinate + j, whole && group < w.groups);
  };
  uint32_t largest = 0;
  for (int i = threadIdx.x; i < all; i += kThreads) {
    load(i);
#pragma unroll
    for (int j = 0; j < 4; ++j) largest = max(largest, LargestOf(x[j]));
  }
  largest = __reduce_max_sync(0xffffffffu, largest);
  if (lane == 0) atomicMax(&peak, largest);
  __syncthreads();
  float step = __uint_as_float(peak) / 127, scale = 1 / step;
  if (!(scale > 0 && scale < INFINITY)) scale = 0;
  if (peak >= 0x7f800000u) step = __int_as_float(0x7fffffff), scale = 0;  // and whatever the bytes are, results are NaN
  const ColumnPlace place(out.slices, blockIdx.x, columns, AllSlices(w, true));
  constexpr float kRound = 3 << 22;
  int32_t added = 0;
  for (int i = threadIdx.x; i < all; i += kThreads) {
    if (kThreads < all) load(i);  // or it is still there
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
  added = __reduce_add_sync(0xffffffffu, added);
  if (lane == 0) atomicAdd(&sum, added);
  __syncthreads();
  if (threadIdx.x == 0) {
    out.steps[blockIdx.x] = step;
    out.added[blockIdx.x] = sum;
  }
}

int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// The cut that takes least by a count of cycles, with measured numbers: of a slice, which is what the tensor cores take, but with few
// columns what the decoding takes; to begin; to finish a tile; and to hand sums over and add them up. can_lie: rows can be fetched as they
// lie, which no kernel ahead makes ready then.
WideCut CutOf(const PackedView& w, int64_t batch, bool bytes, bool can_lie) {
  struct Width {
    int columns, halves, one_level, bytes, single;  // cycles of a slice; of float16 and one level; of bytes of weights of single columns
  };
  constexpr Width kWidths[] = {{256, 1100, 900, 1400, 1040}, {128, 840, 760, 1050, 560}, {64, 720, 650, 900, 400}};
  constexpr double kBegin = 5000, kBeginTogether = 4000, kTogether = 0.96;  // peers save what fetching costs
  constexpr int kLying = 130;                                               // more for a slice
  const double prepare = 5500 + 1.1e-3 * static_cast<double>(batch) * w.cols;
  WideCut best = {};
  double least = 0;
  const auto take = [&](WideCut cut, double cycles, double slices) {
    const double lying = cycles + slices * kLying;
    cycles += prepare;
    cut.lying = can_lie && cut.columns <= 128 && cut.even == 0 && lying < cycles;
    if (cut.lying) cycles = lying;
    if (least > 0 && cycles >= least) return;
    least = cycles;
    best = cut;
  };
  const int processors = CurrentDevice().processors;
  const auto tiles_of = [&](int columns, int peers, int warps = kConsumerWarps) {
    const int row_blocks = (w.tiles + warps * peers - 1) / (warps * peers);
    return row_blocks * static_cast<int>((batch + columns - 1) / columns);
  };
  for (const Width& width : kWidths) {
    const int slice = IsColumns(w.form) ? width.single : bytes ? width.bytes : w.form == Form::kOneByte ? width.one_level : width.halves;
    const double slices = static_cast<double>(AllSlices(w, bytes)) / w.chunks, chunk = slices * slice;  // of a chunk
    const double finish = 19 * width.columns;
    for (const int peers : {1, 2}) {
      // Blocks that stay, with whole tiles alone, or after the last one or two of each, cut evenly.
      const int tiles = tiles_of(width.columns, peers), teams = processors / peers, waves = (tiles + teams - 1) / teams;
      const double each = peers > 1 ? kTogether * chunk : chunk, begin = peers > 1 ? kBegin + kBeginTogether : kBegin;
      take({width.columns, 1, peers, std::min(tiles, teams) * peers}, begin + waves * (w.chunks * each + finish), waves * w.chunks * slices);
      const int whole = std::max(tiles / teams - 1, 0), even = tiles - whole * teams;
      const int64_t chunks = static_cast<int64_t>(even) * w.chunks, most = (chunks + teams - 1) / teams;
      const auto used = static_cast<int>(whole > 0 ? teams : (chunks + most - 1) / most);
      const double longest = static_cast<double>(most) + static_cast<double>(whole) * w.chunks;
      take({width.columns, 1, peers, used * peers, even}, begin + longest * each + (whole + 2) * finish + 4000 + 60 * width.columns, 0);
    }
    const int tiles = tiles_of(width.columns, 1);
    for (const int splits : {2, 4, 8}) {
      if (width.columns / splits < kPieceColumns || splits > w.chunks) continue;
      // Larger clusters leave some processors over.
      if (tiles * splits > processors - (splits > 2 ? 4 * splits : 0)) continue;
      const double chunks = (w.chunks + splits - 1) / splits;
      take({width.columns, splits, 1, tiles * splits}, kBegin + chunks * chunk + finish / splits + 5400 + 22 * width.columns, chunks * slices);
    }
    if (IsColumns(w.form) || width.columns > 128) continue;
    // Divided ones. Products read twice as much of the activations from shared memory, and blocks of a cluster share half as many sums.
    const int divided_tiles = tiles_of(width.columns, 1, kConsumerWarps / 2);
    for (const int splits : {1, 2, 4}) {
      if (width.columns / splits < 2 * kPieceColumns || 2 * splits > w.chunks) continue;
      if (divided_tiles * splits > processors - (splits > 2 ? 4 * splits : 0)) continue;
      const double each = chunk + slices * 3200 / width.columns, chunks = (w.chunks + 2 * splits - 1) / (2 * splits);
      take({width.columns, splits, 1, divided_tiles * splits, 0, true},
           kBegin + chunks * each + finish / (2 * splits) + 600 + 6 * width.columns + (splits > 1 ? 3000 + 11 * width.columns : 0), chunks * slices);
    }
  }
  return best;
}

// Whether blocks leave sums for others.
bool HandsOver(const WideCut& cut) { return cut.even > 0 || cut.splits > 1; }

// Where things lie in the workspace.
struct Workspace {
  WideActivations x = {};
  Handover handover;
  size_t bytes;

  Workspace(const PackedView& w, int64_t batch, bool eight_bits, const WideCut& cut, void* memory) {
    auto* at = static_cast<unsigned char*>(memory);
    if (!cut.lying) {
      const int64_t rows = RoundUp(batch, 256);
      x.slices = at;
      x.steps = reinterpret_cast<float*>(x.slices + rows * AllSlices(w, eight_bits) * kSliceBytes);
      x.corrections = reinterpret_cast<int32_t*>(x.steps + rows);
      x.added = x.corrections + rows;
      at = reinterpret_cast<unsigned char*>(x.added + rows);
    }
    handover.sums = reinterpret_cast<uint4*>(at);
    if (HandsOver(cut)) at += int64_t{cut.blocks} * cut.columns * kWideRows * 4;
    handover.ready = reinterpret_cast<uint32_t*>(at);
    bytes = static_cast<size_t>(at - static_cast<unsigned char*>(memory)) + 4 * static_cast<size_t>(Flags(cut));
  }

  static int Flags(const WideCut& cut) { return cut.even > 0 ? kConsumerWarps * cut.blocks : 0; }
};

template <bool kTurned, typename T>
void Prepare(const PackedView& w, const Turn& turn, const void* a, bool bytes, int64_t batch, int columns, const Workspace& to, int flags,
             cudaStream_t stream) {
  const auto prepare = !bytes ? PrepareHalves<kTurned, T> : IsColumns(w.form) ? PrepareColumnBytes<kTurned, T> : PrepareBytes<kTurned, T>;
  LaunchForRows("prepare activations", prepare, batch, kThreads, turn, w.cols, stream, w, turn, static_cast<const T*>(a), columns, to.x,
                to.handover.ready, flags);
}

}  // namespace

size_t WideWorkspace(const PackedView& w, int64_t batch, bool bytes, bool half_a) {
  // Where rows begin is not known yet.
  const auto of = [&](bool can_lie) { return Workspace(w, batch, bytes, CutOf(w, batch, bytes, can_lie), nullptr).bytes; };
  return std::max(of(false), of(half_a && !bytes));
}

WideKernel WideLinear(const PackedView& w, const Turn& turn, const void* a, bool half_a, int64_t batch, bool bytes, void* y, bool half_y,
                void* workspace, cudaStream_t stream) {
  const auto* halves = static_cast<const __half*>(a);
  const auto rows = static_cast<int>(batch);
  const WideCut cut = CutOf(w, batch, bytes, half_a && !bytes && turn.factors == nullptr && Whole(w, halves));
  const Workspace to(w, batch, bytes, cut, workspace);
  CUtensorMap map = {};
  if (cut.lying) {
    map = RowMap({halves, rows, w.cols, w.groups, w.groups, nullptr}, kPanelGroups, cut.columns, 2 / cut.peers);
  } else {
    const auto prepare = turn.factors == nullptr ? (half_a ? Prepare<false, __half> : Prepare<false, float>)
                                                 : (half_a ? Prepare<true, __half> : Prepare<true, float>);
    prepare(w, turn, a, bytes, batch, cut.columns, to, Workspace::Flags(cut), stream);
  }
  const auto multiply = bytes ? MultiplyWide<true> : MultiplyWide<false>;
  multiply(w, to.x, map, to.handover, cut, {y, rows, w.rows, half_y}, stream);
  return cut.lying ? kLyingRows : cut.divided ? kDividedTiles : kWideTiles;
}

}  // namespace cosetq::cuda
