// softmax(q k^T) v in one pass over keys and values (Dao et al., FlashAttention): of each query the largest score so far, the sum of
// exponentials and the sum of values are kept, and scaled when a larger score comes.

#include <algorithm>
#include <atomic>

#include "attention.h"
#include "attention_few.cuh"
#include "attention_hidden.cuh"
#include "attention_rules.cuh"
#include "attention_tensor.cuh"
#include "launch.h"

#ifdef __CUDACC__
#include "attention_groups.h"
#include "row_map.h"
#endif

namespace cosetq::ep {
namespace {

std::atomic<int64_t> by_rows, by_few, by_tiles, by_groups;

// A block makes one row of the result from all of its scores, which wait in memory: on the host, and for heads that are too wide for the
// kernel below.
template <typename T>
struct AttendRow {
  Rules<T> rules;
  float* scores;  // [batches * heads * queries, keys]

  COSETQ_HD void operator()(const Block& block, int row) const {
    const Attention& a = rules.a;
    const int s = row % a.queries, h = row / a.queries % a.heads, b = row / a.queries / a.heads, kv = h / (a.heads / a.kv_heads);
    const T* q = static_cast<const T*>(a.q) + b * a.q_at.batch + h * a.q_at.head + s * a.q_at.token;
    const T* k = static_cast<const T*>(a.k) + b * a.k_at.batch + kv * a.k_at.head;
    const T* v = static_cast<const T*>(a.v) + b * a.v_at.batch + kv * a.v_at.head;
    T* y = static_cast<T*>(a.y) + b * a.y_at.batch + h * a.y_at.head + s * a.y_at.token;
    float* own = scores + static_cast<int64_t>(row) * a.keys;
    int first, end;
    rules.Range(b, s, &first, &end);
    float largest = rules.Sink(h), total = 0;
    for (int j = first + block.thread(); j < end; j += block.threads()) {
      float product = 0;
      for (int d = 0; d < a.width; ++d) product += ToFloat(q[d]) * ToFloat(k[j * a.k_at.token + d * a.k_step]);
      own[j] = rules.Score(product, b, h, s, j);
      largest = Larger()(own[j], largest);
    }
    largest = block.Reduce(largest, -INFINITY, Larger());
    for (int j = first + block.thread(); j < end; j += block.threads()) total += own[j] = Weight(own[j], largest);
    total = block.Reduce(total, 0, Plus()) + Weight(rules.Sink(h), largest);
    block.Meet();
    for (int d = block.thread(); d < a.value_width; d += block.threads()) {
      float sum = 0;
      for (int j = first; j < end; ++j) sum += own[j] * ToFloat(v[j * a.v_at.token + d]);
      y[d] = FromFloat<T>(rules.Result(sum, total));
    }
  }
};

template <typename T>
void AttendByRows(Call& call, const Attention& a) {
  ++by_rows;
  const int64_t rows = int64_t{a.batches} * a.heads * a.queries;
  const Tensor scores = call.Scratch(Type::kFloat, {rows, a.keys});
  ForEachBlock(call.stream, rows, a.keys, AttendRow<T>{Rules<T>{a}, scores.data<float>()});
}

#ifdef __CUDACC__

constexpr int kCombineThreads = 256, kMaxWidth = 256, kMaxSplits = 128, kMaxGrid = 65535;

// Adds up what the splits have of a row, a block each: a warp those of every eighth split, a lane four columns or twice that. Sums are on their way
// while weights are made.
template <typename T>
__global__ void __launch_bounds__(kCombineThreads) CombineSplits(const __grid_constant__ Rules<T> rules, const __grid_constant__ Division division) {
  constexpr int kWarps = kCombineThreads / 32, kFours = kMaxWidth / 128, kAtOnce = 5;
  __shared__ __align__(16) float sums[kWarps][kMaxWidth];
  Begin();
  const Attention& a = rules.a;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), line = static_cast<int>(blockIdx.x);
  const int row = line % division.rows, both = line / division.rows, batch = both / a.kv_heads, kv_head = both % a.kv_heads;
  const int head = kv_head * division.group + row % division.group, query = row / division.group, splits = division.splits;
  const int stride = division.stride(a.value_width);
  const int64_t step = static_cast<int64_t>(gridDim.x) * stride;
  const float* const part = division.partial + static_cast<int64_t>(line) * stride;
  const auto end_of = [&](int split) { return *reinterpret_cast<const float2*>(part + split * step + stride - kPartEnd); };  // largest, total
  float4 x[kAtOnce][kFours];
  float2 end[kAtOnce];
  const auto load = [&](int first) {
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int split = first + u * kWarps;
      end[u] = split < splits ? end_of(split) : make_float2(-INFINITY, 0);
#pragma unroll
      for (int c = 0; c < kFours; ++c) {
        const int d = (c * 32 + lane) * 4;
        x[u][c] = split < splits && d < a.value_width ? *reinterpret_cast<const float4*>(part + split * step + d) : make_float4(0, 0, 0, 0);
      }
    }
  };
  load(warp);
  const float sink = rules.Sink(head);
  float most = sink, all = 0;
  float2 own[kMaxSplits / 32];
#pragma unroll
  for (int i = 0; i < kMaxSplits / 32; ++i) own[i] = lane + 32 * i < splits ? end_of(lane + 32 * i) : make_float2(-INFINITY, 0);
#pragma unroll
  for (const float2& end_of_own : own) most = Larger()(end_of_own.x, most);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) most = Larger()(__shfl_xor_sync(0xffffffffu, most, offset), most);
