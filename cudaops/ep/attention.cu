// softmax(q k^T) v in one pass over keys and values (Dao et al., FlashAttention): of each query the largest score so far, the sum of
// exponentials and the sum of values are kept, and scaled when a larger score comes.

#include "attention.h"

#include "launch.h"

namespace cosetq::ep {
namespace {

COSETQ_HD int Least(int a, int b) { return a < b ? a : b; }
COSETQ_HD int Most(int a, int b) { return a > b ? a : b; }

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
    const int position = s + (a.past >= 0 ? a.past : Most(0, *end - a.queries));
    if (a.window > 0) *first = Most(0, position + 1 - a.window);
    *end = Least(*end, position + 1);
  }
  COSETQ_HD float Masked(float score, int batch, int head, int s, int key) const {
    if (a.mask_kind == Attention::kNone) return score;
    if (key >= a.mask_keys) return -INFINITY;
    const int64_t at = batch * a.mask_at.batch + head * a.mask_at.head + s * a.mask_at.token + key;
    switch (a.mask_kind) {
      case Attention::kAdd: return score + ToFloat(static_cast<const T*>(a.mask)[at]);
      case Attention::kKeep: return static_cast<const bool*>(a.mask)[at] ? score : -INFINITY;
      default: return static_cast<const int32_t*>(a.mask)[at] == 0 ? score + a.filter : score;
    }
  }
  COSETQ_HD float Score(float product, int batch, int head, int s, int key) const {
    float score = product * a.scale;
    if (a.mask_before_cap) score = Masked(score, batch, head, s, key);
    if (a.cap != 0) score = a.cap * tanhf(score / a.cap);
    return a.mask_before_cap ? score : Masked(score, batch, head, s, key);
  }
  COSETQ_HD float Sink(int head) const {
    return a.sink != nullptr ? ToFloat(static_cast<const T*>(a.sink)[head]) : a.zero_sink ? 0 : -INFINITY;
  }
};

// exp(x - largest), where nothing has been seen as long as the largest is -infinity.
COSETQ_HD float Weight(float x, float largest) { return x == -INFINITY ? 0 : expf(x - largest); }

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
      for (int d = 0; d < a.width; ++d) product += ToFloat(q[d]) * ToFloat(k[j * a.k_at.token + d]);
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
      y[d] = FromFloat<T>(total == 0 ? 0 : sum / total);
    }
  }
};

template <typename T>
void AttendByRows(Call& call, const Attention& a) {
  const int64_t rows = int64_t{a.batches} * a.heads * a.queries;
  const Tensor scores = call.Scratch(Type::kFloat, {rows, a.keys});
  ForEachBlock(call.stream, rows, a.keys, AttendRow<T>{Rules<T>{a}, scores.data<float>()});
}

#ifdef __CUDACC__

constexpr int kSide = 16, kBlock = kSide * kSide, kKeys = 64;

__device__ __forceinline__ float4 LoadFour(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ __forceinline__ float4 LoadFour(const Half* p) {
  const uint2 bits = *reinterpret_cast<const uint2*>(p);
  const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&bits.x)), high = __half22float2(*reinterpret_cast<const __half2*>(&bits.y));
  return make_float4(low.x, low.y, high.x, high.y);
}

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

__device__ __forceinline__ float Dot(float4 a, float4 b, float sum) { return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sum)))); }

// How the work is divided: rows are the queries of all heads that share keys, the heads of a query next to each other.
struct Division {
  int group, rows, splits, keys_of_split;
  bool fours;
  float* partial;  // [splits, batches * kv_heads, rows, value_width + 2]: sums, largest score, sum of exponentials; null for one split
};

template <int kRows, int kWidth>
struct AttendMemory {
  static constexpr int kM = kRows * kSide;
  float q[kM][kWidth + 4], kv[kKeys][kWidth + 4], weights[kM][kKeys + 4];
};

// A block takes kRows * 16 rows and 64 keys at a time, a thread kRows x 4 scores and kRows x kWidth / 16 numbers of the result.
template <typename T, int kRows, int kWidth>
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
  const int from = static_cast<int>(blockIdx.z) * division.keys_of_split;
  first = Most(first / kKeys * kKeys, from);
  end = Least(end, from + division.keys_of_split);

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
    LoadRows<T, kKeys, kWidth>(memory.kv, keys, a.width, division.fours, [&](int j) {
      return static_cast<const T*>(a.k) + batch * a.k_at.batch + kv_head * a.k_at.head + (key0 + j) * a.k_at.token;
    });
    __syncthreads();
    float score[kRows][4] = {};
