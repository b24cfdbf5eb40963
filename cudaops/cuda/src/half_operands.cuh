// Float16 activations of few rows, multiplied as they are.

#ifndef COSETQ_CUDA_HALF_OPERANDS_CUH_
#define COSETQ_CUDA_HALF_OPERANDS_CUH_

#include <cuda_fp16.h>

#include "activations.cuh"
#include "operands.cuh"

namespace cosetq::cuda {
namespace {

// Two bytes as float16 numbers, 2^-24 of what they are: subnormal ones.
constexpr float kByteUnit = 0x1p-24f;
template <int kFirst, int kSecond>
__device__ __forceinline__ uint32_t HalvesOf(uint32_t bytes) {
  return __byte_perm(bytes, 0, 0x4040 | kFirst | kSecond << 8);
}

// D += A * B for float16 A [16, 16] and B [16, 8].
__device__ __forceinline__ void MultiplyHalves(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The activations of a chunk for a kernel with so many columns of B, one for each row of the activations, in tiles of eight. A lane
// 4c + t has column c of the tiles, and groups 8t up of the chunk: of each coordinate 16 bytes as they lie.
template <int kColumns>
class HalfOperands {
 public:
  static constexpr int kTiles = kColumns / 8;
  // Sums of a panel, in kByteUnit; of a single tile two that are added up in the end, so that products wait less for each other.
  static constexpr int kChains = kTiles == 1 ? 2 : 1;
  using Sums = float[kTiles][kChains][4];

  // Rows must begin at multiples of 16 bytes, and so must their coordinates.
  __device__ __forceinline__ HalfOperands(const PackedView& w, const __half* rows, int batch, int lane)
      : row_(lane / 4), batch_(batch), group_(GroupOf(0, lane % 4)), from_(rows + static_cast<int64_t>(row_) * w.cols + group_) {
    asm volatile("" : "+l"(from_));  // now, while there is time
  }

  // Loads a chunk. Returns of each tile the largest magnitude in the lane's row, as the bits of a float, which are ordered like
  // magnitudes, NaN above infinity; the same for the lanes that share the row. Another kernel has written the rows a moment ago,
  // so they are read past the first-level cache.
  __device__ __forceinline__ void Load(const PackedView& w, int chunk, uint32_t (&peaks)[kTiles]) {
    uint4 v[kTiles][kGroup];  // of a coordinate
    const bool in = group_ + chunk * kPanelGroups < w.groups;
#pragma unroll
    for (int i = 0; i < kTiles * kGroup; ++i) {
      const int tile = i / kGroup, j = i % kGroup;
      v[tile][j] = make_uint4(0, 0, 0, 0);
      if (in && tile * 8 + row_ < batch_)
        v[tile][j] = __ldcg(reinterpret_cast<const uint4*>(from_ + tile * 8 * w.cols + chunk * kPanelGroups + j * w.groups));
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const auto pair = [&](int j, int i) {  // of groups
        const uint4& x = v[tile][j];
        return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
      };
      const auto rest = [&](int j) { return __float2half2_rn(-w.bytes.rest[j]); };
      __half2 peak = __float2half2_rn(0.0f);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        __half2 sum = __hmul2(rest(0), AsHalves(pair(0, i)));
#pragma unroll
        for (int j = 1; j < kGroup; ++j) sum = __hfma2(rest(j), AsHalves(pair(j, i)), sum);
        rests_[tile][i] = AsWord(sum);
#pragma unroll
        for (int p = 0; p < 4; ++p) {
          data_[tile][2 * i][p] = __byte_perm(pair(2 * p, i), pair(2 * p + 1, i), 0x5410);
          data_[tile][2 * i + 1][p] = __byte_perm(pair(2 * p, i), pair(2 * p + 1, i), 0x7632);
        }
#pragma unroll
        for (int j = 0; j < kGroup; ++j) peak = __hmax2_nan(peak, __habs2(AsHalves(pair(j, i))));
      }
      uint32_t largest = Magnitude(__half2float(__hmax_nan(__low2half(peak), __high2half(peak))));
      largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      peaks[tile] = max(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    }
  }

  // What sums of a chunk begin with: the biases of weights, negative, as A.
  __device__ __forceinline__ void SetOffsets(uint32_t base) {
    const uint32_t first = HalvesOf<0, 1>(base) | 0x80008000u, second = HalvesOf<2, 3>(base) | 0x80008000u;
    const uint32_t biases[4] = {first, first, second, second};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      float d[4] = {};
#pragma unroll
      for (int s = 0; s < kPanelSteps; ++s) {
#pragma unroll
        for (int block = 0; block < 2; ++block) MultiplyHalves(d, biases, data_[tile][s][2 * block], data_[tile][s][2 * block + 1]);
      }
      offsets_[tile][0] = d[0], offsets_[tile][1] = d[1];
    }
  }

  // The sums of a panel: first its gains, then the weights of a step after the other, as bytes.
  __device__ __forceinline__ void Begin(const uint32_t gains[2][2], Sums& sums) const {
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
  __device__ __forceinline__ void Multiply(const uint32_t u[4], int step, Sums& sums) const {
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      const uint32_t a[4] = {HalvesOf<0, 1>(u[2 * block]), HalvesOf<0, 1>(u[2 * block + 1]), HalvesOf<2, 3>(u[2 * block]),
                             HalvesOf<2, 3>(u[2 * block + 1])};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile)
        MultiplyHalves(sums[tile][block % kChains], a, data_[tile][step][2 * block], data_[tile][step][2 * block + 1]);
    }
  }

  // Sum r of a tile, which is that of row 2t + r % 2 of the tile's activations, times the scale.
  __device__ __forceinline__ float Sum(const Sums& sums, int tile, int r, float scale) const {
    float sum = sums[tile][0][r];
    if constexpr (kChains == 2) sum += sums[tile][1][r];
    return sum * (scale / kByteUnit);
  }

 private:
  int row_, batch_, group_;
  const __half* from_;  // of the first chunk of the row in the first tile
  uint32_t data_[kTiles][kPanelSteps][4];    // pairs of coordinates
  uint32_t rests_[kTiles][kPanelSteps / 2];  // what gains are multiplied by, pairs of groups
  float offsets_[kTiles][2];                 // of columns 2t and 2t + 1
};

// Sums as integers, which can be added up in any order. Their unit, a power of two, leaves room for those of a row whose
// activations and weights are all as large as they may be.
struct FixedPoint {
  float scale, step;

  // peak: of the row, as HalfOperands::Load has it.
  __device__ __forceinline__ FixedPoint(const PackedView& w, uint32_t peak) {
    constexpr int kSumBits = 30, kLeast = 32;  // exponent of the least unit, so that scales are finite
    const int left = kSumBits - w.bytes.bits - (32 - __clz(w.cols - 1));  // the peak is less than 2^left units
    const int exponent = max(static_cast<int>(peak >> 23) + 1 - left, kLeast);
    const bool finite = peak < 0x7f800000u;
    step = finite ? __int_as_float(exponent << 23) : __int_as_float(0x7fffffff);
    scale = finite ? __int_as_float((254 - exponent) << 23) : 0;
  }
};

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_HALF_OPERANDS_CUH_