#pragma unroll
  for (const float2& end_of_own : own) all += end_of_own.y * Weight(end_of_own.x, most);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) all += __shfl_xor_sync(0xffffffffu, all, offset);
  all += Weight(sink, most);
  float4 sum[kFours] = {};
  for (int first = warp; first < splits; first += kWarps * kAtOnce) {
    if (first != warp) load(first);
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      if (first + u * kWarps >= splits) break;
      const float weight = Weight(end[u].x, most);
#pragma unroll
      for (int c = 0; c < kFours; ++c) {
        sum[c].x = fmaf(weight, x[u][c].x, sum[c].x);
        sum[c].y = fmaf(weight, x[u][c].y, sum[c].y);
        sum[c].z = fmaf(weight, x[u][c].z, sum[c].z);
        sum[c].w = fmaf(weight, x[u][c].w, sum[c].w);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < kFours; ++c) *reinterpret_cast<float4*>(&sums[warp][(c * 32 + lane) * 4]) = sum[c];
  __syncthreads();
  const auto d = static_cast<int>(threadIdx.x);
  if (d >= a.value_width) return;
  float whole = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) whole += sums[w][d];
  T* const y = static_cast<T*>(a.y) + batch * a.y_at.batch + head * a.y_at.head + query * a.y_at.token;
  y[d] = FromFloat<T>(rules.Result(whole, all));
}

// Launches a kernel for rows of so many at a time, with what a block needs of shared memory beyond its own, and adds up its splits. blocks: how many a
// processor should have.
template <typename T, typename... Maps>
void LaunchAttend(Call& call, const Rules<T>& rules, Division division, void (*kernel)(Rules<T>, Division, Maps...), int rows, unsigned threads, int blocks,
                  int least_keys, size_t shared, const Maps&... maps) {
  const Attention& a = rules.a;
  const int tiles = (division.rows - 1) / rows + 1, heads = a.batches * a.kv_heads;
  // Enough blocks for all processors, unless there are few keys for each.
  const auto wanted = static_cast<int>(blocks * cuda::CurrentDevice().processors / std::max<int64_t>(1, int64_t{tiles} * heads));
  division.splits = Most(1, Least(Least(wanted, kMaxSplits), a.keys / least_keys));
  Tensor partial;
  if (division.splits > 1) {
    partial = call.Scratch(Type::kFloat, {division.splits, heads, division.rows, division.stride(a.value_width)});
    division.partial = partial.data<float>();
  }
  // In pieces where there are more heads than a grid takes, which have one split each.
  for (division.first = 0; division.first < heads; division.first += kMaxGrid) {
    const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(Least(kMaxGrid, heads - division.first)), static_cast<unsigned>(division.splits));
    Launch(call.stream, kernel, grid, threads, shared, rules, division, maps...);
  }
  if (division.splits > 1) Launch(call.stream, CombineSplits<T>, CheckedCount(int64_t{heads} * division.rows), kCombineThreads, 0, rules, division);
}

