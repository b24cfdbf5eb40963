// Attention of few queries, as when one token follows another: all that takes time is to read keys and values.

#ifndef COSETQ_EP_ATTENTION_FEW_CUH_
#define COSETQ_EP_ATTENTION_FEW_CUH_

#include "attention_rules.cuh"

#ifdef __CUDACC__

namespace cosetq::ep {

// kCount numbers that lie together as they are loaded, in float where they are used: so nothing waits for them before. Those at an end and
// behind it are zero; all begin at multiples of four, or of two where there are two of them.
template <typename T, int kCount>
class LoadedRun {
  static constexpr int kNumbers = 4 / sizeof(T), kWords = kCount / kNumbers, kUnit = kWords < 4 / kNumbers ? kWords : 4 / kNumbers;
  struct alignas(kUnit * 4) Unit {
    uint32_t words[kUnit];
  };

 public:
  __device__ __forceinline__ void Load(const T* from, int left) {
#pragma unroll
    for (int i = 0; i < kWords / kUnit; ++i) units_[i] = i * kUnit * kNumbers < left ? reinterpret_cast<const Unit*>(from)[i] : Unit{};
  }
  __device__ __forceinline__ float operator[](int i) const {
    const uint32_t word = units_[i / kNumbers / kUnit].words[i / kNumbers % kUnit];
    if constexpr (sizeof(T) == 4) return __uint_as_float(word);
    const __half2 two = *reinterpret_cast<const __half2*>(&word);
    return i % 2 == 0 ? __low2float(two) : __high2float(two);
  }

 private:
  Unit units_[kWords / kUnit];
};

constexpr int kFewThreads = 256;

// A block takes up to kRows rows. Half a warp multiplies them by a key; when a chunk of keys has its scores, a warp makes weights of those of a row;
// then each warp adds up the values of an eighth of the keys, a lane some columns of them.
template <typename T, int kRows, int kWidth>
__global__ void __launch_bounds__(kFewThreads) AttendFewKernel(Rules<T> rules, Division division) {
  constexpr int kWarps = kFewThreads / 32, kHalf = 16, kOwn = kWidth / kHalf, kColumns = kWidth / 32, kChunk = 256, kAtOnce = kOwn > 8 ? 2 : 4;
  static_assert(kRows <= kWarps);
  __shared__ float scores[kRows][kChunk], shrinks[kRows], largests[kRows], totals[kRows], sums[kWarps][kRows][kWidth];
  Begin();
  const Attention& a = rules.a;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), own = lane % kHalf;
  const int both = division.first + static_cast<int>(blockIdx.y), batch = both / a.kv_heads, kv_head = both % a.kv_heads, group = division.group;
  const int row0 = static_cast<int>(blockIdx.x) * kRows, rows = Least(kRows, division.rows - row0);
  int first, end, unused;
  rules.Range(batch, row0 / group, &first, &unused);
  rules.Range(batch, (row0 + rows - 1) / group, &unused, &end);
  division.Cut(static_cast<int>(blockIdx.z), kHalf, &first, &end);

  LoadedRun<T, kOwn> loaded_q[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int row = row0 + i;
    const T* from = static_cast<const T*>(a.q) + batch * a.q_at.batch + (kv_head * group + row % group) * a.q_at.head + row / group * a.q_at.token;
    loaded_q[i].Load(from + own * kOwn, i < rows ? a.width - own * kOwn : 0);
  }
  // The row whose scores a lane finishes.
  const int query = (row0 + own) / group, head = kv_head * group + (row0 + own) % group;
  int sees_first = 0, sees_end = 0;
  if (own < rows) rules.Range(batch, query, &sees_first, &sees_end);