#pragma unroll 4
    for (int d = 0; d < width; d += 4) {
      float4 x[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) x[i] = *reinterpret_cast<const float4*>(&memory.q[ty * kRows + i][d]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float4 y = *reinterpret_cast<const float4*>(&memory.kv[tx + kSide * j][d]);
#pragma unroll
        for (int i = 0; i < kRows; ++i) score[i][j] = Dot(x[i], y, score[i][j]);
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
        const int key = key0 + tx + kSide * j;
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
        memory.weights[ty * kRows + i][tx + kSide * j] = weight;
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
            const float w = e == 0 ? weight[i].x : e == 1 ? weight[i].y : e == 2 ? weight[i].z : weight[i].w;
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
    float factor = 1;
    float* part = nullptr;
    T* y = nullptr;
    if (division.partial != nullptr) {
      const int64_t line = (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * division.rows + row;
      part = division.partial + line * (a.value_width + 2);
      if (tx == 0) {
        part[a.value_width] = largest[i];
        part[a.value_width + 1] = total[i];
      }
    } else {
      const float sink = rules.Sink(head[i]), most = Larger()(largest[i], sink);
      const float shrink = Weight(largest[i], most), all = total[i] * shrink + Weight(sink, most);
      factor = all == 0 ? 0 : shrink / all;
      y = static_cast<T*>(a.y) + batch * a.y_at.batch + head[i] * a.y_at.head + query[i] * a.y_at.token;
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int d = c * 64 + tx * 4 + e;
        if (d >= a.value_width) continue;
        if (part != nullptr) {
          part[d] = out[i][c][e];
        } else {
          y[d] = FromFloat<T>(out[i][c][e] * factor);
        }
      }
  }
}

// Adds up what the splits have of a row.
template <typename T>
struct Combine {
  Rules<T> rules;
  Division division;

  COSETQ_HD void operator()(const Block& block, int line) const {
    const Attention& a = rules.a;
    const int row = line % division.rows, both = line / division.rows, batch = both / a.kv_heads, kv_head = both % a.kv_heads;
    const int head = kv_head * division.group + row % division.group, query = row / division.group, stride = a.value_width + 2;
    const int64_t step = static_cast<int64_t>(a.batches) * a.kv_heads * division.rows * stride;
    const float* part = division.partial + static_cast<int64_t>(line) * stride;
    const float sink = rules.Sink(head);
    float most = sink;
    for (int s = 0; s < division.splits; ++s) most = Larger()(part[s * step + a.value_width], most);
    float all = Weight(sink, most);
    for (int s = 0; s < division.splits; ++s) all += part[s * step + a.value_width + 1] * Weight(part[s * step + a.value_width], most);
    T* y = static_cast<T*>(a.y) + batch * a.y_at.batch + head * a.y_at.head + query * a.y_at.token;
    for (int d = block.thread(); d < a.value_width; d += block.threads()) {
      float sum = 0;
      for (int s = 0; s < division.splits; ++s) sum += part[s * step + d] * Weight(part[s * step + a.value_width], most);
      y[d] = FromFloat<T>(all == 0 ? 0 : sum / all);
    }
  }
};

template <typename T, int kRows, int kWidth>
void LaunchAttend(Call& call, const Rules<T>& rules, Division division) {
  const Attention& a = rules.a;
  constexpr int kM = kRows * kSide, kBytes = static_cast<int>(sizeof(AttendMemory<kRows, kWidth>));
  const int tiles = (division.rows - 1) / kM + 1, heads = a.batches * a.kv_heads;
  // Enough blocks for all processors, of at least two rounds of keys each.
  const int wanted = 2 * cuda::CurrentDevice().processors / Most(1, tiles * heads), rounds = (a.keys - 1) / kKeys + 1;
  division.splits = Most(1, Least(wanted, rounds / 2));
  division.keys_of_split = ((rounds - 1) / division.splits + 1) * kKeys;
  division.splits = (a.keys - 1) / division.keys_of_split + 1;
  Tensor partial;
  if (division.splits > 1) {
    partial = call.Scratch(Type::kFloat, {division.splits, heads, division.rows, a.value_width + 2});
    division.partial = partial.data<float>();
  }
  static const bool allowed = cudaFuncSetAttribute(AttendKernel<T, kRows, kWidth>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) == cudaSuccess;
  if (!allowed) throw DeviceError("attention needs more shared memory than this GPU has");
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(heads), static_cast<unsigned>(division.splits));
  Launch(call.stream, AttendKernel<T, kRows, kWidth>, grid, kBlock, kBytes, rules, division);
  if (division.splits > 1) ForEachBlock(call.stream, int64_t{heads} * division.rows, a.value_width, Combine<T>{rules, division});
}

template <typename T, int kWidth>
void LaunchWidth(Call& call, const Rules<T>& rules, const Division& division) {
  constexpr int kMany = 4;
  if (division.rows > kSide && static_cast<int>(sizeof(AttendMemory<kMany, kWidth>)) <= cuda::CurrentDevice().shared_limit) {
    LaunchAttend<T, kMany, kWidth>(call, rules, division);
  } else {
    LaunchAttend<T, 1, kWidth>(call, rules, division);
  }
}

template <typename T>
void AttendOnDevice(Call& call, const Attention& a) {
  const Rules<T> rules{a};
  Division division = {};
  division.group = a.heads / a.kv_heads;
  division.rows = CheckedCount(int64_t{a.queries} * division.group);
  constexpr int kMaxGrid = 65535;
  if (int64_t{a.batches} * a.kv_heads > kMaxGrid) throw DeviceError("attention with more than 65535 heads of keys in all batches");
  const auto fours = [](const void* p, const Places& at) {
    return reinterpret_cast<uintptr_t>(p) % (4 * sizeof(T)) == 0 && (at.batch | at.head | at.token) % 4 == 0;
  };
  division.fours = (a.width | a.value_width) % 4 == 0 && fours(a.q, a.q_at) && fours(a.k, a.k_at) && fours(a.v, a.v_at);
  const int width = Most(a.width, a.value_width);
  if (width <= 64) {
    LaunchWidth<T, 64>(call, rules, division);
  } else if (width <= 128) {
    LaunchWidth<T, 128>(call, rules, division);
  } else if (width <= 256) {
    LaunchWidth<T, 256>(call, rules, division);
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

void Attend(Call& call, Type type, const Attention& a) {
  if (a.batches == 0 || a.heads == 0 || a.queries == 0 || a.value_width == 0) return;
  if (type == Type::kHalf) return AttendAs<Half>(call, a);
  AttendAs<float>(call, a);
}

}  // namespace cosetq::ep
