// Rows of float16 activations as lanes read them.

#ifndef COSETQ_CUDA_ROW_LOADS_CUH_
#define COSETQ_CUDA_ROW_LOADS_CUH_

#include <cuda_fp16.h>

#include "activations.cuh"
#include "operands.cuh"
#include "shared.cuh"

namespace cosetq::cuda {
namespace {

// The columns of a chunk that a lane has of one row in each tile of activations: eight groups next to each other, of each coordinate 16
// bytes as they lie. Rows must begin at multiples of 16 bytes, and so must their coordinates. A row stands for kRowColumns columns of B:
// lane 4c + t reads row c / kRowColumns of a tile; all coordinates, or of kRowColumns lanes each a part of them.
template <int kRowColumns, int kTiles, int kCoordinates = kGroup>
class RowLoads {
  static constexpr int kTileRows = 8 / kRowColumns, kAll = kTiles * kCoordinates;
  static_assert(kCoordinates == kGroup || kCoordinates * kRowColumns == kGroup);

 public:
  static constexpr int kStageBytes = kAll * 512;

  __device__ __forceinline__ RowLoads(const PackedView& w, const __half* rows, int batch, int lane)
      : row_(lane / 4 / kRowColumns), batch_(batch), group_(lane % 4 * kPanelSteps), from_(rows + static_cast<int64_t>(row_) * w.cols + group_) {
    if (kCoordinates < kGroup) from_ += lane / 4 % kRowColumns * kCoordinates * w.groups;
    asm volatile("" : "+l"(from_));  // now, while there is time
  }

  // Begins to load them. Another kernel has written the rows a moment ago, so they are read past the first-level cache.
  __device__ __forceinline__ void Fetch(const PackedView& w, int chunk) {
    const bool in = group_ + chunk * kPanelGroups < w.groups;
#pragma unroll
    for (int i = 0; i < kAll; ++i) {
      const int tile = i / kCoordinates, j = i % kCoordinates;
      of_[tile][j] = make_uint4(0, 0, 0, 0);
      if (in && tile * kTileRows + row_ < batch_) of_[tile][j] = __ldcg(reinterpret_cast<const uint4*>(From(w, chunk, tile, j)));
    }
  }

  // Begins to copy them to a stage, a lane's part of which is its own.
  __device__ __forceinline__ void Copy(const PackedView& w, int chunk, uint32_t stage) const {
    const bool in = group_ + chunk * kPanelGroups < w.groups;
#pragma unroll
    for (int i = 0; i < kAll; ++i) {
      const bool there = in && i / kCoordinates * kTileRows + row_ < batch_;
      CopyAsync16(stage + i * 512, there ? From(w, chunk, i / kCoordinates, i % kCoordinates) : from_, there ? 16 : 0);
    }
    CommitCopies();
  }
  // Takes them from there.
  __device__ __forceinline__ void TakeCopy(uint32_t stage) {
    WaitForCopies<0>();
#pragma unroll
    for (int i = 0; i < kAll; ++i) of_[i / kCoordinates][i % kCoordinates] = LoadShared16(stage + i * 512);
  }

  // Nothing of what has been fetched is waited for before this.
  __device__ __forceinline__ void Hold() {
#pragma unroll
    for (int i = 0; i < kAll; ++i) {
      uint4& v = of_[i / kCoordinates][i % kCoordinates];
      asm volatile("" : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w));
    }
  }

  // Brings lanes of single columns their groups: lane 4c + t of each eight that a lane of its row has read the pair t.
  __device__ __forceinline__ void Exchange(int lane) {
#pragma unroll
    for (int i = 0; i < kAll; ++i) {
      uint4& v = of_[i / kCoordinates][i % kCoordinates];
      uint32_t words[4] = {v.x, v.y, v.z, v.w};
      ExchangeGroups(lane % 4, words);
      v = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }

  // Coordinate j, of those that the lane has, of groups 2i and 2i + 1 of the lane.
  __device__ __forceinline__ __half2 Pair(int tile, int j, int i) const {
    const uint4& v = of_[tile][j];
    return AsHalves(i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w);
  }

  // What the gains of groups 2i and 2i + 1 are multiplied by. All lanes must call it.
  __device__ __forceinline__ __half2 Rest(const PackedView& w, int tile, int i, int lane) const {
    const bool second = kCoordinates < kGroup && lane / 4 % kRowColumns != 0;
    const auto rest = [&](int j) { return __float2half2_rn(-w.bytes.rest[second ? kGroup - kCoordinates + j : j]); };
    __half2 sum = __hmul2(rest(0), Pair(tile, 0, i));
#pragma unroll
    for (int j = 1; j < kCoordinates; ++j) sum = __hfma2(rest(j), Pair(tile, j, i), sum);
    if (kCoordinates < kGroup) sum = __hadd2(sum, AsHalves(__shfl_xor_sync(0xffffffffu, AsWord(sum), 4)));
    return sum;
  }

  // The largest magnitude that the lane itself has, as the bits of a float16 number, NaN above infinity.
  __device__ __forceinline__ uint32_t Largest(int tile) const {
    __half2 largest = __float2half2_rn(0.0f);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < kCoordinates; ++j) largest = __hmax2_nan(largest, __habs2(Pair(tile, j, i)));
    }
    return __half_as_ushort(__hmax_nan(__low2half(largest), __high2half(largest)));
  }

  // The same of the row's chunk, for all lanes that share the row, as the bits of a float.
  __device__ __forceinline__ uint32_t Peak(int tile) const {
    uint32_t largest = FloatMagnitude(Largest(tile), __half());
#pragma unroll
    for (int other = 1; other < 4 * kGroup / kCoordinates; other *= 2) largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, other));
    return largest;
  }

 private:
  __device__ __forceinline__ const __half* From(const PackedView& w, int chunk, int tile, int j) const {
    return from_ + tile * kTileRows * w.cols + chunk * kPanelGroups + j * w.groups;
  }

  int row_, batch_, group_;
  const __half* from_;  // of the first chunk of the row in the first tile
  uint4 of_[kTiles][kCoordinates];  // coordinates
};

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ROW_LOADS_CUH_