// Finds what masks do to tiles of so many rows and keys, where that may pay: a mask for each head takes too long to look at, and a few blocks, of which
// processors have no more than so many each, take as long as the one that sees all keys.
template <int kKeys, typename T>
Tensor FindTiles(Call& call, const Rules<T>& rules, int tile_rows, int blocks, Division* division) {
  const Attention& a = rules.a;
  const int tiles = (division->rows - 1) / tile_rows + 1, key_tiles = (a.keys - 1) / kKeys + 1;
  const bool pays = int64_t{tiles} * a.batches * a.kv_heads >= blocks * cuda::CurrentDevice().processors && key_tiles > 1;
  if (!pays || (a.mask_kind != Attention::kAdd && a.mask_kind != Attention::kKeep) || a.mask_at.head != 0 || a.window != 0 || key_tiles > kMaxKeyTiles) return {};
  const int batches = a.mask_at.batch != 0 ? a.batches : 1;
  if (batches > kMaxGrid) return {};
  Tensor hidden = call.Scratch(Type::kUint8, {batches, tiles, key_tiles});
  division->key_tiles = key_tiles;
  division->hidden = hidden.data<uint8_t>();
  const auto kernel = a.mask_kind == Attention::kKeep ? FindHidden<T, bool, kKeys> : FindHidden<T, T, kKeys>;
  Launch(call.stream, kernel, dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(key_tiles), static_cast<unsigned>(batches)), kHiddenThreads, 0, rules,
         division->group, division->rows, tile_rows, hidden.data<uint8_t>());
  return hidden;
}

bool IsPlain(const Attention& a) { return a.mask_kind == Attention::kNone && a.cap == 0; }

template <typename T, int kWidth, bool kAcross, bool kPlain>
void LaunchTensor(Call& call, const Rules<T>& rules, const Division& division) {
  constexpr int kBytes = static_cast<int>(sizeof(TensorMemory<T, kWidth, kAcross>));
  if (kBytes > cuda::CurrentDevice().shared_limit) return AttendByRows<T>(call, rules.a);
  const auto kernel = AttendTensorKernel<T, kWidth, kAcross, kPlain>;
  // Once, as there is one device.
  static const bool allowed = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) == cudaSuccess;
  ++by_tiles;
  if (!allowed) throw DeviceError("attention needs more shared memory than this GPU gives");
  constexpr int kKeys = kTensorKeys<T, kWidth>;
  Division own = division;
  const Tensor hidden = FindTiles<kKeys>(call, rules, kTensorRows, 2, &own);
  LaunchAttend<T>(call, rules, own, kernel, kTensorRows, kTensorThreads, 2, 2 * kKeys, kBytes);
}

template <typename T, int kWidth, bool kAcross>
void LaunchTensor(Call& call, const Rules<T>& rules, const Division& division) {
  (IsPlain(rules.a) ? LaunchTensor<T, kWidth, kAcross, true> : LaunchTensor<T, kWidth, kAcross, false>)(call, rules, division);
}

// Whether the copy engine can fetch rows of heads that lie at multiples of 16 bytes: not if all heads or batches have the same.
bool CanFetch(const Places& at, const Attention& a) {
  return at.token > 0 && (a.kv_heads == 1 || at.head > 0) && (a.batches == 1 || at.batch > 0);
}

constexpr float kLeastScale = 1e-20f;  // masks are divided by it

bool FitsGroups(const Attention& a, const Division& division) {
  return cuda::CurrentDevice().hopper && a.keys > 0 && Most(a.width, a.value_width) <= 128 && division.rows > kGroupRows && division.whole && a.k_step == 1 &&
         a.mask_kind != Attention::kPadding && a.scale > kLeastScale && CanFetch(a.k_at, a) && CanFetch(a.v_at, a);
}

void LaunchGroups(Call& call, const Rules<Half>& rules, const Division& division) {
  ++by_groups;
  const Attention& a = rules.a;
  const auto map = [&](const void* data, int width, const Places& at) {
    return cuda::HeadMap(static_cast<const __half*>(data), {width, a.keys, a.kv_heads, a.batches}, {at.token, at.head, at.batch}, kGroupsKeys);
  };
  const GroupsKernel& kernel = GroupsKernelFor(Most(a.width, a.value_width), IsPlain(a));
  Division own = division;
  const size_t pair = a.mask_kind == Attention::kAdd ? 4 : 2;  // bytes
  own.mask_pairs = a.mask_step == 1 && reinterpret_cast<uintptr_t>(a.mask) % pair == 0 && (a.mask_at.batch | a.mask_at.head | a.mask_at.token) % 2 == 0;
  const Tensor hidden = FindTiles<kGroupsKeys>(call, rules, kGroupsRows, 2, &own);
  LaunchAttend<Half>(call, rules, own, kernel.run, kGroupsRows, kGroupsThreads, 1, 2 * kGroupsKeys, kernel.shared, map(a.k, a.width, a.k_at),
                     map(a.v, a.value_width, a.v_at));
}

