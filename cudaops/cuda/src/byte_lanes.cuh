// Activations of few rows as integers of 16 bits in two bytes, which lanes make of what they read.

#ifndef COSETQ_CUDA_BYTE_LANES_CUH_
#define COSETQ_CUDA_BYTE_LANES_CUH_

#include "fixed_point.cuh"
#include "byte_operands.cuh"
#include "row_loads.cuh"

namespace cosetq::cuda {
namespace {

// D += A * B for unsigned bytes A [16, 32] and B [32, 8].
__device__ __forceinline__ void MultiplyAddUnsigned(int d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The step of a chunk of a row, as the exponent of a float, and one over it, which is finite: so small that the largest q is reached, if
// activations are such that float16 can tell them from 0.
struct ByteStep {
  int exponent;
  float scale;

  __device__ __forceinline__ explicit ByteStep(uint32_t peak) {
    constexpr int kBits = 15, kLeast = kBits;
    const float most = __uint_as_float(peak) * ((1 << kBits) / kLargestActivation);
    exponent = max(static_cast<int>(__float_as_uint(most) >> 23), kLeast) + 1 - kBits;
    scale = __uint_as_float(static_cast<uint32_t>(254 - exponent) << 23);
  }
};

// The activations of a chunk of a row are step * q, a power of two and an integer, |q| <= kLargestActivation, and q = 256 * high + low.
// Up to four rows share a tile of columns of B, where high bytes and low ones, both signed, alternate; of up to eight a tile has the high
// bytes, signed, and one the low ones, unsigned. Either way a lane has both sums of what it has of a row.
template <Form kForm, int kMostRows, typename T>
class ByteLanes {
 public:
  using Number = T;  // of activations
  static_assert(kMostRows == 4 || kMostRows == 8);
  using Panel = BytePanel<kForm>;
  static constexpr int kTiles = 1, kLaneRows = kMostRows / 4, kTileRows = kMostRows, kRows = kMostRows;
  static constexpr int kColumnTiles = kMostRows / 4, kRests = kColumnTiles + IsColumns(kForm);
  // Two lanes that multiply by a row's high and low bytes each make a block of both.
  static constexpr bool kHalves = kMostRows == 4;
  using Loads = RowLoads<T, 8 / kMostRows, 1, kHalves ? kGroup / 2 : kGroup>;
  static constexpr int kStageBytes = Loads::kStageBytes;
  using Sums = int[kColumnTiles][4];

  __device__ __forceinline__ ByteLanes(const PackedView& w, const T* rows, int batch, int lane) : loads_(w, rows, batch, lane) {}

  // As HalfOperands has them.
  __device__ __forceinline__ void Fetch(const PackedView& w, int chunk) { loads_.Fetch(w, chunk); }
  __device__ __forceinline__ void Hold() { loads_.Hold(); }
  __device__ __forceinline__ void Copy(const PackedView& w, int chunk, uint32_t stage) const { loads_.Copy(w, chunk, stage); }
  __device__ __forceinline__ void TakeCopy(uint32_t stage) { loads_.TakeCopy(stage); }
  __device__ __forceinline__ void Peaks(uint32_t (&peaks)[kTiles]) const { peaks[0] = loads_.Peak(0); }

  __device__ __forceinline__ void Make(const PackedView& w, const uint32_t (&peaks)[kTiles], int lane) {
    if constexpr (IsColumns(kForm)) loads_.Exchange(lane);
    const ByteStep made(peaks[0]);
    const int exponent = made.exponent;
    const float scale = made.scale;
    // A float of 1.5 * 2^23 plus q has q in its low bits; a further 2^15 + 2^7 makes both bytes unsigned, 128 too large.
    constexpr bool kSigned = kMostRows == 4;
    constexpr float kRound = (3 << 22) + (kSigned ? (1 << 15) + (1 << 7) : 0);
    const bool low = lane / 4 % 2 != 0;  // bytes are wanted, of up to four rows
    const uint32_t byte = low ? 0x40 : 0x51;  // of two numbers
    const auto pack = [&](const float (&q)[4], uint32_t (&to)[kColumnTiles]) {
      const uint32_t select = kSigned ? byte : 0x5140;
      const uint32_t first = __byte_perm(__float_as_uint(q[0]), __float_as_uint(q[1]), select);
      const uint32_t second = __byte_perm(__float_as_uint(q[2]), __float_as_uint(q[3]), select);
      if constexpr (kSigned) {
        to[0] = __byte_perm(first, second, 0x5410) ^ 0x80808080u;
      } else {
        to[0] = __byte_perm(first, second, 0x7632);
        to[1] = __byte_perm(first, second, 0x5410);
      }
    };
    // The lane's block of both bytes, of which the other lane wants one.
    const auto pack_half = [&](const float (&q)[4], uint32_t (&to)[2][kColumnTiles]) {
      const uint32_t first = __byte_perm(__float_as_uint(q[0]), __float_as_uint(q[1]), 0x5140);
      const uint32_t second = __byte_perm(__float_as_uint(q[2]), __float_as_uint(q[3]), 0x5140);
      const uint32_t own = __byte_perm(first, second, low ? 0x5410 : 0x7632) ^ 0x80808080u;
      const uint32_t other = __shfl_xor_sync(0xffffffffu, __byte_perm(first, second, low ? 0x7632 : 0x5410) ^ 0x80808080u, 4);
      to[0][0] = low ? other : own;
      to[1][0] = low ? own : other;
    };
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto number = [&](float x) { return __fmaf_rn(x, scale, kRound); };
      float rest[4];
#pragma unroll
      for (int i = 0; i < 2 && !IsColumns(kForm); ++i) {
        const Two<T> pair = loads_.Rest(w, 0, half * 2 + i, lane);
        rest[2 * i] = number(First(pair));
        rest[2 * i + 1] = number(Second(pair));
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int s = half * 4 + i;
#pragma unroll
        for (int block = 0; block < (kHalves ? 1 : 2); ++block) {
          float q[4];
#pragma unroll
          for (int j = 0; j < 4; ++j) q[j] = number(loads_.Number(0, 4 * block + j, s));
          if constexpr (kHalves) {
            pack_half(q, data_[s]);
          } else {
            pack(q, data_[s][block]);
          }
        }
      }
      if constexpr (IsColumns(kForm)) {
        const uint32_t weight = ColumnRest(w.bytes);
        uint32_t of[4];
        if constexpr (kSigned) {
          // Two bytes of a sum, both signed: begun with 128, the upper one is rounded, and the lower one less 128 is what is left.
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const auto(&q)[2][kColumnTiles] = data_[half * 4 + i];
            of[i] = static_cast<uint32_t>(DotSigned(q[0][0], weight, DotSigned(q[1][0], weight, 128)));
          }
        } else {
          // Three, of the sum of both bytes.
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const auto(&q)[2][kColumnTiles] = data_[half * 4 + i];
            const auto high = static_cast<uint32_t>(DotSigned(q[0][0], weight, DotSigned(q[1][0], weight, 0)));
            of[i] = high * 256 + static_cast<uint32_t>(DotBytes(q[0][1], weight, DotBytes(q[1][1], weight, 0x8080)));
          }
          Rest(half, 2) = __byte_perm(__byte_perm(of[0], of[1], 0x0062), __byte_perm(of[2], of[3], 0x0062), 0x5410);
        }
        const uint32_t first = __byte_perm(of[0], of[1], 0x5140), second = __byte_perm(of[2], of[3], 0x5140);
        Rest(half, 0) = __byte_perm(first, second, 0x5410) ^ 0x80808080u;
        Rest(half, 1) = __byte_perm(first, second, 0x7632) ^ (kSigned ? 0 : 0x80808080u);
      } else {
        uint32_t packed[kColumnTiles];
        pack(rest, packed);
#pragma unroll
        for (int tile = 0; tile < kColumnTiles; ++tile) Rest(half, tile) = packed[tile];
      }
    }
#pragma unroll
    for (int i = 0; i < kLaneRows; ++i) steps_[i] = __shfl_sync(0xffffffffu, exponent, lane % 4 * 8 + i * 4);
    if constexpr (IsColumns(kForm)) return;
    const uint32_t base = w.bytes.base, biases[4] = {base, base, base, base};
#pragma unroll
    for (int tile = 0; tile < kColumnTiles; ++tile) {
      int d[2][4] = {};  // chains, so that products wait less for each other
#pragma unroll
      for (int s = 0; s < kPanelSteps; ++s) Add(d[s % 2], biases, data_[s][0][tile], data_[s][1][tile], tile);
#pragma unroll
      for (int i = 0; i < 2; ++i) offsets_[tile][i] = -d[0][i] - d[1][i];
    }
  }

