// Activations as the small-batch kernel multiplies them: integers of 16 bits, in two signed bytes, in the order of the columns of
// a panel (views.h).
//
// A row a of the activations is a = step * q, |q| <= 32639, and q = 256 * high + low. The weights come as u = gain * (v - rounded
// centre) + bias, see ByteView. So the sum of the products with u holds the sum of the biases times q too much, which no row of the
// weight changes, and the sum over groups of gain * <rest, q> too little, for which each group has one more number -<rest, q> to be
// multiplied by its gain. Weights of single columns come as 2 * gain * n, without a bias, and the number is the doubled centre times minus
// the sum of the group's q, exactly: two bytes each for what the sums of high bytes and of low ones lack.

#ifndef COSETQ_CUDA_ACTIVATIONS_CUH_
#define COSETQ_CUDA_ACTIVATIONS_CUH_

#include <cuda_fp16.h>

#include <cstdint>

#include "views.h"

namespace cosetq::cuda {

constexpr float kLargestActivation = 32639;

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }

// The largest magnitude among 16 bytes of activations, as bits that are ordered like magnitudes, NaN above infinity.
__device__ __forceinline__ uint32_t Magnitude(uint4 v, float) {
  constexpr uint32_t kMask = 0x7fffffffu;
  return max(max(v.x & kMask, v.y & kMask), max(v.z & kMask, v.w & kMask));
}
__device__ __forceinline__ uint32_t Magnitude(uint4 v, __half) {
  constexpr uint32_t kMask = 0x7fff7fffu;
  const uint32_t two = __vmaxu2(__vmaxu2(v.x & kMask, v.y & kMask), __vmaxu2(v.z & kMask, v.w & kMask));
  return max(two & 0xffffu, two >> 16);
}
__device__ __forceinline__ uint32_t Magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }
__device__ __forceinline__ uint32_t Magnitude(__half x) { return __half_as_ushort(x) & 0x7fffu; }

// The same of a float.
__device__ __forceinline__ uint32_t FloatMagnitude(uint32_t magnitude, float) { return magnitude; }
__device__ __forceinline__ uint32_t FloatMagnitude(uint32_t magnitude, __half) {
  return __float_as_uint(__half2float(__ushort_as_half(static_cast<unsigned short>(magnitude))));
}

// Copies rows to shared memory and raises peaks, [row], to the largest magnitudes, for the calling thread's part of them. Another kernel
// has written the rows a moment ago, so they are read past the first-level cache. All threads of a warp must call it. Calls late() when the
// first loads are on their way.
template <typename T, typename Late>
__device__ __forceinline__ void CopyRows(const T* rows, int count, int cols, int thread, int threads, T* copy, uint32_t* peaks, const Late& late) {
  constexpr int kVector = 16 / sizeof(T), kAtOnce = 4;
  const bool one = count == 1;
  if (reinterpret_cast<uintptr_t>(rows) % 16 == 0 && cols % (32 * kVector) == 0) {
    // All vectors of a warp are of the same row.
    const int per_row = cols / kVector, all = count * per_row;
    for (int base = thread; base < all; base += kAtOnce * threads) {
      uint4 v[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
        if (base + i * threads < all) v[i] = __ldcg(reinterpret_cast<const uint4*>(rows) + base + i * threads);
      if (base == thread) late();
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int at = base + i * threads;
        if (at >= all) break;
        reinterpret_cast<uint4*>(copy)[at] = v[i];
        const uint32_t peak = __reduce_max_sync(0xffffffffu, Magnitude(v[i], T()));
        if (thread % 32 == 0) atomicMax(peaks + (one ? 0 : at / per_row), peak);
      }
    }
    if (thread >= all) late();
  } else {
    late();
    for (int at = thread; at < count * cols; at += threads) {
      const T x = __ldcg(rows + at);
      copy[at] = x;
      atomicMax(peaks + (one ? 0 : at / cols), Magnitude(x));
    }
  }
}

// What another kernel has written a moment ago, past the first-level cache; or what lies in shared memory.
template <bool kShared, typename T>
__device__ __forceinline__ T Fresh(const T* at) {
  if constexpr (kShared) return *at;
  return __ldcg(at);
}

// The largest magnitude of a row, as the bits of a float, of which the threads of a warp look at a part.
template <bool kShared = false, typename T>
__device__ __forceinline__ uint32_t PeakOf(const T* row, int cols, int thread, int threads, T* copy = nullptr) {
  constexpr int kVector = 16 / sizeof(T);
  uint32_t peak = 0;
  if (reinterpret_cast<uintptr_t>(row) % 16 == 0 && cols % kVector == 0) {
#pragma unroll 4
    for (int i = thread; i < cols / kVector; i += threads) {
      const uint4 v = Fresh<kShared>(reinterpret_cast<const uint4*>(row) + i);
      peak = max(peak, Magnitude(v, T()));
      if (copy != nullptr) reinterpret_cast<uint4*>(copy)[i] = v;
    }
  } else {
#pragma unroll 2
    for (int i = thread; i < cols; i += threads) {
      const T x = Fresh<kShared>(row + i);
      peak = max(peak, Magnitude(x));
      if (copy != nullptr) copy[i] = x;
    }
  }
  return FloatMagnitude(__reduce_max_sync(0xffffffffu, peak), T());
}

