// Activations of one row or two as integers of 16 bits in two bytes, which the lanes of a warp make of what they read together.

#ifndef COSETQ_CUDA_ROW_LANES_CUH_
#define COSETQ_CUDA_ROW_LANES_CUH_

#include "byte_lanes.cuh"

namespace cosetq::cuda {
namespace {

// Integers as ByteLanes has them. The columns of B that a row stands for, eight or four, have a part of its bytes each: high ones of the
// first four steps, low ones of these, then of the other four; where there are eight columns, of a block each. So a lane keeps what four of
// them have exchanged as it is, and multiplies it in either half of the steps: sums of the other half are of no use. Those of a row are in
// parts, with high and low bytes of each in one lane.
template <Form kForm, int kMostRows, typename T>
class RowLanes {
 public:
  using Number = T;  // of activations
  static_assert(kMostRows == 1 || kMostRows == 2);
  using Panel = BytePanel<kForm>;
  static constexpr int kTiles = 1, kLaneRows = 1, kTileRows = kMostRows, kRows = kMostRows;
  using Loads = RowLoads<T, 8 / kMostRows, 1, kMostRows>;
  static constexpr int kStageBytes = Loads::kStageBytes;
  using Sums = int[3][4];  // of the first four steps, of the others, and what either begins with

  __device__ __forceinline__ RowLanes(const PackedView& w, const T* rows, int batch, int lane) : loads_(w, rows, batch, lane), second_(lane % 2 != 0) {
#pragma unroll
    for (int j = 0; !IsColumns(kForm) && j < kMostRows; ++j) lacks_[j] = Twice<T>(-w.bytes.rest[lane / 4 % (8 / kMostRows) * kMostRows + j]);
  }

  // As HalfOperands has them.
  __device__ __forceinline__ void Fetch(const PackedView& w, int chunk) { loads_.Fetch(w, chunk); }
  __device__ __forceinline__ void Hold() { loads_.Hold(); }
  __device__ __forceinline__ void Copy(const PackedView& w, int chunk, uint32_t stage) const { loads_.Copy(w, chunk, stage); }
  __device__ __forceinline__ void TakeCopy(uint32_t stage) { loads_.TakeCopy(stage); }
  __device__ __forceinline__ void Peaks(uint32_t (&peaks)[kTiles]) const {
    uint32_t largest = loads_.Largest(0);
    largest = OfRow([&](uint32_t x) { return __reduce_max_sync(0xffffffffu, x); }, largest, threadIdx.x % 32 / 16);
    peaks[0] = FloatMagnitude(largest, T());
  }

  __device__ __forceinline__ void Make(const PackedView& w, const uint32_t (&peaks)[kTiles], int lane) {
    if constexpr (IsColumns(kForm)) loads_.Exchange(lane);
    const ByteStep made(peaks[0]);
    const float scale = made.scale;
    step_ = kMostRows == 1 ? made.exponent : __shfl_sync(0xffffffffu, made.exponent, lane % 4 / 2 * 16);
    // A float of 1.5 * 2^23 plus q has q in its low bits; with a further 2^7 the high byte is rounded, and the low one 128 too large.
    const auto number = [scale](float x) {
      constexpr float kRound = (3 << 22) + (1 << 7);
      return __float_as_uint(__fmaf_rn(x, scale, kRound));
    };
    const int column = lane / 4, half = column % 4 / 2;
    // Of four steps high bytes and low ones, then of the other four; coordinates of a step next to each other.
    uint32_t words[kMostRows][4];
#pragma unroll
    for (int i = 0; i < 2 * kMostRows; ++i) {
      const auto q = [&](int e) {
        const int at = 4 * i + e;
        return number(loads_.Number(0, at % kMostRows, at / kMostRows));
      };
      const uint32_t first = __byte_perm(q(0), q(1), 0x5140), second = __byte_perm(q(2), q(3), 0x5140);
      uint32_t(&to)[4] = words[i % kMostRows];
      to[i / kMostRows * 2] = __byte_perm(first, second, 0x7632);
      to[i / kMostRows * 2 + 1] = __byte_perm(first, second, 0x5410) ^ 0x80808080u;
    }
#pragma unroll
    for (int i = 0; i < kMostRows; ++i) ExchangeGroups<4>(column % 4, words[i]);
    if constexpr (kMostRows == 1) {
      const auto& of = words[0];
      const uint32_t pairs[4] = {__byte_perm(of[0], of[1], 0x5140), __byte_perm(of[2], of[3], 0x5140), __byte_perm(of[0], of[1], 0x7362),
                                 __byte_perm(of[2], of[3], 0x7362)};
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const uint32_t block = __byte_perm(pairs[s / 2 * 2], pairs[s / 2 * 2 + 1], s % 2 == 0 ? 0x5410 : 0x7632);
        data_[s][0] = column < 4 ? block : 0;
        data_[s][1] = column < 4 ? 0 : block;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kSteps * 2; ++i) {
        const auto& of = words[i / 4 * (kMostRows - 1)];
        data_[i / 2][i % 2] = __byte_perm(of[i % 2 * 2], of[i % 2 * 2 + 1], i / 2 % 2 == 0 ? 0x5410 : 0x7632);
      }
    }
    if constexpr (IsColumns(kForm)) {
      MakeColumnRests(w, half);
    } else {
      MakeRests(number, column);
      uint32_t biased = 0;
#pragma unroll
      for (int i = 0; i < kSteps * 2; ++i) biased = static_cast<uint32_t>(DotBytes(w.bytes.base, data_[i / 2][i % 2], static_cast<int>(biased)));
      biased = OfRow([&](uint32_t x) { return __reduce_add_sync(0xffffffffu, x); }, column % 2 == 0 ? biased * 256 : biased, lane % 4 / 2);
      offset_ = lane % 4 % kParts == 0 ? 0 - biased : 0;
    }
  }

