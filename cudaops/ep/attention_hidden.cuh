// What masks do to tiles of queries and keys: those that they hide need not be looked at, as half of them are where a model has written its causal mask
// out, and where they do nothing, as to most others of such a mask, they need not be read again for every head.

#ifndef COSETQ_EP_ATTENTION_HIDDEN_CUH_
#define COSETQ_EP_ATTENTION_HIDDEN_CUH_

#include "attention_rules.cuh"

#ifdef __CUDACC__

namespace cosetq::ep {

constexpr int kHiddenThreads = 512, kMaxKeyTiles = 1024;

// What a mask does to a tile: something, nothing, add -infinity, or add so much less than nothing that weights of its keys are zero next to those of keys
// without. kAnchor: each query has such a key in this tile.
constexpr int kMasked = 0, kClear = 1, kHidden = 2, kLow = 3, kAnchor = 4;

// Whether a tile need not be looked at. anchored: there is an anchor among all tiles of these queries.
__device__ __forceinline__ bool Hides(int state, bool anchored) { return (state & 3) == kHidden || ((state & 3) == kLow && anchored); }

// What a number of a mask adds.
template <typename T>
__device__ __forceinline__ float Added(T x) { return ToFloat(x); }
template <>
__device__ __forceinline__ float Added(bool keep) { return keep ? 0 : -INFINITY; }

// A block looks at a tile, which is one of all heads; there are as many of keys as the grid is high. The least number of float16 is -65504, next to which
// products that the type holds are small. kKeys: of a tile.
template <typename T, typename Mask, int kKeys>
__global__ void __launch_bounds__(kHiddenThreads) FindHidden(const __grid_constant__ Rules<T> rules, int group, int rows, int tile_rows, uint8_t* states) {
  constexpr int kWarps = kHiddenThreads / 32, kAtOnce = 4;  // rows of a warp that are on their way together
  constexpr float kNothing = sizeof(T) == 2 ? -6e4f : -1e30f, kSomething = sizeof(T) == 2 ? -1e4f : -1e29f;
  Begin();
  const Attention& a = rules.a;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), batch = static_cast<int>(blockIdx.z);
  const int row0 = static_cast<int>(blockIdx.x) * tile_rows, first = row0 / group, last = (Least(row0 + tile_rows, rows) - 1) / group;
  const int key0 = static_cast<int>(blockIdx.y) * kKeys, keys = Least(a.keys, a.mask_keys);
  const Mask* const mask = static_cast<const Mask*>(a.mask) + batch * a.mask_at.batch;
  bool infinite = true, low = true, clear = true, anchor = true;
  for (int query0 = first + warp; query0 <= last; query0 += kWarps * kAtOnce) {
    bool something[kAtOnce] = {};
    float x[kAtOnce][kKeys / 32];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int k = 0; k < kKeys / 32; ++k) {
        const int query = query0 + kWarps * i, key = key0 + 32 * k + lane;
        x[i][k] = query <= last && key < keys ? Added(mask[query * a.mask_at.token + key * a.mask_step]) : -INFINITY;
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int k = 0; k < kKeys / 32; ++k) {
        infinite = infinite && x[i][k] == -INFINITY;
        low = low && x[i][k] <= kNothing;
        clear = clear && (x[i][k] == 0 || query0 + kWarps * i > last);
        something[i] = something[i] || !(x[i][k] <= kSomething);
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) anchor = anchor && (__any_sync(0xffffffffu, something[i]) || query0 + kWarps * i > last);
  }
  infinite = __syncthreads_and(infinite);
  low = __syncthreads_and(low);
  clear = __syncthreads_and(clear);
  anchor = __syncthreads_and(anchor);
  // A key that seems an anchor may be hidden by something else.
  if (a.causal || a.lengths.last != nullptr || a.lengths.count != nullptr) low = false;
  if (threadIdx.x != 0) return;
  states[(static_cast<int64_t>(batch) * gridDim.x + blockIdx.x) * gridDim.y + blockIdx.y] =
      static_cast<uint8_t>((infinite ? kHidden : low ? kLow : clear ? kClear : kMasked) + (anchor ? kAnchor : 0));
}

}  // namespace cosetq::ep

#endif

#endif  // COSETQ_EP_ATTENTION_HIDDEN_CUH_
