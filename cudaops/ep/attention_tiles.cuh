// Attention of many queries at once: tiles of queries and of keys in shared memory.

#ifndef COSETQ_EP_ATTENTION_TILES_CUH_
#define COSETQ_EP_ATTENTION_TILES_CUH_

#include "attention_rules.cuh"

#ifdef __CUDACC__

namespace cosetq::ep {

constexpr int kSide = 16, kBlock = kSide * kSide, kKeys = 64;

// Rows of up to kWidth numbers to shared memory, with zeros behind them. fours: they begin at multiples of four numbers.
template <typename T, int kRows, int kWidth, typename RowAt>
__device__ __forceinline__ void LoadRows(float (*to)[kWidth + 4], int rows, int width, bool fours, RowAt row_at) {
  constexpr int kFours = kWidth / 4;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kFours; i += kBlock) {
    const int row = i / kFours, d = i % kFours * 4;
    float4 x = make_float4(0, 0, 0, 0);
    if (row < rows && d < width) {
      const T* from = row_at(row) + d;
      if (fours) {
        x = LoadFour(from);
      } else {
        x.x = ToFloat(from[0]);
        if (d + 1 < width) x.y = ToFloat(from[1]);
        if (d + 2 < width) x.z = ToFloat(from[2]);
        if (d + 3 < width) x.w = ToFloat(from[3]);
      }
    }
    *reinterpret_cast<float4*>(&to[row][d]) = x;
  }
}

// Keys of which all numbers with the same place lie together, those of one key a step apart.
template <typename T, int kWidth>
__device__ __forceinline__ void LoadAcross(float (*to)[kKeys + 4], int keys, int width, const T* from, int64_t step) {
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kWidth * kKeys; i += kBlock) {
    const int d = i / kKeys, j = i % kKeys;
    to[d][j] = j < keys && d < width ? ToFloat(from[d * step + j]) : 0.0f;
  }
}

__device__ __forceinline__ float Of(float4 x, int e) { return e == 0 ? x.x : e == 1 ? x.y : e == 2 ? x.z : x.w; }
__device__ __forceinline__ float Dot(float4 a, float4 b, float sum) { return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sum)))); }

template <int kRows, int kWidth>
struct AttendMemory {
  static constexpr int kM = kRows * kSide;
  float q[kM][kWidth + 4], weights[kM][kKeys + 4];
  union {
    float kv[kKeys][kWidth + 4];
    float across[kWidth][kKeys + 4];  // keys of which all numbers with the same place lie together
  };
};