  __device__ __forceinline__ void Begin(const Panel& panel, Sums& sums) const {
    const auto& gains = panel.gains;
    // The gains themselves are A for what goes with them: a byte per step and lane is a column of A.
    MultiplyGains<kForm>(sums[2], {gains[0][0], gains[1][0], gains[0][1], gains[1][1]}, rests_);
  }
  __device__ __forceinline__ void Multiply(const uint32_t (&u)[4], int step, Sums& sums) const {
    MultiplyAdd(sums[step / kSteps], u, data_[step % kSteps][0], data_[step % kSteps][1], sums[step % kSteps == 0 ? 2 : step / kSteps]);
  }

  // Sets the unit of sums of the row that the lane has sums of.
  __device__ __forceinline__ void SetUnit(int, int, const FixedPoint& unit) {
    shift_ = min(max(unit.exponent - step_, 0), 30);
    more_ = (1u << shift_ >> 1) + offset_;
  }
  // Part r of a sum, in its unit; before that modulo 2^32, where the result fits again.
  __device__ __forceinline__ int Sum(const Sums& sums, int, int r) const {
    const auto of = [&](int i) { return static_cast<uint32_t>(second_ ? sums[1][i] : sums[0][i]); };
    return static_cast<int>(of(2 * r) * 256 + of(2 * r + 1) + more_) >> shift_;
  }
  // What sums of rows g + 8 * half are multiplied by.
  static constexpr float Unit(int half) { return ColumnUnit(kForm, half); }

 private:
  static constexpr int kSteps = kPanelSteps / 2, kParts = 4 / kMostRows, kRests = RestBytes(kForm);

  // What all lanes of a row make of their numbers; each gets that of the row that it wants.
  template <typename Reduce>
  __device__ __forceinline__ static uint32_t OfRow(const Reduce& reduce, uint32_t x, int wanted) {
    if constexpr (kMostRows == 1) return reduce(x);
    const bool second = threadIdx.x % 32 >= 16;
    const uint32_t of[2] = {reduce(second ? 0 : x), reduce(second ? x : 0)};
    return wanted == 0 ? of[0] : of[1];
  }

  // What goes with the gains of the lane's steps: of single columns two bytes of a sum, both signed: begun with 128, the upper one is
  // rounded, and the lower one less 128 is what is left.
  __device__ __forceinline__ void MakeColumnRests(const PackedView& w, int half) {
    const uint32_t weight = ColumnRest(w.bytes);
    uint32_t of[kSteps];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) of[s] = static_cast<uint32_t>(DotSigned(data_[s][0], weight, DotSigned(data_[s][1], weight, 128)));
    const uint32_t first = __byte_perm(of[0], of[1], 0x5140), second = __byte_perm(of[2], of[3], 0x5140);
    const uint32_t bytes[2] = {__byte_perm(first, second, 0x5410) ^ 0x80808080u, __byte_perm(first, second, 0x7632)};
#pragma unroll
    for (int i = 0; i < kRests; ++i) rests_[i] = make_uint2(half == 0 ? bytes[i] : 0, half == 1 ? bytes[i] : 0);
  }

  // The same of blocks, of which each lane has coordinates to sum up over: lanes keep half of the sums each time they exchange some, so
  // that every column ends with those of two steps, or of four.
  template <typename Number>
  __device__ __forceinline__ void MakeRests(const Number& number, int column) {
    Two<T> of[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      of[i] = Times(lacks_[0], loads_.Pair(0, 0, i));
      if constexpr (kMostRows == 2) of[i] = Times(lacks_[kMostRows - 1], loads_.Pair(0, kMostRows - 1, i), of[i]);
    }
    const auto keep = [&](bool second, Two<T> x, Two<T> y, int lanes) { return Plus(second ? y : x, OfLane(second ? x : y, lanes)); };
    const bool low = column % 2 != 0;
    const auto pair = [&](Two<T> x) { return __byte_perm(number(First(x)), number(Second(x)), low ? 0x0040 : 0x0051); };
    uint32_t bytes, half;
    if constexpr (kMostRows == 1) {
      const bool second = column & 2;
      half = column & 4;
      const Two<T> first = keep(half, of[0], of[2], 16), last = keep(half, of[1], of[3], 16);
      const Two<T> one = keep(second, first, last, 8);
      bytes = (pair(Plus(one, OfLane(one, 4))) ^ (low ? 0x8080u : 0)) & 0xffffu;
      if (second) bytes <<= 16;
    } else {
      half = column & 2;
      const Two<T> first = keep(half, of[0], of[2], 8), last = keep(half, of[1], of[3], 8);
      bytes = __byte_perm(pair(Plus(first, OfLane(first, 4))), pair(Plus(last, OfLane(last, 4))), 0x5410) ^ (low ? 0x80808080u : 0);
    }
    rests_[0] = make_uint2(half == 0 ? bytes : 0, half != 0 ? bytes : 0);
  }

  Loads loads_;
  bool second_;                  // the lane has sums of the other half of the steps
  Two<T> lacks_[kMostRows];      // what coordinates are multiplied by for the gains
  uint32_t data_[kSteps][2];     // blocks
  uint2 rests_[kRests];          // what gains are multiplied by, a byte per step
  uint32_t offset_ = 0, more_;   // what sums lack so that biases leave them, in one of the parts; and half a unit
  int step_, shift_;
};

}  // namespace
}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ROW_LANES_CUH_
