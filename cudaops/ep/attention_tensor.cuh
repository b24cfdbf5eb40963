// Attention of many queries at once, by tensor cores: 16 queries to a warp, 32 or 64 keys at a time.

#ifndef COSETQ_EP_ATTENTION_TENSOR_CUH_
#define COSETQ_EP_ATTENTION_TENSOR_CUH_

#include "attention_hidden.cuh"
#include "attention_rules.cuh"

#ifdef __CUDACC__

namespace cosetq::ep {

constexpr int kTensorWarps = 4, kTensorThreads = 32 * kTensorWarps, kTensorRows = 16 * kTensorWarps;

// Keys of a step: two steps' keys and values are in shared memory.
template <typename T, int kWidth>
constexpr int kTensorKeys = sizeof(T) * kWidth > 256 ? 32 : 64;

// So many bytes to shared memory while the thread goes on, and zeros up to 16.
__device__ __forceinline__ void CopyPiece(void* to, const void* from, int bytes) {
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void WaitForCopies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// kRows rows of kColumns numbers to shared memory, kStride apart, with zeros where rows and columns end. whole: rows begin at multiples of 16
// bytes, and have such a number of them.
template <typename T, int kRows, int kColumns, int kStride>
struct TileLoad {
  static constexpr int kPiece = 16 / sizeof(T), kPieces = kColumns / kPiece, kStep = kTensorThreads / kPieces;
  static_assert(kTensorThreads % kPieces == 0 && kRows % kStep == 0);
  const int row0 = static_cast<int>(threadIdx.x) / kPieces, column = static_cast<int>(threadIdx.x) % kPieces * kPiece;

  // Rows that lie so far apart.
  __device__ __forceinline__ void Run(T* to, const T* from, int64_t stride, int rows, int columns, bool whole) const {
    if (!whole || rows < kRows) return Run(to, rows, columns, whole, [&](int row) { return from + row * stride; });
    const T* at = from + row0 * stride + (column < columns ? column : 0);
    T* own = to + row0 * kStride + column;
#pragma unroll
    for (int i = 0; i < kRows; i += kStep, at += kStep * stride) CopyPiece(own + i * kStride, at, column < columns ? 16 : 0);
  }

  template <typename RowAt>
  __device__ __forceinline__ void Run(T* to, int rows, int columns, bool whole, RowAt row_at) const {
#pragma unroll 1
    for (int row = row0; row < kRows; row += kStep) {
      const T* from = row_at(Least(row, rows - 1));
      T* own = to + row * kStride + column;
      if (whole) {
        const bool there = row < rows && column < columns;
        CopyPiece(own, from + (there ? column : 0), there ? 16 : 0);
        continue;
      }
#pragma unroll
      for (int e = 0; e < kPiece; ++e) own[e] = row < rows && column + e < columns ? from[column + e] : FromFloat<T>(0);
    }
  }
};

template <int kCount>
__device__ __forceinline__ void LoadMatrices(unsigned (&x)[kCount], const Half* from) {
  static_assert(kCount == 4);
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(from));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at));
}
template <int kCount>
__device__ __forceinline__ void LoadTransposed(unsigned (&x)[kCount], const Half* from) {
  static_assert(kCount == 4);
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(from));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at));
}

