// Rows of activations as lanes read them.

#ifndef COSETQ_CUDA_ROW_LOADS_CUH_
#define COSETQ_CUDA_ROW_LOADS_CUH_

#include <cuda_fp16.h>

#include "activations.cuh"
#include "operands.cuh"
#include "shared.cuh"

namespace cosetq::cuda {
namespace {

// Two numbers of a type that go through the same.
template <typename T>
struct TwoOf {
  using Type = float2;
};
template <>
struct TwoOf<__half> {
  using Type = __half2;
};
template <typename T>
using Two = typename TwoOf<T>::Type;

template <typename T>
__device__ __forceinline__ Two<T> Twice(float x) {
  if constexpr (sizeof(T) == 2) {
    return __float2half2_rn(x);
  } else {
    return make_float2(x, x);
  }
}
__device__ __forceinline__ float First(__half2 x) { return __low2float(x); }
__device__ __forceinline__ float First(float2 x) { return x.x; }
__device__ __forceinline__ float Second(__half2 x) { return __high2float(x); }
__device__ __forceinline__ float Second(float2 x) { return x.y; }
__device__ __forceinline__ __half2 Plus(__half2 a, __half2 b) { return __hadd2(a, b); }
__device__ __forceinline__ float2 Plus(float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); }
__device__ __forceinline__ __half2 Times(__half2 a, __half2 b) { return __hmul2(a, b); }
__device__ __forceinline__ float2 Times(float2 a, float2 b) { return make_float2(a.x * b.x, a.y * b.y); }
__device__ __forceinline__ __half2 Times(__half2 a, __half2 b, __half2 more) { return __hfma2(a, b, more); }
__device__ __forceinline__ float2 Times(float2 a, float2 b, float2 more) { return make_float2(__fmaf_rn(a.x, b.x, more.x), __fmaf_rn(a.y, b.y, more.y)); }
// Those of the lane that is so many from the calling one.
__device__ __forceinline__ __half2 OfLane(__half2 x, int lanes) { return AsHalves(__shfl_xor_sync(0xffffffffu, AsWord(x), lanes)); }
__device__ __forceinline__ float2 OfLane(float2 x, int lanes) { return make_float2(__shfl_xor_sync(0xffffffffu, x.x, lanes), __shfl_xor_sync(0xffffffffu, x.y, lanes)); }

// The columns of a chunk that a lane has of one row in each tile of activations: eight groups next to each other, of each coordinate eight
// numbers as they lie. Rows must begin at multiples of 16 bytes, and so must their coordinates. A row stands for kRowColumns columns of B:
// lane 4c + t reads row c / kRowColumns of a tile; all coordinates, or of kRowColumns lanes each a part of them.
template <typename T, int kRowColumns, int kTiles, int kCoordinates = kGroup>
class RowLoads {
  static constexpr int kTileRows = 8 / kRowColumns, kVectors = sizeof(T) / 2, kAll = kTiles * kCoordinates * kVectors;
  static_assert(kCoordinates == kGroup || kCoordinates * kRowColumns == kGroup);

 public:
  static constexpr int kStageBytes = kAll * 512;

  __device__ __forceinline__ RowLoads(const PackedView& w, const T* rows, int batch, int lane)
      : row_(lane / 4 / kRowColumns), batch_(batch), group_(lane % 4 * kPanelSteps), from_(rows + static_cast<int64_t>(row_) * w.cols + group_) {
    if (kCoordinates < kGroup) from_ += lane / 4 % kRowColumns * kCoordinates * w.groups;
    asm volatile("" : "+l"(from_));  // now, while there is time
  }

  // Begins to load them. Another kernel has written the rows a moment ago, so they are read past the first-level cache.
  __device__ __forceinline__ void Fetch(const PackedView& w, int chunk) {
    const bool in = group_ + chunk * kPanelGroups < w.groups;
#pragma unroll
    for (int i = 0; i < kAll; ++i) {
      Vector(i) = make_uint4(0, 0, 0, 0);
      if (in && Tile(i) * kTileRows + row_ < batch_) Vector(i) = __ldcg(From(w, chunk, i));
    }
  }

  // Begins to copy them to a stage, a lane's part of which is its own.
  __device__ __forceinline__ void Copy(const PackedView& w, int chunk, uint32_t stage) const {
    const bool in = group_ + chunk * kPanelGroups < w.groups;
#pragma unroll
    for (int i = 0; i < kAll; ++i) {
      const bool there = in && Tile(i) * kTileRows + row_ < batch_;
      CopyAsync16(stage + i * 512, there ? From(w, chunk, i) : reinterpret_cast<const uint4*>(from_), there ? 16 : 0);
    }
    CommitCopies();
  }
  // Takes them from there.
  __device__ __forceinline__ void TakeCopy(uint32_t stage) {
    WaitForCopies<0>();
#pragma unroll
    for (int i = 0; i < kAll; ++i) Vector(i) = LoadShared16(stage + i * 512);
  }