  const T* keys = static_cast<const T*>(a.k) + batch * a.k_at.batch + kv_head * a.k_at.head + own * kOwn;
  const T* values = static_cast<const T*>(a.v) + batch * a.v_at.batch + kv_head * a.v_at.head + lane * kColumns;
  const int key_left = a.width - own * kOwn, value_left = a.value_width - lane * kColumns;
  float largest = -INFINITY, total = 0, out[kRows][kColumns] = {};
  // Of a chunk. The first keys and values of each are on their way before anything waits for either.
  int key0 = first, count = Least(kChunk, end - first);
  LoadedRun<T, kOwn> k[kAtOnce];
  LoadedRun<T, kColumns> v[kAtOnce];
  // Which keys a warp has does not say how long it goes on: sums over lanes are for whole warps.
  const auto key_of = [&](int base, int u) { return base + 2 * kWarps * u + 2 * warp + lane / kHalf; };
  const auto load_keys = [&](int base) {
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int j = key_of(base, u);
      k[u].Load(keys + (key0 + j) * a.k_at.token, j < count ? key_left : 0);
    }
  };
  const auto load_values = [&](int base) {
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int j = base + kWarps * u;
      v[u].Load(values + (key0 + j) * a.v_at.token, j < count ? value_left : 0);
    }
  };
  load_keys(0);
  load_values(warp);
  float q[kRows][kOwn];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int e = 0; e < kOwn; ++e) q[i][e] = loaded_q[i][e];
  }
  while (count > 0) {
    for (int base = 0; base < count; base += 2 * kWarps * kAtOnce) {
      if (base > 0) load_keys(base);
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        if (base + 2 * kWarps * u >= count) break;
        const int j = key_of(base, u);
        float mine = 0;
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          float product = 0;
#pragma unroll
          for (int e = 0; e < kOwn; ++e) product = fmaf(q[i][e], k[u][e], product);
#pragma unroll
          for (int offset = kHalf / 2; offset > 0; offset /= 2) product += __shfl_xor_sync(0xffffffffu, product, offset);
          if (own == i) mine = product;
        }
        if (own >= kRows || j >= count) continue;
        const int key = key0 + j;
        scores[own][j] = key >= sees_first && key < sees_end ? rules.Score(mine, batch, head, query, key) : -INFINITY;
      }
    }
    __syncthreads();
    if (warp < kRows) {
      float held[kChunk / 32], most = largest;
#pragma unroll
      for (int i = 0; i < kChunk / 32; ++i) {
        held[i] = lane + 32 * i < count ? scores[warp][lane + 32 * i] : -INFINITY;
        most = Larger()(held[i], most);
      }
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) most = Larger()(__shfl_xor_sync(0xffffffffu, most, offset), most);
      const float shrink = Weight(largest, most);
      total *= shrink;
      largest = most;
#pragma unroll
      for (int i = 0; i < kChunk / 32; ++i) {
        const float weight = Weight(held[i], most);
        total += weight;
        scores[warp][lane + 32 * i] = weight;
      }
      if (lane == 0) shrinks[warp] = shrink;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) out[i][c] *= shrinks[i];
    }
    for (int base = warp; base < count; base += kWarps * kAtOnce) {
      if (base != warp) load_values(base);
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const int j = base + kWarps * u;
        if (j >= count) break;
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          const float weight = scores[i][j];
#pragma unroll
          for (int c = 0; c < kColumns; ++c) out[i][c] = fmaf(weight, v[u][c], out[i][c]);
        }
      }
    }
    key0 += kChunk;
    count = Least(kChunk, end - key0);
    if (count > 0) {
      load_keys(0);
      load_values(warp);
    }
    __syncthreads();  // scores have been read
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) total += __shfl_xor_sync(0xffffffffu, total, offset);
  if (warp < kRows && lane == 0) {
    largests[warp] = largest;
    totals[warp] = total;
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) sums[warp][i][lane * kColumns + c] = out[i][c];
  }
  __syncthreads();
  if (warp >= rows) return;
  const int row = row0 + warp;
  const RowEnd<T> to(rules, division, static_cast<int>(blockIdx.y), row, kv_head * group + row % group, row / group, batch, largests[warp], totals[warp], lane == 0);
  for (int d = lane; d < a.value_width; d += 32) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += sums[w][warp][d];
    to.Store(rules, d, sum);
  }
}

}  // namespace cosetq::ep

#endif

#endif  // COSETQ_EP_ATTENTION_FEW_CUH_
