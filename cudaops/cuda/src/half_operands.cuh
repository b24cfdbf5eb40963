// Float16 activations of few rows, multiplied as they are.

#ifndef COSETQ_CUDA_HALF_OPERANDS_CUH_
#define COSETQ_CUDA_HALF_OPERANDS_CUH_

#include <cuda_fp16.h>

#include "activations.cuh"
#include "fixed_point.cuh"
#include "operands.cuh"
#include "row_loads.cuh"

namespace cosetq::cuda {
namespace {

// D += A * B for float16 A [16, 16] and B [16, 8].
__device__ __forceinline__ void MultiplyHalves(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The activations of a chunk for a kernel with so many columns of B, one for each row of the activations, in tiles of eight.
template <Form kForm, int kColumns>
class HalfOperands {
 public:
  using Number = __half;  // of activations
  static_assert(!IsColumns(kForm));
  using Panel = BytePanel<kForm>;
  static constexpr int kTiles = kColumns / 8;
  // A lane 4g + t has sums of the rows g and g + 8 of A, and of so many rows of a tile of activations.
  static constexpr int kLaneRows = 2, kTileRows = 8, kRows = kTiles * kTileRows;
  // Sums of a panel, in kByteUnit; of a single tile two that are added up in the end, so that products wait less for each other.
  static constexpr int kChains = kTiles == 1 ? 2 : 1;
  using Sums = float[kTiles][kChains][4];

  __device__ __forceinline__ HalfOperands(const PackedView& w, const __half* rows, int batch, int lane) : loads_(w, rows, batch, lane) {}

  // Begins to load a chunk.
  __device__ __forceinline__ void Fetch(const PackedView& w, int chunk) { loads_.Fetch(w, chunk); }

  __device__ __forceinline__ void Hold() { loads_.Hold(); }

  // The largest magnitudes of the lane's rows, see RowLoads::Peak, when the chunk is there.
  __device__ __forceinline__ void Peaks(uint32_t (&peaks)[kTiles]) const {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) peaks[tile] = loads_.Peak(tile);
  }

  // Makes ready what has been fetched, and what sums of the chunk begin with: the biases of weights, negative, as A.
  __device__ __forceinline__ void Make(const PackedView& w, const uint32_t (&)[kTiles], int lane) {
    const uint32_t base = w.bytes.base, first = HalvesOf<0, 1>(base) | 0x80008000u, second = HalvesOf<2, 3>(base) | 0x80008000u;
    const uint32_t biases[4] = {first, first, second, second};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const auto pair = [&](int j, int i) { return AsWord(loads_.Pair(tile, j, i)); };
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        rests_[tile][i] = AsWord(loads_.Rest(w, tile, i, lane));
#pragma unroll
        for (int p = 0; p < 4; ++p) {
          data_[tile][2 * i][p] = __byte_perm(pair(2 * p, i), pair(2 * p + 1, i), 0x5410);
          data_[tile][2 * i + 1][p] = __byte_perm(pair(2 * p, i), pair(2 * p + 1, i), 0x7632);
        }
      }
      float d[4][4] = {};  // chains, so that products wait less for each other
#pragma unroll
      for (int s = 0; s < kPanelSteps; ++s) {
#pragma unroll
        for (int block = 0; block < 2; ++block) MultiplyHalves(d[s % 2 * 2 + block], biases, data_[tile][s][2 * block], data_[tile][s][2 * block + 1]);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) offsets_[tile][i] = d[0][i] + d[1][i] + (d[2][i] + d[3][i]);
    }
  }

  // The sums of a panel: first its gains, then the weights of a step after the other, as bytes.
  __device__ __forceinline__ void Begin(const Panel& panel, Sums& sums) const {
    const auto& gains = panel.gains;
#pragma unroll
    for (int i = 0; i < kTiles * kChains * 4; ++i) {
      const int tile = i / (kChains * 4), chain = i / 4 % kChains;
      sums[tile][chain][i % 4] = chain == 0 ? offsets_[tile][i % 2] : 0;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t a[4] = {HalvesOf<0, 1>(gains[0][i]), HalvesOf<0, 1>(gains[1][i]), HalvesOf<2, 3>(gains[0][i]),
                             HalvesOf<2, 3>(gains[1][i])};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) MultiplyHalves(sums[tile][i % kChains], a, rests_[tile][2 * i], rests_[tile][2 * i + 1]);
    }
  }
  __device__ __forceinline__ void Multiply(const uint32_t (&u)[4], int step, Sums& sums) const {
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      const uint32_t a[4] = {HalvesOf<0, 1>(u[2 * block]), HalvesOf<0, 1>(u[2 * block + 1]), HalvesOf<2, 3>(u[2 * block]),
                             HalvesOf<2, 3>(u[2 * block + 1])};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile)
        MultiplyHalves(sums[tile][block % kChains], a, data_[tile][step][2 * block], data_[tile][step][2 * block + 1]);
    }
  }

  // Sets the unit of sums of a row of a tile that the lane has sums of.
  __device__ __forceinline__ void SetUnit(int tile, int i, const FixedPoint& unit) { scales_[tile][i] = unit.scale / kByteUnit; }
  // Sum r of a tile, of its row 2t + r % 2, in its unit.
  __device__ __forceinline__ int Sum(const Sums& sums, int tile, int r) const {
    float sum = sums[tile][0][r];
    if constexpr (kChains == 2) sum += sums[tile][1][r];
    return __float2int_rn(sum * scales_[tile][r % 2]);
  }
  // What sums of rows g + 8 * half are multiplied by.
  static constexpr float Unit(int) { return 1; }

 private:
  RowLoads<__half, 1, kTiles> loads_;
  uint32_t data_[kTiles][kPanelSteps][4];    // pairs of coordinates
  uint32_t rests_[kTiles][kPanelSteps / 2];  // what gains are multiplied by, pairs of groups
  float offsets_[kTiles][2];                 // of columns 2t and 2t + 1
  float scales_[kTiles][2];
};

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_HALF_OPERANDS_CUH_
