// What a block of a kernel for few rows keeps of its share of the weight's rows.

#ifndef COSETQ_CUDA_SHARE_ROWS_CUH_
#define COSETQ_CUDA_SHARE_ROWS_CUH_

#include "shared.cuh"
#include "views.h"

namespace cosetq::cuda {

// In shared memory: the scales and offsets of the rows, and of each tile so many sums.
template <int kTileSums>
class ShareRows {
 public:
  static constexpr int kTileBytes = (kTileSums + 2 * kPanelRows) * 4;

  __device__ __forceinline__ ShareRows(const Share& share, unsigned char* memory)
      : tiles_(share.count),
        first_(share.first * kPanelRows),
        scales_(reinterpret_cast<float*>(memory)),
        offsets_(scales_ + tiles_ * kPanelRows),
        sums_(reinterpret_cast<int*>(offsets_ + tiles_ * kPanelRows)) {}

  // Begins to fetch scales and offsets, for which the calling thread must wait some time, and sets sums to 0, all for its part of them.
  __device__ __forceinline__ void Begin(const PackedView& w, int threads) const {
    for (int i = threadIdx.x; i < tiles_ * kPanelRows; i += threads) {
      CopyAsync4(static_cast<uint32_t>(__cvta_generic_to_shared(scales_ + i)), w.scales + first_ + i);
      if (w.offsets != nullptr && first_ + i < w.rows) {
        CopyAsync4(static_cast<uint32_t>(__cvta_generic_to_shared(offsets_ + i)), w.offsets + first_ + i);
      } else {
        offsets_[i] = 0;
      }
    }
    for (int i = threadIdx.x; i < tiles_ * kTileSums; i += threads) sums_[i] = 0;
  }

  __device__ __forceinline__ const int* Sums(int tile) const { return sums_ + tile * kTileSums; }
  __device__ __forceinline__ uint32_t SumsAddress() const { return static_cast<uint32_t>(__cvta_generic_to_shared(sums_)); }

  // Calls use(tile, r, row, n, finish) for every sum of row r of a tile, which is row n of the weight, and a row of the activations of which
  // there are `batch`, at most kRows: sixteen lanes take the rows of a tile. finish makes the result of a product.
  template <int kRows, int kThreads, typename Use>
  __device__ __forceinline__ void ForEachResult(const PackedView& w, int batch, const Use& use) const {
    const int r = threadIdx.x % kPanelRows;
    for (int i = threadIdx.x / kPanelRows; i < tiles_ * kRows; i += kThreads / kPanelRows) {
      const int row = i % kRows, tile = i / kRows, at = tile * kPanelRows + r, n = first_ + at;
      if (row < batch && n < w.rows) use(tile, r, row, n, [&](float product) { return product * scales_[at] + offsets_[at]; });
    }
  }

 private:
  int tiles_, first_;
  float *scales_, *offsets_;
  int* sums_;
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_SHARE_ROWS_CUH_