__device__ __forceinline__ void MultiplyHalves(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A float as two numbers of ten bits behind the point, which tensor cores multiply: what both leave out is 2^-21 of it.
struct Split {
  unsigned high, low;
};
__device__ __forceinline__ Split SplitOf(float x) {
  const unsigned high = __float_as_uint(x) & 0xffffe000u;
  return {high, __float_as_uint(x - __uint_as_float(high))};
}

__device__ __forceinline__ void MultiplyTens(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void MultiplySplit(float (&c)[4], const Split (&a)[4], const Split& b0, const Split& b1) {
  MultiplyTens(c, a[0].low, a[1].low, a[2].low, a[3].low, b0.high, b1.high);
  MultiplyTens(c, a[0].high, a[1].high, a[2].high, a[3].high, b0.low, b1.low);
  MultiplyTens(c, a[0].high, a[1].high, a[2].high, a[3].high, b0.high, b1.high);
}

// Products of a warp: 16 rows by the keys of a step, and weights of those by values. Lane 4g + t has of a result rows g and g + 8, and columns 8n + 2t and
// 8n + 2t + 1. Strides are such that no two lanes meet in a bank.
template <typename T, int kWidth, bool kAcross>
struct Products;

template <int kWidth, bool kAcross>
struct Products<Half, kWidth, kAcross> {
  static constexpr int kKeys = kTensorKeys<Half, kWidth>;
  static constexpr int kQueryStride = kWidth + 8, kValueStride = kWidth + 8, kKeyStride = kAcross ? kKeys + 8 : kWidth + 8;
  // The queries of a warp, which stay in registers where there is room.
  static constexpr bool kHeld = kWidth <= 128;
  unsigned held[kHeld ? kWidth / 16 : 1][4];

  static __device__ __forceinline__ void LoadQueries(unsigned (&a)[4], const Half* q, int d) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    LoadMatrices(a, q + lane % 16 * kQueryStride + d + lane / 16 * 8);
  }
  __device__ __forceinline__ void Hold(const Half* q) {
    if constexpr (kHeld) {
#pragma unroll
      for (int d = 0; d < kWidth; d += 16) LoadQueries(held[d / 16], q, d);
    }
  }

  __device__ __forceinline__ void Scores(float (&score)[kKeys / 8][4], const Half* q, const Half* k) const {
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int d = 0; d < kWidth; d += 16) {
      unsigned a[4];
      if constexpr (kHeld) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = held[d / 16][i];
      } else {
        LoadQueries(a, q, d);
      }
#pragma unroll
      for (int n = 0; n < kKeys / 8; n += 2) {
        unsigned b[4];
        if constexpr (kAcross) {
          LoadTransposed(b, k + (d + lane % 16) * kKeyStride + n * 8 + lane / 16 * 8);
        } else {
          LoadMatrices(b, k + (n * 8 + lane % 8 + lane / 16 * 8) * kKeyStride + d + lane / 8 % 2 * 8);
        }
        MultiplyHalves(score[n], a, b[0], b[1]);
        MultiplyHalves(score[n + 1], a, b[2], b[3]);
      }
    }
  }

  static __device__ __forceinline__ unsigned Pack(float x, float y) {
    const __half2 both = __floats2half2_rn(x, y);
    return *reinterpret_cast<const unsigned*>(&both);
  }
  static __device__ __forceinline__ void Values(float (&out)[kWidth / 8][4], const float (&weight)[kKeys / 8][4], const Half* v) {
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int j = 0; j < kKeys / 8; j += 2) {
      const unsigned a[4] = {Pack(weight[j][0], weight[j][1]), Pack(weight[j][2], weight[j][3]), Pack(weight[j + 1][0], weight[j + 1][1]),
                             Pack(weight[j + 1][2], weight[j + 1][3])};
#pragma unroll
      for (int n = 0; n < kWidth / 8; n += 2) {
        unsigned b[4];
        LoadTransposed(b, v + (j * 8 + lane % 16) * kValueStride + n * 8 + lane / 16 * 8);
        MultiplyHalves(out[n], a, b[0], b[1]);
        MultiplyHalves(out[n + 1], a, b[2], b[3]);
      }
    }
  }
};

// Of floats, place t of eight is 2t, and place t + 4 is 2t + 1, so that weights lie as scores come.
template <int kWidth, bool kAcross>
struct Products<float, kWidth, kAcross> {
  static constexpr int kKeys = kTensorKeys<float, kWidth>;
  static constexpr int kQueryStride = kWidth + 8, kValueStride = kWidth + 4, kKeyStride = kAcross ? kKeys + 4 : kWidth + 8;

  __device__ __forceinline__ void Hold(const float*) {}

  static __device__ __forceinline__ void Scores(float (&score)[kKeys / 8][4], const float* q, const float* k) {
    const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4;
#pragma unroll 2
    for (int d = 0; d < kWidth; d += 8) {
      const float2 low = *reinterpret_cast<const float2*>(q + g * kQueryStride + d + 2 * t);
      const float2 high = *reinterpret_cast<const float2*>(q + (g + 8) * kQueryStride + d + 2 * t);
      const Split a[4] = {SplitOf(low.x), SplitOf(high.x), SplitOf(low.y), SplitOf(high.y)};
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        float2 b;
        if constexpr (kAcross) {
          b.x = k[(d + 2 * t) * kKeyStride + n * 8 + g];
          b.y = k[(d + 2 * t + 1) * kKeyStride + n * 8 + g];
        } else {
          b = *reinterpret_cast<const float2*>(k + (n * 8 + g) * kKeyStride + d + 2 * t);
        }
        MultiplySplit(score[n], a, SplitOf(b.x), SplitOf(b.y));
      }
    }
  }

  static __device__ __forceinline__ void Values(float (&out)[kWidth / 8][4], const float (&weight)[kKeys / 8][4], const float* v) {
    const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
      const Split a[4] = {SplitOf(weight[j][0]), SplitOf(weight[j][2]), SplitOf(weight[j][1]), SplitOf(weight[j][3])};
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
        const float* b = v + (j * 8 + 2 * t) * kValueStride + n * 8 + g;
        MultiplySplit(out[n], a, SplitOf(b[0]), SplitOf(b[kValueStride]));
      }
    }
  }
};