template <typename T, int kRows, int kWidth>
void LaunchFew(Call& call, const Rules<T>& rules, const Division& division) {
  constexpr int kLeastKeys = 32;
  ++by_few;
  LaunchAttend<T>(call, rules, division, AttendFewKernel<T, kRows, kWidth>, kRows, kFewThreads, 2, kLeastKeys, 0);
}

template <typename T, int kWidth>
void LaunchWidth(Call& call, const Rules<T>& rules, const Division& division) {
  constexpr int kFew = kWidth > 128 ? 4 : 8;
  if (rules.a.k_step != 1) {
    LaunchTensor<T, kWidth, true>(call, rules, division);
  } else if (division.fours && division.rows == 1) {
    LaunchFew<T, 1, kWidth>(call, rules, division);
  } else if (division.fours && division.rows <= 4) {
    LaunchFew<T, 4, kWidth>(call, rules, division);
  } else if (division.fours && division.rows <= kFew) {
    LaunchFew<T, kFew, kWidth>(call, rules, division);
  } else {
    LaunchTensor<T, kWidth, false>(call, rules, division);
  }
}

template <typename T>
void AttendOnDevice(Call& call, const Attention& a) {
  const Rules<T> rules{a};
  Division division = {};
  division.group = a.heads / a.kv_heads;
  division.rows = CheckedCount(int64_t{a.queries} * division.group);
  CheckedCount(int64_t{a.batches} * a.kv_heads);
  const auto lies = [](const void* p, const Places& at, size_t numbers) {
    return reinterpret_cast<uintptr_t>(p) % (numbers * sizeof(T)) == 0 && (at.batch | at.head | at.token) % static_cast<int64_t>(numbers) == 0;
  };
  const auto all_lie = [&](size_t numbers) {
    return (a.width | a.value_width) % static_cast<int>(numbers) == 0 && lies(a.q, a.q_at, numbers) && (a.k_step != 1 || lies(a.k, a.k_at, numbers)) &&
           lies(a.v, a.v_at, numbers);
  };
  constexpr int kPiece = 16 / sizeof(T);
  division.fours = all_lie(4);
  division.whole = all_lie(kPiece) && lies(a.y, a.y_at, 2);
  // Steps begin at multiples of pieces.
  division.whole_across = (a.k_step | a.keys | a.k_at.batch | a.k_at.head) % kPiece == 0 && a.k_at.token == 1 && !a.causal && reinterpret_cast<uintptr_t>(a.k) % 16 == 0;
  if constexpr (sizeof(T) == 2) {
    if (FitsGroups(a, division)) return LaunchGroups(call, rules, division);
  }
  const int width = Most(a.width, a.value_width);
  if (width <= 64) {
    LaunchWidth<T, 64>(call, rules, division);
  } else if (width <= 128) {
    LaunchWidth<T, 128>(call, rules, division);
  } else if (width <= kMaxWidth) {
    LaunchWidth<T, kMaxWidth>(call, rules, division);
  } else {
    AttendByRows<T>(call, a);
  }
}

#endif

template <typename T>
void AttendAs(Call& call, const Attention& a) {
#ifdef __CUDACC__
  if (!call.stream.on_host()) return AttendOnDevice<T>(call, a);
#endif
  AttendByRows<T>(call, a);
}

}  // namespace

Attentions TotalAttentions() { return {by_rows, by_few, by_tiles, by_groups}; }

void Attend(Call& call, Type type, const Attention& a) {
  if (a.batches == 0 || a.heads == 0 || a.queries == 0 || a.value_width == 0) return;
  if (type == Type::kHalf) return AttendAs<Half>(call, a);
  AttendAs<float>(call, a);
}

}  // namespace cosetq::ep