  // Nothing of what has been fetched is waited for before this.
  __device__ __forceinline__ void Hold() {
#pragma unroll
    for (int i = 0; i < kAll; ++i) {
      uint4& v = Vector(i);
      asm volatile("" : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w));
    }
  }

  // Brings lanes of single columns their groups: lane 4c + t of each eight that a lane of its row has read the pair t.
  __device__ __forceinline__ void Exchange(int lane) {
#pragma unroll
    for (int i = 0; i < kAll; ++i) {
      // Words of as many vectors, of each pair the same one.
      uint4(&of)[kVectors] = of_[Tile(i)][i / kVectors % kCoordinates];
      uint32_t words[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) words[k] = Word(of, k * kVectors + i % kVectors);
      ExchangeGroups(lane % 4, words);
#pragma unroll
      for (int k = 0; k < 4; ++k) Word(of, k * kVectors + i % kVectors) = words[k];
    }
  }

  // Coordinate j, of those that the lane has, of groups 2i and 2i + 1 of the lane.
  __device__ __forceinline__ Two<T> Pair(int tile, int j, int i) const {
    const uint4(&of)[kVectors] = of_[tile][j];
    if constexpr (kVectors == 1) {
      return AsHalves(Word(of, i));
    } else {
      return make_float2(__uint_as_float(Word(of, 2 * i)), __uint_as_float(Word(of, 2 * i + 1)));
    }
  }
  // The same of group i.
  __device__ __forceinline__ float Number(int tile, int j, int i) const {
    const Two<T> pair = Pair(tile, j, i / 2);
    return i % 2 == 0 ? First(pair) : Second(pair);
  }

  // What the gains of groups 2i and 2i + 1 are multiplied by. All lanes must call it.
  __device__ __forceinline__ Two<T> Rest(const PackedView& w, int tile, int i, int lane) const {
    const bool second = kCoordinates < kGroup && lane / 4 % kRowColumns != 0;
    const auto rest = [&](int j) { return Twice<T>(-w.bytes.rest[second ? kGroup - kCoordinates + j : j]); };
    Two<T> sum = Times(rest(0), Pair(tile, 0, i));
#pragma unroll
    for (int j = 1; j < kCoordinates; ++j) sum = Times(rest(j), Pair(tile, j, i), sum);
    return kCoordinates < kGroup ? Plus(sum, OfLane(sum, 4)) : sum;
  }

  // The largest magnitude that the lane itself has, as the bits of a number, NaN above infinity.
  __device__ __forceinline__ uint32_t Largest(int tile) const {
    if constexpr (kVectors == 1) {
      __half2 largest = Twice<T>(0);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < kCoordinates; ++j) largest = __hmax2_nan(largest, __habs2(Pair(tile, j, i)));
      }
      return __half_as_ushort(__hmax_nan(__low2half(largest), __high2half(largest)));
    } else {
      uint32_t largest = 0;
#pragma unroll
      for (int i = 0; i < kCoordinates * kVectors; ++i) largest = max(largest, Magnitude(of_[tile][i / kVectors][i % kVectors], T()));
      return largest;
    }
  }

  // The same of the row's chunk, for all lanes that share the row, as the bits of a float.
  __device__ __forceinline__ uint32_t Peak(int tile) const {
    uint32_t largest = FloatMagnitude(Largest(tile), T());
#pragma unroll
    for (int other = 1; other < 4 * kGroup / kCoordinates; other *= 2) largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, other));
    return largest;
  }

 private:
  // Of all vectors, those of a coordinate next to each other.
  __device__ __forceinline__ static int Tile(int i) { return i / (kCoordinates * kVectors); }
  __device__ __forceinline__ uint4& Vector(int i) { return of_[Tile(i)][i / kVectors % kCoordinates][i % kVectors]; }
  __device__ __forceinline__ const uint4* From(const PackedView& w, int chunk, int i) const {
    const T* from = from_ + Tile(i) * kTileRows * w.cols + chunk * kPanelGroups + i / kVectors % kCoordinates * w.groups;
    return reinterpret_cast<const uint4*>(from) + i % kVectors;
  }

  // Of so many vectors.
  template <typename Vectors>
  __device__ __forceinline__ static auto& Word(Vectors& of, int i) {
    auto& v = of[i / 4];
    return i % 4 == 0 ? v.x : i % 4 == 1 ? v.y : i % 4 == 2 ? v.z : v.w;
  }

  int row_, batch_, group_;
  const T* from_;  // of the first chunk of the row in the first tile
  uint4 of_[kTiles][kCoordinates][kVectors];
};

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ROW_LOADS_CUH_