template <typename T, int kWidth, bool kAcross>
struct TensorMemory {
  using P = Products<T, kWidth, kAcross>;
  __align__(16) T q[kTensorRows * P::kQueryStride];
  __align__(16) T k[2][(kAcross ? kWidth : P::kKeys) * P::kKeyStride];
  __align__(16) T v[2][P::kKeys * P::kValueStride];
};

// Makes scores of what a lane has of the products of a row: keys from key0 on, two of each eight. All that is read for them is asked for at once. clear: the
// mask adds nothing to any of them.
template <bool kPlain, int kKeys, typename T>
__device__ __forceinline__ void Finish(const Rules<T>& rules, float (&score)[kKeys / 8][4], int i, int batch, int head, int query, int key0,
                                       int sees_first, int sees_end, bool clear) {
  constexpr int kTiles = kKeys / 8;
  const Attention& a = rules.a;
  if (kPlain || (clear && a.cap == 0)) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) score[n][2 * i + e] *= a.scale;
    }
  } else if (a.mask_kind == Attention::kAdd && a.cap == 0) {
    const T* mask = static_cast<const T*>(a.mask) + batch * a.mask_at.batch + head * a.mask_at.head + query * a.mask_at.token;
    const int end = Least(sees_end, a.mask_keys);
    float own[kTiles][2];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) own[n][e] = key0 + 8 * n + e < end ? ToFloat(mask[(key0 + 8 * n + e) * a.mask_step]) : -INFINITY;
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) score[n][2 * i + e] = fmaf(score[n][2 * i + e], a.scale, own[n][e]);
    }
  } else {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int key = key0 + 8 * n + e;
        if (key < sees_end) score[n][2 * i + e] = rules.Score(score[n][2 * i + e], batch, head, query, key);
      }
    }
  }
  if (key0 >= sees_first && key0 + kKeys <= sees_end) return;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int key = key0 + 8 * n + e;
      if (key < sees_first || key >= sees_end) score[n][2 * i + e] = -INFINITY;
    }
  }
}

