// Float16 activations of up to eight rows, multiplied as they are by weights of single columns, float16 numbers too.

#ifndef COSETQ_CUDA_COLUMN_LANES_CUH_
#define COSETQ_CUDA_COLUMN_LANES_CUH_

#include "column_halves.cuh"
#include "fixed_point.cuh"
#include "half_operands.cuh"
#include "row_loads.cuh"

namespace cosetq::cuda {
namespace {

// A panel on its way to A, a product after the other.
template <Form kForm>
class ColumnPanel {
 public:
  static constexpr int kProducts = 2 * kGroup;

  __device__ __forceinline__ ColumnPanel(const PackedView& w, uint32_t) : table_(w) {}

  template <typename Ring>
  __device__ __forceinline__ void Take(const Ring& ring) {
    uint32_t packed;
    ring.Take(codes_, packed);
    gains_.Expand(table_, packed);
  }

  // Calls use(product, a) for all of them.
  template <typename Use>
  __device__ __forceinline__ void ForEach(const Use& use) const {
    ForEachIndex<kProducts>([&](auto product) {
      constexpr int kCoordinate = decltype(product)::value / 2, kVector = kCoordinate / VectorCoordinates(kForm) * 4;
      const uint4 vector = make_uint4(codes_.words[kVector], codes_.words[kVector + 1], codes_.words[kVector + 2], codes_.words[kVector + 3]);
      uint32_t a[4];
      gains_.Decode(vector, kCoordinate, product % 2, a);
      use(product, a);
    });
  }

  // All that has been read.
  __device__ __forceinline__ uint32_t Fold() const {
    uint32_t all = gains_.Fold();
#pragma unroll
    for (const uint32_t word : codes_.words) all ^= word;
    return all;
  }

 private:
  PanelCodes<kForm> codes_;
  typename ColumnGains<kForm>::Table table_;
  ColumnGains<kForm> gains_;
};

// The activations of a chunk; as HalfOperands has them, but where they have been read to.
template <Form kForm>
class ColumnLanes {
 public:
  using Number = __half;  // of activations
  static_assert(IsColumns(kForm));
  using Panel = ColumnPanel<kForm>;
  static constexpr int kTiles = 1, kLaneRows = 2, kTileRows = 8, kRows = 8;
  static constexpr int kChains = 2;
  using Sums = float[kChains][4];

  __device__ __forceinline__ ColumnLanes(const PackedView& w, const __half* rows, int batch, int lane) : loads_(w, rows, batch, lane) {}

  __device__ __forceinline__ void Fetch(const PackedView& w, int chunk) { loads_.Fetch(w, chunk); }
  __device__ __forceinline__ void Hold() { loads_.Hold(); }
  __device__ __forceinline__ void Peaks(uint32_t (&peaks)[kTiles]) const { peaks[0] = loads_.Peak(0); }
  __device__ __forceinline__ void Make(const PackedView&, const uint32_t (&)[kTiles], int lane) { loads_.Exchange(lane); }

  __device__ __forceinline__ void Begin(const Panel&, Sums& sums) const {
#pragma unroll
    for (int i = 0; i < kChains * 4; ++i) sums[i / 4][i % 4] = 0;
  }
  __device__ __forceinline__ void Multiply(const uint32_t (&a)[4], int product, Sums& sums) const {
    const auto pair = [&](int i) { return AsWord(loads_.Pair(0, product / 2, product % 2 * 2 + i)); };
    MultiplyHalves(sums[product % kChains], a, pair(0), pair(1));
  }

  __device__ __forceinline__ void SetUnit(int, int i, const FixedPoint& unit) { scales_[i] = unit.scale * kHalvesScale; }
  __device__ __forceinline__ int Sum(const Sums& sums, int, int r) const { return __float2int_rn((sums[0][r] + sums[1][r]) * scales_[r % 2]); }
  static constexpr float Unit(int) { return 1; }

 private:
  RowLoads<__half, 1, 1> loads_;
  float scales_[2];
};

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_COLUMN_LANES_CUH_
