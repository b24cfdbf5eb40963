// What masks hide: tiles of queries and keys that need not be looked at, as half of them are where a model has written its causal mask out.

#ifndef COSETQ_EP_ATTENTION_HIDDEN_CUH_
#define COSETQ_EP_ATTENTION_HIDDEN_CUH_

#include "attention_rules.cuh"

#ifdef __CUDACC__

namespace cosetq::ep {

constexpr int kHiddenThreads = 1024, kMaxKeyTiles = 1024;

// Floats in the order of integers; NaN is the largest.
__device__ __forceinline__ int Ordered(float x) {
  const int bits = __float_as_int(x);
  return x != x ? INT32_MAX : bits < 0 ? bits ^ INT32_MAX : bits;
}

// A block looks at a tile of rows, for all heads. Nothing is left of keys that the mask adds -infinity to, or so much that their weights are zero, unless all
// that a query sees is like that.
template <typename T>
__global__ void __launch_bounds__(kHiddenThreads) FindHidden(const __grid_constant__ Rules<T> rules, int group, int rows, int tile_rows, int tile_keys,
                                                              int key_tiles, uint8_t* hidden) {
  constexpr int kWarps = kHiddenThreads / 32, kOwn = 2, kAtOnce = 4;  // queries of a warp; tiles whose numbers are on their way together
  constexpr float kNothing = -1e30f, kSomething = -1e29f;
  __shared__ int tops[kMaxKeyTiles], faint;
  Begin();
  for (int i = static_cast<int>(threadIdx.x); i < key_tiles; i += kHiddenThreads) tops[i] = Ordered(-INFINITY);
  if (threadIdx.x == 0) faint = 0;
  __syncthreads();
  const Attention& a = rules.a;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), batch = static_cast<int>(blockIdx.y);
  const int row0 = static_cast<int>(blockIdx.x) * tile_rows, last = (Least(row0 + tile_rows, rows) - 1) / group, keys = Least(a.keys, a.mask_keys);
  const auto value = [&](int query, int key) {
    const int64_t at = batch * a.mask_at.batch + query * a.mask_at.token + key * a.mask_step;
    if (a.mask_kind == Attention::kKeep) return static_cast<const bool*>(a.mask)[at] ? 0.0f : -INFINITY;
    return ToFloat(static_cast<const T*>(a.mask)[at]);
  };
  for (int query0 = row0 / group; query0 <= last; query0 += kWarps * kOwn) {
    float most[kOwn];
#pragma unroll
    for (float& x : most) x = -INFINITY;
    for (int tile0 = 0; tile0 < key_tiles; tile0 += kAtOnce) {
      float top[kAtOnce];
#pragma unroll
      for (float& x : top) x = -INFINITY;
#pragma unroll 2
      for (int k = lane; k < tile_keys; k += 32) {
        float x[kAtOnce][kOwn];
#pragma unroll
        for (int u = 0; u < kAtOnce; ++u) {
#pragma unroll
          for (int i = 0; i < kOwn; ++i) {
            const int query = query0 + warp + kWarps * i, key = (tile0 + u) * tile_keys + k;
            x[u][i] = query <= last && key < keys ? value(query, key) : -INFINITY;
          }
        }
#pragma unroll
        for (int u = 0; u < kAtOnce; ++u) {
#pragma unroll
          for (int i = 0; i < kOwn; ++i) {
            most[i] = Larger()(x[u][i], most[i]);
            top[u] = Larger()(x[u][i], top[u]);
          }
        }
      }
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const int largest = __reduce_max_sync(0xffffffffu, Ordered(top[u]));
        if (lane == 0 && tile0 + u < key_tiles) atomicMax(&tops[tile0 + u], largest);
      }
    }
#pragma unroll
    for (const float x : most) {
      const int largest = __reduce_max_sync(0xffffffffu, Ordered(x));
      if (lane == 0 && largest > Ordered(-INFINITY) && largest <= Ordered(kSomething)) faint = 1;
    }
  }
  __syncthreads();
  uint8_t* const to = hidden + (static_cast<int64_t>(batch) * gridDim.x + blockIdx.x) * key_tiles;
  for (int i = static_cast<int>(threadIdx.x); i < key_tiles; i += kHiddenThreads)
    to[i] = tops[i] == Ordered(-INFINITY) || (faint == 0 && tops[i] <= Ordered(kNothing)) ? 1 : 0;
}

}  // namespace cosetq::ep

#endif

#endif  // COSETQ_EP_ATTENTION_HIDDEN_CUH_
