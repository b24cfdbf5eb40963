// What all kernels of attention share.

#ifndef COSETQ_EP_ATTENTION_RULES_CUH_
#define COSETQ_EP_ATTENTION_RULES_CUH_

#include "attention.h"
#include "launch.h"

namespace cosetq::ep {

COSETQ_HD inline int Least(int a, int b) { return a < b ? a : b; }
COSETQ_HD inline int Most(int a, int b) { return a > b ? a : b; }

// What a query sees of a key.
template <typename T>
struct Rules {
  Attention a;

  COSETQ_HD int Keys(int batch) const {
    const int64_t n = a.lengths.last != nullptr ? int64_t{a.lengths.last[batch]} + 1 : a.lengths.count != nullptr ? a.lengths.count[batch] : a.keys;
    return n < 0 ? 0 : n < a.keys ? static_cast<int>(n) : a.keys;
  }
  // The keys that query s may see are [first, end).
  COSETQ_HD void Range(int batch, int s, int* first, int* end) const {
    *first = 0;
    *end = Keys(batch);
    if (!a.causal) return;
    const int position = s + (a.past >= 0 ? a.past : *end - a.queries);  // below 0 where there are fewer keys than queries
    if (a.window > 0) *first = Most(0, position + 1 - a.window);
    *end = Most(0, Least(*end, position + 1));
  }
  COSETQ_HD float Masked(float score, int batch, int head, int s, int key) const {
    if (a.mask_kind == Attention::kNone) return score;
    if (key >= a.mask_keys) return -INFINITY;
    const int64_t at = batch * a.mask_at.batch + head * a.mask_at.head + s * a.mask_at.token + key * a.mask_step;
    switch (a.mask_kind) {
      case Attention::kAdd: return score + ToFloat(static_cast<const T*>(a.mask)[at]);
      case Attention::kKeep: return static_cast<const bool*>(a.mask)[at] ? score : -INFINITY;
      default: return static_cast<const int32_t*>(a.mask)[at] > 0 ? score : score + a.filter;
    }
  }
  COSETQ_HD float Score(float product, int batch, int head, int s, int key) const {
    float score = product * a.scale;
    if (a.cap != 0) score = a.cap * tanhf(score / a.cap);
    return Masked(score, batch, head, s, key);
  }
  // What a sum of values with these weights gives, by the sum of those.
  COSETQ_HD float Result(float sum, float total) const { return total > 0 ? sum / total : total == 0 || a.nan_is_zero ? a.empty : total; }
  COSETQ_HD float Sink(int head) const {
    return a.sink != nullptr ? ToFloat(static_cast<const T*>(a.sink)[head]) : a.zero_sink ? 0 : -INFINITY;
  }
};

// exp(x - largest), where nothing has been seen as long as the largest is -infinity.
COSETQ_HD inline float Weight(float x, float largest) { return x == -INFINITY ? 0 : expf(x - largest); }

constexpr int kPartEnd = 4;  // numbers behind the sums of a part

// How the work is divided: rows are the queries of all heads that share keys, the heads of a query next to each other.
struct Division {
  int group, rows, splits;
  int first;       // head of keys, of all batches, of a launch
  bool fours;      // everything lies at multiples of four numbers, but for keys across
  bool whole;      // and of 16 bytes
  bool whole_across;
  float* partial;  // [splits, batches * kv_heads, rows, stride]: sums, and at the end the largest score and the sum of exponentials; null for one split

  bool mask_pairs;        // two keys of a mask lie together, at a multiple of two
  const uint8_t* hidden;  // [batches of the mask, tiles of rows, tiles of keys]: see attention_hidden.cuh; null if nobody looked
  int key_tiles;

  // Sums begin at multiples of 16 bytes.
  COSETQ_HD static int stride(int value_width) { return (value_width + 3) / 4 * 4 + kPartEnd; }

  // The keys of a split, in numbers that are multiples of a quantum.
  COSETQ_HD void Cut(int split, int quantum, int* first, int* end) const {
    const int quanta = (*end - *first + quantum - 1) / quantum, own = (quanta + splits - 1) / splits * quantum;
    *first += split * own;
    *end = Least(*end, *first + own);
  }
};

#ifdef __CUDACC__

__device__ __forceinline__ float4 LoadFour(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ __forceinline__ float4 LoadFour(const Half* p) {
  const uint2 bits = *reinterpret_cast<const uint2*>(p);
  const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&bits.x)), high = __half22float2(*reinterpret_cast<const __half2*>(&bits.y));
  return make_float4(low.x, low.y, high.x, high.y);
}

// Where a block leaves what it has of a row: in the result, or with what other splits have. place: of the head of keys in a launch.
template <typename T>
struct RowEnd {
  float* part;
  T* y;

  __device__ __forceinline__ RowEnd(const Rules<T>& rules, const Division& division, int place, int row, int head, int query, int batch, float largest, float total, bool first)
      : part(nullptr), y(nullptr), shrink(1), all(1), factor(1) {
    const Attention& a = rules.a;
    if (division.partial != nullptr) {
      const int64_t line = (static_cast<int64_t>(blockIdx.z) * gridDim.y + place) * division.rows + row;
      const int stride = Division::stride(a.value_width);
      part = division.partial + line * stride;
      if (first) *reinterpret_cast<float2*>(part + stride - kPartEnd) = make_float2(largest, total);
      return;
    }
    const float sink = rules.Sink(head), most = Larger()(largest, sink);
    shrink = Weight(largest, most);
    all = total * shrink + Weight(sink, most);
    factor = shrink / all;
    y = static_cast<T*>(a.y) + batch * a.y_at.batch + head * a.y_at.head + query * a.y_at.token;
  }
  __device__ __forceinline__ void Store(const Rules<T>& rules, int d, float sum) const {
    if (part != nullptr) {
      part[d] = sum;
    } else {
      y[d] = FromFloat<T>(Result(rules, sum));
    }
  }
  __device__ __forceinline__ float Result(const Rules<T>& rules, float sum) const { return all > 0 ? sum * factor : rules.Result(sum, all); }
  // Of two numbers next to each other, at a multiple of two.
  __device__ __forceinline__ void Store(const Rules<T>& rules, int d, float first, float second) const {
    if (part != nullptr) {
      *reinterpret_cast<float2*>(part + d) = make_float2(first, second);
    } else if constexpr (sizeof(T) == 2) {
      *reinterpret_cast<__half2*>(y + d) = __floats2half2_rn(Result(rules, first), Result(rules, second));
    } else {
      *reinterpret_cast<float2*>(y + d) = make_float2(Result(rules, first), Result(rules, second));
    }
  }

 private:
  float shrink, all, factor;
};

#endif

}  // namespace cosetq::ep

#endif  // COSETQ_EP_ATTENTION_RULES_CUH_