// A block takes kRows * 16 rows and 64 keys at a time, a thread kRows x 4 scores and kRows x kWidth / 16 numbers of the result.
template <typename T, int kRows, int kWidth, bool kAcross>
__global__ void __launch_bounds__(kBlock, (kWidth <= 128 ? 2 : 1) + (kRows == 1)) AttendKernel(Rules<T> rules, Division division) {
  constexpr int kM = kRows * kSide, kColumns = kWidth / 64;
  extern __shared__ __align__(16) unsigned char shared[];
  auto& memory = *reinterpret_cast<AttendMemory<kRows, kWidth>*>(shared);
  Begin();
  const Attention& a = rules.a;
  const int thread = static_cast<int>(threadIdx.x), tx = thread % kSide, ty = thread / kSide;
  const int batch = static_cast<int>(blockIdx.y) / a.kv_heads, kv_head = static_cast<int>(blockIdx.y) % a.kv_heads;
  const int row0 = static_cast<int>(blockIdx.x) * kM, group = division.group;
  const int width = (a.width + 3) / 4 * 4;

  int first, end, unused;
  rules.Range(batch, row0 / group, &first, &unused);
  rules.Range(batch, (Least(row0 + kM, division.rows) - 1) / group, &unused, &end);
  division.Cut(static_cast<int>(blockIdx.z), kKeys, &first, &end);

  int query[kRows], head[kRows], sees_first[kRows], sees_end[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int row = row0 + ty * kRows + i;
    query[i] = row / group;
    head[i] = kv_head * group + row % group;
    rules.Range(batch, query[i], &sees_first[i], &sees_end[i]);
    if (row >= division.rows) sees_end[i] = 0;
  }
  LoadRows<T, kM, kWidth>(memory.q, division.rows - row0, a.width, division.fours, [&](int i) {
    const int row = row0 + i;
    return static_cast<const T*>(a.q) + batch * a.q_at.batch + (kv_head * group + row % group) * a.q_at.head + row / group * a.q_at.token;
  });

  float largest[kRows], total[kRows] = {}, out[kRows][kColumns][4] = {};
#pragma unroll
  for (int i = 0; i < kRows; ++i) largest[i] = -INFINITY;

  for (int key0 = first; key0 < end; key0 += kKeys) {
    const int keys = Least(kKeys, end - key0);
    __syncthreads();  // values have been read
    const T* k = static_cast<const T*>(a.k) + batch * a.k_at.batch + kv_head * a.k_at.head + key0 * a.k_at.token;
    if constexpr (kAcross) {
      LoadAcross<T, kWidth>(memory.across, keys, a.width, k, a.k_step);
    } else {
      LoadRows<T, kKeys, kWidth>(memory.kv, keys, a.width, division.fours, [&](int j) { return k + j * a.k_at.token; });
    }
    __syncthreads();
    float score[kRows][4] = {};
#pragma unroll 4
    for (int d = 0; d < width; d += 4) {
      float4 x[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) x[i] = *reinterpret_cast<const float4*>(&memory.q[ty * kRows + i][d]);
      if constexpr (kAcross) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float4 y = *reinterpret_cast<const float4*>(&memory.across[d + e][4 * tx]);
#pragma unroll
          for (int i = 0; i < kRows; ++i) {
            const float w = Of(x[i], e);
            score[i][0] = fmaf(w, y.x, score[i][0]);
            score[i][1] = fmaf(w, y.y, score[i][1]);
            score[i][2] = fmaf(w, y.z, score[i][2]);
            score[i][3] = fmaf(w, y.w, score[i][3]);
          }
        }
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float4 y = *reinterpret_cast<const float4*>(&memory.kv[tx + kSide * j][d]);
#pragma unroll
          for (int i = 0; i < kRows; ++i) score[i][j] = Dot(x[i], y, score[i][j]);
        }
      }
    }
    __syncthreads();  // keys have been read
    LoadRows<T, kKeys, kWidth>(memory.kv, keys, a.value_width, division.fours, [&](int j) {
      return static_cast<const T*>(a.v) + batch * a.v_at.batch + kv_head * a.v_at.head + (key0 + j) * a.v_at.token;
    });
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      float most = largest[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int key = key0 + (kAcross ? 4 * tx + j : tx + kSide * j);
        score[i][j] = key >= sees_first[i] && key < sees_end[i] ? rules.Score(score[i][j], batch, head[i], query[i], key) : -INFINITY;
        most = Larger()(score[i][j], most);
      }
#pragma unroll
      for (int offset = kSide / 2; offset > 0; offset /= 2) most = Larger()(__shfl_xor_sync(0xffffffffu, most, offset), most);
      const float shrink = Weight(largest[i], most);
      largest[i] = most;
      total[i] *= shrink;
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int e = 0; e < 4; ++e) out[i][c][e] *= shrink;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float weight = Weight(score[i][j], most);
        total[i] += weight;
        memory.weights[ty * kRows + i][kAcross ? 4 * tx + j : tx + kSide * j] = weight;
      }
    }
    __syncthreads();
#pragma unroll 2
    for (int j = 0; j < keys; j += 4) {
      float4 weight[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) weight[i] = *reinterpret_cast<const float4*>(&memory.weights[ty * kRows + i][j]);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        if (c * 64 >= a.value_width) break;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float4 y = *reinterpret_cast<const float4*>(&memory.kv[j + e][c * 64 + tx * 4]);
#pragma unroll
          for (int i = 0; i < kRows; ++i) {
            const float w = Of(weight[i], e);
            out[i][c][0] = fmaf(w, y.x, out[i][c][0]);
            out[i][c][1] = fmaf(w, y.y, out[i][c][1]);
            out[i][c][2] = fmaf(w, y.z, out[i][c][2]);
            out[i][c][3] = fmaf(w, y.w, out[i][c][3]);
          }
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int offset = kSide / 2; offset > 0; offset /= 2) total[i] += __shfl_xor_sync(0xffffffffu, total[i], offset);
    const int row = row0 + ty * kRows + i;
    if (row >= division.rows) continue;
    const RowEnd<T> to(rules, division, row, head[i], query[i], batch, largest[i], total[i], tx == 0);
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int d = c * 64 + tx * 4 + e;
        if (d < a.value_width) to.Store(rules, d, out[i][c][e]);
      }
  }
}

}  // namespace cosetq::ep

#endif

#endif  // COSETQ_EP_ATTENTION_TILES_CUH_
