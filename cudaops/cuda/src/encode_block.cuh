// One block of D4 in one thread: the nearest point and the clamp of blocks that overload. The arithmetic is that of the package
// lattice (Encoder, Codec.clamp), which specifies every rounding and order; compile it without contraction.

#ifndef COSETQ_CUDA_ENCODE_BLOCK_CUH_
#define COSETQ_CUDA_ENCODE_BLOCK_CUH_

#include "cpu/encode_view.h"

namespace cosetq::cuda {

// A point is packed as in encode_view.h: a biased byte for each coordinate.
constexpr float kRound = (3 << 22) + kEncodeBias;

// The codebooks that kernels are made for: log2 q of the levels, in four bits each; 0 reads them from the codec.
constexpr int kAnyShape = 0;

template <int kShape>
__device__ __forceinline__ int Levels(const EncoderView& codec) {
  return kShape == kAnyShape ? codec.levels : kShape < 16 ? 1 : 2;
}

template <int kShape>
__device__ __forceinline__ int ShiftOf(const EncoderView& codec, int level) {
  return kShape == kAnyShape ? codec.level[level].shift : kShape >> (4 * level) & 15;
}

// Leaders of the levels in shared memory.
using Leaders = uint32_t[kEncodeLevels][256];

struct CodedBlock {
  uint32_t classes;  // level m in bits 8m and up
  float error;
  bool inside;
  uint32_t point;  // of Clamp
};

// The packed step of one in coordinate j, in the direction of r.
__device__ __forceinline__ uint32_t StepOf(int j, float r) {
  const uint32_t unit = 1u << (8 * j);
  return signbit(r) ? 0u - unit : unit;
}

__device__ __forceinline__ float SumOfSquares(const float r[4]) {
  return (r[0] * r[0] + r[1] * r[1]) + (r[2] * r[2] + r[3] * r[3]);
}

// The point nearest to y and its squared error.
__device__ __forceinline__ uint32_t NearestPoint(const float y[4], float* error) {
  uint32_t point = 0, parity = 0;
  float r[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float t = y[j] + kRound;
    r[j] = y[j] - (t - kRound);
    point |= (__float_as_uint(t) & 0xffu) << (8 * j);
    parity ^= __float_as_uint(t);
  }
  *error = SumOfSquares(r);
  if ((parity & 1u) == 0) return point;
  // The largest residual, the lowest coordinate first among equals.
  float worst = r[0];
  uint32_t step = StepOf(0, r[0]);
#pragma unroll
  for (int j = 1; j < 4; ++j) {
    if (fabsf(r[j]) > fabsf(worst)) {
      worst = r[j];
      step = StepOf(j, r[j]);
    }
  }
  *error = *error + (1.0f - 2.0f * fabsf(worst));
  return point + step;
}

// The classes of a point, and whether it is in the code.
template <int kShape>
__device__ __forceinline__ uint32_t Digits(const EncoderView& codec, const Leaders& leaders, uint32_t point, bool* inside) {
  uint32_t all = 0;
  const int levels = Levels<kShape>(codec);
#pragma unroll
  for (int m = 0; m < (kShape == kAnyShape ? kEncodeLevels : levels); ++m) {
    if (kShape == kAnyShape && m == levels) break;
    const int shift = ShiftOf<kShape>(codec, m);
    const uint32_t mask = (1u << shift) - 1;
    const uint32_t x2 = point >> 16, x3 = point >> 24;
    const uint32_t half = ((point + (point >> 8) + x2 + x3) & 0xffu) >> 1;
    const uint32_t k = ((0u - half) & mask) | ((point - half) & mask) << shift | ((0u - x2 - x3) & mask) << (2 * shift) |
                       ((0u - x3) & mask) << (3 * shift);
    point = (point - leaders[m][k]) >> shift;
    all |= k << (8 * m);
  }
  *inside = point == codec.level[levels - 1].zero;
  return all;
}

// By how much the largest magnitude of y, and the sum of the two largest, exceed the reach, or 0.
__device__ __forceinline__ void Excess(const EncoderView& codec, const float y[4], float* one, float* two) {
  const float a = fabsf(y[0]), b = fabsf(y[1]), c = fabsf(y[2]), d = fabsf(y[3]);
  const float ab = fmaxf(a, b), cd = fmaxf(c, d);
  const float first = fmaxf(ab, cd), second = fmaxf(fminf(ab, cd), fmaxf(fminf(a, b), fminf(c, d)));
  *one = fmaxf(first - codec.reach_one, 0.0f);
  *two = fmaxf(first + second - codec.reach_two, 0.0f);
}

// A lower bound on the squared distance from y to the code.
__device__ __forceinline__ float Bound(const EncoderView& codec, const float y[4]) {
  float one, two;
  Excess(codec, y, &one, &two);
  return fmaxf(one * one, two * two * 0.5f);
}

// The factor that brings y within the reach as seen from 0.
__device__ __forceinline__ float Shrink(const EncoderView& codec, const float y[4]) {
  float one, two;
  Excess(codec, y, &one, &two);
  return fminf(codec.reach_one / (codec.reach_one + one), codec.reach_two / (codec.reach_two + two));
}

// Moves a point by the first minimal vector that shortens the residual and stays in the code: a step along two of the
// largest residuals, or along one and against another. Returns whether it moved.
template <int kShape>
__device__ __forceinline__ bool Refine(const EncoderView& codec, const Leaders& leaders, const float r[4], uint32_t* point, uint32_t* classes) {
  float size[4];
  uint32_t step[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    size[j] = fabsf(r[j]);
    step[j] = StepOf(j, r[j]);
  }
  // In descending order. Only neighbours change places, and only if they must: the order of equals stays.
#pragma unroll
  for (int end = 3; end > 0; --end) {
#pragma unroll
    for (int j = 0; j < end; ++j) {
      if (size[j + 1] > size[j]) {
        const float s = size[j];
        size[j] = size[j + 1];
        size[j + 1] = s;
        const uint32_t u = step[j];
        step[j] = step[j + 1];
        step[j + 1] = u;
      }
    }
  }
  const uint32_t from = *point;
  bool moved = false;
  const auto try_ = [&](int along, int other, bool against) {
    if (moved || !((against ? size[along] - size[other] : size[along] + size[other]) > 1.0f)) return;
    const uint32_t towards = from + step[along];
    const uint32_t candidate = against ? towards - step[other] : towards + step[other];
    bool inside;
    const uint32_t k = Digits<kShape>(codec, leaders, candidate, &inside);
    if (!inside) return;
    *point = candidate;
    *classes = k;
    moved = true;
  };
  try_(0, 1, false);
  try_(0, 2, false);
  try_(0, 3, false);
  try_(1, 2, false);
  try_(1, 3, false);
  try_(2, 3, false);
  try_(0, 3, true);
  try_(0, 2, true);
  try_(0, 1, true);
  try_(1, 3, true);
  try_(1, 2, true);
  try_(2, 3, true);
  return moved;
}

// Codes a block that overloads: the first point along the ray to the centre of the code, then better ones.
template <int kShape>
__device__ __forceinline__ CodedBlock Clamp(const EncoderView& codec, const Leaders& leaders, const float y[4]) {
  CodedBlock code;
  uint32_t point;
  bool inside = false;
  for (float s = Shrink(codec, y); !inside; s = s * codec.ray_shrink) {
    float u[4], unused;
#pragma unroll
    for (int j = 0; j < 4; ++j) u[j] = s * (y[j] - codec.centre[j]) + codec.centre[j];
    point = NearestPoint(u, &unused);
    code.classes = Digits<kShape>(codec, leaders, point, &inside);
  }
  for (int moves = 0;; ++moves) {
    float r[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      r[j] = y[j] - static_cast<float>(static_cast<int>(point >> (8 * j) & 0xffu) - kEncodeBias);
    if (moves == codec.max_refinements || !Refine<kShape>(codec, leaders, r, &point, &code.classes)) {
      code.error = SumOfSquares(r);
      code.inside = true;
      code.point = point;
      return code;
    }
  }
}

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ENCODE_BLOCK_CUH_