// What activations of a row with that peak are multiplied by. A peak so small that the factor overflows is as good as 0, and where
// a result will be NaN nothing matters.
__device__ __forceinline__ float ScaleOf(uint32_t peak) {
  const float scale = kLargestActivation / __uint_as_float(peak);
  return scale > 0 && scale < INFINITY ? scale : 0.0f;
}

// What a sum is multiplied by; NaN for a row with NaN or infinity.
__device__ __forceinline__ float StepOf(uint32_t peak) {
  return peak < 0x7f800000u ? __uint_as_float(peak) * (1 / kLargestActivation) : __int_as_float(0x7fffffff);
}

// Four lanes q, kApart from each other, exchange words: lane q gives its r-th one to lane r.
template <int kApart = 1>
__device__ __forceinline__ void ExchangeGroups(int q, uint32_t (&words)[4]) {
  const auto exchange = [&](bool high, int bit, uint32_t& first, uint32_t& second) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, high ? first : second, bit);
    (high ? first : second) = other;
  };
  exchange(q & 2, 2 * kApart, words[0], words[2]);
  exchange(q & 2, 2 * kApart, words[1], words[3]);
  exchange(q & 1, kApart, words[0], words[1]);
  exchange(q & 1, kApart, words[2], words[3]);
}

template <typename T>
__device__ __forceinline__ void LoadGroup(const PackedView& w, const T* row, int group, float x[kGroup]) {
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    const int column = group + w.groups * j;
    x[j] = group < w.groups && column < w.cols ? ToFloat(row[column]) : 0.0f;
  }
}

// The sum of products of unsigned and signed bytes.
__device__ __forceinline__ int DotBytes(uint32_t u, uint32_t s, int sum) {
  int out;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(u), "r"(s), "r"(sum));
  return out;
}

__device__ __forceinline__ int DotSigned(uint32_t a, uint32_t b, int sum) { return __dp4a(static_cast<int>(a), static_cast<int>(b), sum); }

// What sums over a group's coordinates are multiplied by where weights are single columns, four times in a word: minus the doubled centre.
__device__ __forceinline__ uint32_t ColumnRest(const ByteView& w) { return (w.centres & 255) * 0x01010101u; }

// A group of activations.
struct GroupBytes {
  uint32_t high[2], low[2];      // a block each
  uint32_t high_rest, low_rest;  // the number that goes with the gain, in the low byte; of single columns its bytes, both signed
  int high_bias, low_bias;       // sums of the biases times the bytes

  // What a sum of products with 256 * high + low lacks so that the biases leave it, modulo 2^32.
  __device__ __forceinline__ int Offset() const { return static_cast<int>(0u - (static_cast<uint32_t>(high_bias) * 256 + static_cast<uint32_t>(low_bias))); }

  // A float of 1.5 * 2^23 plus q has q in its low bits; a further 2^15 + 2^7 makes both bytes unsigned, 128 too large.
  __device__ __forceinline__ GroupBytes(const ByteView& w, bool columns, float x[kGroup], float scale) : high_bias(0), low_bias(0) {
    constexpr float kRound = (3 << 22) + (1 << 15) + (1 << 7);
    float inner = 0;
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      if (scale == 0) x[j] = 0;
      if (!columns) inner = __fmaf_rn(w.rest[j], x[j], inner);
    }
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      uint32_t q[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) q[j] = __float_as_uint(__fmaf_rn(x[4 * block + j], scale, kRound));
      const uint32_t first = __byte_perm(q[0], q[1], 0x5140), second = __byte_perm(q[2], q[3], 0x5140);
      low[block] = __byte_perm(first, second, 0x5410) ^ 0x80808080u;
      high[block] = __byte_perm(first, second, 0x7632) ^ 0x80808080u;
      if (!columns) high_bias = DotBytes(w.base, high[block], high_bias), low_bias = DotBytes(w.base, low[block], low_bias);
    }
    if (columns) {
      const auto rest = [&](const uint32_t(&q)[2]) {
        return static_cast<uint32_t>(DotSigned(q[0], ColumnRest(w), DotSigned(q[1], ColumnRest(w), 128))) ^ 128;
      };
      low_rest = rest(low);
      high_rest = rest(high);
    } else {
      low_rest = __float_as_uint(__fmaf_rn(inner, -scale, kRound)) ^ 0x8080u;
      high_rest = low_rest >> 8;
    }
  }
};

// Where a row of the activations of a chunk lies, in bytes from its begin. High bytes: [pair of steps][t] 16 bytes, b0 and b1 of
// either step, and the numbers for the gains, [byte][t] 8 bytes, one per step; low bytes likewise; then the offset of the sums.
struct ChunkRow {
  static constexpr int kLow = 320, kOffset = 640, kBytes = 656;

  __host__ __device__ static constexpr int Data(int step, int t) { return step / 2 * 64 + t * 16 + step % 2 * 8; }
  __host__ __device__ static constexpr int Rest(int step, int t, int byte = 0) { return 256 + byte * 32 + t * 8 + step; }
};

}  // namespace cosetq::cuda

#endif  // COSETQ_CUDA_ACTIVATIONS_CUH_