  __device__ __forceinline__ void Begin(const Panel& panel, Sums& sums) const {
    const auto& gains = panel.gains;
    const uint32_t a[4] = {gains[0][0], gains[1][0], gains[0][1], gains[1][1]};
    // The gains themselves are A for what goes with them: a byte per step and lane is a column of A.
    if constexpr (IsColumns(kForm) && kMostRows == 4) {
      MultiplyGains<kForm>(sums[0], a, rests_);
    } else if constexpr (IsColumns(kForm)) {
      MultiplyGains<kForm>(sums[0], a, {rests_[1], rests_[2]});
      MultiplyGains<kForm>(sums[1], a, {rests_[0]});
    } else {
#pragma unroll
      for (int tile = 0; tile < kColumnTiles; ++tile) {
#pragma unroll
        for (int r = 0; r < 4; ++r) sums[tile][r] = offsets_[tile][r % 2];
        Add(sums[tile], a, rests_[tile].x, rests_[tile].y, tile);
      }
    }
  }
  __device__ __forceinline__ void Multiply(const uint32_t (&u)[4], int step, Sums& sums) const {
#pragma unroll
    for (int tile = 0; tile < kColumnTiles; ++tile) Add(sums[tile], u, data_[step][0][tile], data_[step][1][tile], tile);
  }