// 2 to that.
__device__ __forceinline__ float PowerOfTwo(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// A block takes 64 rows. The next keys and values come while it multiplies by these.
// kPlain: neither a mask nor a cap, and none of the code for these, around which the loop is slow.
template <typename T, int kWidth, bool kAcross, bool kPlain>
__global__ void __launch_bounds__(kTensorThreads) AttendTensorKernel(Rules<T> rules, Division division) {
  using P = Products<T, kWidth, kAcross>;
  constexpr int kKeys = P::kKeys, kTiles = kKeys / 8;
  constexpr float kLog2E = 1.4426950408889634f;
  extern __shared__ __align__(16) unsigned char shared[];
  auto& memory = *reinterpret_cast<TensorMemory<T, kWidth, kAcross>*>(shared);
  Begin();
  const Attention& a = rules.a;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), t = lane % 4, group = division.group;
  // Where the last rows see most keys, those of all heads come first.
  const bool uneven = a.causal || (!kPlain && division.hidden != nullptr);
  const auto block = static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x), heads = static_cast<int>(gridDim.y);
  const int tile = uneven ? static_cast<int>(gridDim.x) - 1 - block / heads : static_cast<int>(blockIdx.x);
  const int place = uneven ? block % heads : static_cast<int>(blockIdx.y), both = division.first + place, batch = both / a.kv_heads, kv_head = both % a.kv_heads;
  const int row0 = tile * kTensorRows, rows = Least(kTensorRows, division.rows - row0);
  int first, end, unused;
  rules.Range(batch, row0 / group, &first, &unused);
  rules.Range(batch, (row0 + rows - 1) / group, &unused, &end);
  division.Cut(static_cast<int>(blockIdx.z), kKeys, &first, &end);

  const T* keys = static_cast<const T*>(a.k) + batch * a.k_at.batch + kv_head * a.k_at.head;
  const T* values = static_cast<const T*>(a.v) + batch * a.v_at.batch + kv_head * a.v_at.head;
  const TileLoad<T, kAcross ? kWidth : kKeys, kAcross ? kKeys : kWidth, P::kKeyStride> key_load;
  const TileLoad<T, kKeys, kWidth, P::kValueStride> value_load;
  const auto load = [&](int key0, int to) {
    const T* from = keys + key0 * a.k_at.token;
    if constexpr (kAcross) {
      key_load.Run(memory.k[to], from, a.k_step, a.width, Least(kKeys, a.keys - key0), division.whole_across);
    } else {
      key_load.Run(memory.k[to], from, a.k_at.token, Least(kKeys, end - key0), a.width, division.whole);
    }
    value_load.Run(memory.v[to], values + key0 * a.v_at.token, a.v_at.token, Least(kKeys, end - key0), a.value_width, division.whole);
  };
  TileLoad<T, kTensorRows, kWidth, P::kQueryStride>().Run(memory.q, rows, a.width, division.whole, [&](int i) {
    const int row = row0 + i;
    return static_cast<const T*>(a.q) + batch * a.q_at.batch + (kv_head * group + row % group) * a.q_at.head + row / group * a.q_at.token;
  });
  // What a mask hides is neither loaded nor multiplied.
  const uint8_t* states = nullptr;
  bool anchored = false;
  if (!kPlain && division.hidden != nullptr) {
    states = division.hidden + (static_cast<int64_t>(a.mask_at.batch != 0 ? batch : 0) * gridDim.x + tile) * division.key_tiles;
    for (int i = first / kKeys + lane; i * kKeys < end; i += 32) anchored = anchored || (states[i] & kAnchor) != 0;
    anchored = __any_sync(0xffffffffu, anchored);
  }
  const auto seen_from = [&](int key0) {
    while (states != nullptr && key0 < end && Hides(states[key0 / kKeys], anchored)) key0 += kKeys;
    return key0;
  };
  int key0 = seen_from(first);
  if (key0 < end) load(key0, 0);

  int query[2], head[2], sees_first[2], sees_end[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = row0 + warp * 16 + lane / 4 + 8 * i;
    query[i] = row / group;
    head[i] = kv_head * group + row % group;
    rules.Range(batch, query[i], &sees_first[i], &sees_end[i]);
    if (row >= division.rows) sees_end[i] = 0;
  }
  const T* own = memory.q + warp * 16 * P::kQueryStride;
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {}, out[kWidth / 8][4] = {};
  P products;
  WaitForCopies();
  __syncthreads();
  products.Hold(own);
  int at = 0;
  for (int next; key0 < end; key0 = next, at ^= 1) {
    next = seen_from(key0 + kKeys);
    WaitForCopies();
    __syncthreads();  // these are there, and those before have been read
    if (next < end) load(next, at ^ 1);
    float score[kTiles][4] = {};
    products.Scores(score, own, memory.k[at]);
    const bool clear = states != nullptr && (states[key0 / kKeys] & 3) == kClear;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      Finish<kPlain, kKeys>(rules, score, i, batch, head[i], query[i], key0 + 2 * t, sees_first[i], sees_end[i], clear);
      float most = largest[i];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) most = fmaxf(most, fmaxf(score[n][2 * i], score[n][2 * i + 1]));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float base = most == -INFINITY ? 0 : most;  // nothing has been seen, and all weights are 0
      // Of numbers near the least there is, which masks have, the product with kLog2E would be -infinity.
      const float scaled = base * kLog2E;
      const auto weight = [&](float x) { return PowerOfTwo(kPlain ? fmaf(x, kLog2E, -scaled) : (x - base) * kLog2E); };
      const float shrink = weight(largest[i]);
      largest[i] = most;
      total[i] *= shrink;
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
        out[n][2 * i] *= shrink;
        out[n][2 * i + 1] *= shrink;
      }
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) total[i] += score[n][2 * i + e] = weight(score[n][2 * i + e]);
      }
    }
    P::Values(out, score, memory.v[at]);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    total[i] += __shfl_xor_sync(0xffffffffu, total[i], 1);
    total[i] += __shfl_xor_sync(0xffffffffu, total[i], 2);
    const int row = row0 + warp * 16 + lane / 4 + 8 * i;
    if (row >= division.rows) continue;
    const RowEnd<T> to(rules, division, place, row, head[i], query[i], batch, largest[i], total[i], t == 0);
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
      const int d = n * 8 + 2 * t;
      if (division.whole) {
        if (d < a.value_width) to.Store(rules, d, out[n][2 * i], out[n][2 * i + 1]);
        continue;
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        if (d + e < a.value_width) to.Store(rules, d + e, out[n][2 * i + e]);
      }
    }
  }
}

}  // namespace cosetq::ep

#endif

#endif  // COSETQ_EP_ATTENTION_TENSOR_CUH_