  // Sets the unit of sums of a row that the lane has sums of.
  __device__ __forceinline__ void SetUnit(int, int i, const FixedPoint& unit) {
    shifts_[i] = min(max(unit.exponent - steps_[i], 0), 30);
    rounds_[i] = 1 << shifts_[i] >> 1;
  }
  // Sum r, of row kLaneRows * t + r % kLaneRows, in its unit.
  __device__ __forceinline__ int Sum(const Sums& sums, int, int r) const {
    const int high = kMostRows == 4 ? sums[0][2 * r] : sums[0][r], low = kMostRows == 4 ? sums[0][2 * r + 1] : sums[kColumnTiles - 1][r];
    return (high * 256 + low + rounds_[r % kLaneRows]) >> shifts_[r % kLaneRows];
  }
  // What sums of rows g + 8 * half are multiplied by.
  static constexpr float Unit(int half) { return ColumnUnit(kForm, half); }

 private:
  __device__ __forceinline__ static void Add(int (&d)[4], const uint32_t a[4], uint32_t b0, uint32_t b1, int tile) {
    tile == 0 ? MultiplyAdd(d, a, b0, b1) : MultiplyAddUnsigned(d, a, b0, b1);
  }

  // Of the first four steps or the second.
  __device__ __forceinline__ uint32_t& Rest(int half, int i) { return half == 0 ? rests_[i].x : rests_[i].y; }

  Loads loads_;
  uint32_t data_[kPanelSteps][2][kColumnTiles];  // blocks
  uint2 rests_[kRests];                          // what gains are multiplied by, a byte per step: of tiles, or the bytes of a sum
  int offsets_[kColumnTiles][2];                 // of columns 2t and 2t + 1
  int steps_[kLaneRows];                         // as the exponents of floats
  int shifts_[kLaneRows], rounds_[kLaneRows];
};

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_BYTE_LANES_CUH_
